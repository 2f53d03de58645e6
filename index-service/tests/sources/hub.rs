//! A model from a hub: downloaded once, then from the cache; unreachable, unknown, offline.

use std::path::Path;

use prompt_cache_index::policy::{Models, Refreshed};
use prompt_cache_index::tokens::ImageTokens;
use tempfile::TempDir;

use crate::files::files;
use crate::hub_server::{COMMIT, HubServer, REPOSITORY};
use crate::models;

const LOADED: Refreshed = Refreshed {
    loaded: 1,
    failed: 0,
};
const FAILED: Refreshed = Refreshed {
    loaded: 0,
    failed: 1,
};

fn from_hub(dir: &Path, rest: &str) -> Models {
    let yaml = format!("models: [{{model: m, tokenizer: {{hub: {REPOSITORY}, {rest}}}}}]");
    Models::new(&models(dir, &yaml)).unwrap()
}

/// The reason why the model does not load.
fn refusal(dir: &Path, rest: &str) -> String {
    let yaml = format!("models: [{{model: m, tokenizer: {{hub: {REPOSITORY}, {rest}}}}}]");
    let config = &models(dir, &yaml)[0].source;
    let loaded =
        prompt_cache_index::tokens::source::Loader::default().load(config, ImageTokens::Ignore);
    loaded.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_model_is_downloaded_once() {
    let dir = TempDir::new().unwrap();
    let hub = HubServer::start(files());
    let models = from_hub(dir.path(), &format!("endpoint: '{}'", hub.endpoint));
    assert!(models.get("m").is_none(), "inactive until it is loaded");
    assert_eq!(models.pending().as_deref(), Some("m"));
    assert_eq!(models.refresh(), LOADED);
    assert_eq!(models.pending(), None);
    let version = models.get("m").unwrap().tokens.version().to_owned();
    let asked = hub.requests();
    assert!(asked[0].ends_with("/resolve/main/tokenizer.json"));
    let of_commit = format!("/{REPOSITORY}/resolve/{COMMIT}/tokenizer_config.json");
    assert!(asked.contains(&of_commit), "{asked:?}");

    let again = from_hub(dir.path(), &format!("endpoint: '{}'", hub.endpoint));
    assert_eq!(again.refresh(), LOADED);
    assert_eq!(hub.requests(), asked, "the cache is complete");
    assert_eq!(again.get("m").unwrap().tokens.version(), version);

    let offline = from_hub(dir.path(), "offline: true");
    assert_eq!(offline.refresh(), LOADED);
    assert_eq!(offline.get("m").unwrap().tokens.version(), version);
}

#[test]
fn an_unreachable_hub_leaves_the_model_inactive() {
    let dir = TempDir::new().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("endpoint: 'http://{}'", port.local_addr().unwrap());
    drop(port);
    let models = from_hub(dir.path(), &gone);
    assert_eq!(models.refresh(), FAILED);
    assert!(models.get("m").is_none());
    assert_eq!(models.pending().as_deref(), Some("m"));
    // It is not asked again at once.
    assert_eq!(models.refresh(), Refreshed::default());
    let reason = refusal(dir.path(), &gone);
    assert!(
        reason.contains(REPOSITORY) && reason.contains("127.0.0.1"),
        "{reason}"
    );
}

#[test]
fn an_unknown_repository_is_named() {
    let dir = TempDir::new().unwrap();
    let hub = HubServer::start(Vec::new());
    let reason = refusal(dir.path(), &format!("endpoint: '{}'", hub.endpoint));
    assert!(
        reason.contains(REPOSITORY) && reason.contains("404"),
        "{reason}"
    );
}

#[test]
fn offline_without_a_cache_says_so() {
    let dir = TempDir::new().unwrap();
    let reason = refusal(dir.path(), "offline: true");
    assert!(
        reason.contains("offline") && reason.contains(REPOSITORY),
        "{reason}"
    );
}
