//! Text that may hold a password: given in the file, in a file of its own, or in the environment.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::validate::{Invalid, beside, invalid};

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text, for the one who connects with it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The three ways to give a URL; exactly one is used.
#[derive(Debug, Default)]
pub(super) struct RawUrl {
    pub url: Option<RawSecret>,
    pub url_file: Option<PathBuf>,
    pub url_env: Option<String>,
}

/// A string of the file that is not printed either.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct RawSecret(String);

impl std::fmt::Debug for RawSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawSecret(..)")
    }
}

impl RawUrl {
    /// The URL, without white space around it, and the key it came from. `store` is the key that
    /// holds the three, `config` the configuration file.
    pub fn resolve(self, store: &str, config: &Path) -> Result<(Secret, String), Invalid> {
        let (key, text) = match (self.url, self.url_file, self.url_env) {
            (Some(url), None, None) => ("url", url.0),
            (None, Some(file), None) => {
                let file = beside(config, &file);
                let text = std::fs::read_to_string(&file).map_err(|error| {
                    let reason = format!("{} cannot be read: {error}", file.display());
                    (format!("{store}.url_file"), reason)
                })?;
                ("url_file", text)
            }
            (None, None, Some(name)) => {
                let text = std::env::var(&name).map_err(|_| {
                    let reason = format!("the environment variable {name:?} is not set");
                    (format!("{store}.url_env"), reason)
                })?;
                ("url_env", text)
            }
            _ => return Err(invalid(store, "needs one of url, url_file and url_env")),
        };
        let key = format!("{store}.{key}");
        match text.trim() {
            "" => Err((key, "is empty".to_owned())),
            text => Ok((Secret(text.to_owned()), key)),
        }
    }
}
