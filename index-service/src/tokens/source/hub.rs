//! Fetches a model's files from a hub into a cache directory, through the hub's own client.
//!
//! What was fetched completely is not asked for again: a start needs no hub, and the counts of a
//! branch do not change under a running ledger.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

use super::files::{NAMES, TOKENIZER};
use super::{HubConfig, SourceError};

/// Longest wait for all files of one model.
const FETCH_TIMEOUT: Duration = Duration::from_secs(120);
/// Marks a snapshot directory that holds every file its repository has.
const COMPLETE: &str = ".prompt-cache-index-complete";

/// The directory that holds the files of `hub`. Blocking.
pub(super) fn fetch(hub: &HubConfig) -> Result<PathBuf, SourceError> {
    let cache = Cache::new(absolute(&hub.cache_dir)?);
    let cached = cache.repo(repository(hub, &hub.revision)).get(TOKENIZER);
    if let Some(dir) = cached.as_deref().and_then(Path::parent)
        && (hub.offline || dir.join(COMPLETE).exists())
    {
        return Ok(dir.to_owned());
    }
    if hub.offline {
        let reason = format!(
            "{} is not in {}, and offline is set",
            name(hub),
            hub.cache_dir.display()
        );
        return Err(SourceError::at("hub", reason));
    }
    // The client has no time limit of its own: it works in a thread that may be left behind.
    let (send, receive) = mpsc::sync_channel(1);
    let job = hub.clone();
    std::thread::Builder::new()
        .name("hub".to_owned())
        .spawn(move || {
            let _ = send.send(download(&job, &cache));
        })
        .map_err(|error| SourceError::at("hub", error))?;
    receive.recv_timeout(FETCH_TIMEOUT).unwrap_or_else(|_| {
        let reason = format!("no answer within {} s", FETCH_TIMEOUT.as_secs());
        Err(SourceError::at(name(hub), reason))
    })
}

fn download(hub: &HubConfig, cache: &Cache) -> Result<PathBuf, SourceError> {
    let failed = |error: ApiError| SourceError::at(name(hub), error);
    let mut builder = ApiBuilder::from_cache(cache.clone())
        .with_progress(false)
        .with_token(None)
        .with_retries(0);
    if let Some(endpoint) = &hub.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    let api = builder.build().map_err(failed)?;
    // The first file says which commit the revision is; the others are of the same commit.
    let first = api.repo(repository(hub, &hub.revision)).get(TOKENIZER);
    let first = first.map_err(failed)?;
    let dir = first.parent().unwrap_or(&first).to_owned();
    let commit = dir.file_name().and_then(|name| name.to_str());
    let commit = commit.unwrap_or(&hub.revision);
    for (file, required) in NAMES.iter().filter(|(file, _)| *file != TOKENIZER) {
        match get(&api, hub, commit, file) {
            Err(error) if *required || !is_missing(&error) => return Err(failed(error)),
            _ => {}
        }
    }
    std::fs::write(dir.join(COMPLETE), "").map_err(|error| SourceError::new(&dir, error))?;
    Ok(dir)
}

fn get(api: &Api, hub: &HubConfig, commit: &str, file: &str) -> Result<PathBuf, ApiError> {
    api.repo(repository(hub, commit)).get(file)
}

fn is_missing(error: &ApiError) -> bool {
    matches!(error, ApiError::RequestError(error) if matches!(**error, ureq::Error::StatusCode(404)))
}

fn repository(hub: &HubConfig, revision: &str) -> Repo {
    Repo::with_revision(hub.repository.clone(), RepoType::Model, revision.to_owned())
}

/// The repository, its revision and the hub, for messages.
fn name(hub: &HubConfig) -> String {
    let endpoint = hub.endpoint.as_deref().unwrap_or("the public hub");
    format!(
        "{} (revision {}) of {endpoint}",
        hub.repository, hub.revision
    )
}

fn absolute(dir: &Path) -> Result<PathBuf, SourceError> {
    std::path::absolute(dir).map_err(|error| SourceError::new(dir, error))
}
