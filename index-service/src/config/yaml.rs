//! YAML into types, with errors that name the key.

use std::path::Path;

use prompt_cache_core::config::with_nearest;
use serde::de::DeserializeOwned;

use super::ConfigError;

/// Parses `text` as the contents of the file at `path`.
///
/// # Errors
/// With the file, the key and the reason.
pub fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, ConfigError> {
    let mut failed = None;
    let parsed = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
        serde_path_to_error::deserialize::<_, T>(deserializer).map_err(|error| {
            let key = error.path().to_string();
            let error = error.into_inner();
            failed = Some((key, explain(&error)));
            error
        })
    });
    parsed.map_err(|error| {
        let (key, reason) = failed.unwrap_or_else(|| (String::new(), explain(&error)));
        // The path of an error outside of any key, or of a key that could not be read.
        let key = Some(key.as_str()).filter(|key| !matches!(*key, "" | "." | "?"));
        ConfigError::new(path, key, reason)
    })
}

/// The parser's reason in words for people, with its line and column.
fn explain(error: &serde_saphyr::Error) -> String {
    let reason = error
        .without_snippet()
        .render_with_formatter(&serde_saphyr::UserMessageFormatter);
    // The parser names the Rust type.
    with_nearest(reason.replace("invalid u64", "not a whole number"))
}
