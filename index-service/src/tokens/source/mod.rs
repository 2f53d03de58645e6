//! Where a model's tokenizer and template come from, and what they become: a [`TokenSource`].

mod files;
mod hub;
mod watch;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Map, Value};

use super::chat::{Chat, Templates};
use super::template::{ChatTemplate, ContentFormat};
use super::tokenizer::{HuggingFace, Tokenizer};
use super::{Encoding, ImageTokens, TokenSource};
use files::Files;

pub use watch::Stamp;

/// Version of the counting rule: boundaries, normalization, fallback. A change of the rule
/// starts fresh scopes.
const RULE: &[u8] = b"prompt-cache chat 1";
/// Largest chat template of the configuration.
const TEMPLATE_BYTES_MAX: u64 = super::template::SOURCE_BYTES_MAX as u64;

/// How a model's tokens are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceConfig {
    /// A built-in encoding; block texts.
    Encoding(Encoding),
    /// The model's own files.
    Files(Box<FilesConfig>),
}

impl SourceConfig {
    /// Whether loading needs another machine, so that it may fail for a while.
    pub const fn is_remote(&self) -> bool {
        matches!(self, Self::Files(files) if matches!(files.place, Place::Hub(_)))
    }
}

/// A model's own files, and what the operator sets besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesConfig {
    /// Where the files are.
    pub place: Place,
    /// A template that replaces the model's own.
    pub chat_template: Option<PathBuf>,
    /// What the template wants content to be, where the guess is wrong.
    pub content_format: Option<ContentFormat>,
    /// Template variables that a request may override.
    pub chat_template_kwargs: Map<String, Value>,
}

/// Where a model's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory.
    Dir(PathBuf),
    /// A repository of a hub.
    Hub(HubConfig),
}

/// A repository of a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubConfig {
    /// `organisation/name`.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Where downloads are kept.
    pub cache_dir: PathBuf,
    /// The hub's address; `None` is the public one.
    pub endpoint: Option<String>,
    /// Use what is in `cache_dir` and nothing else.
    pub offline: bool,
}

/// Why a source did not load: the file or address, and the reason.
#[derive(Debug, thiserror::Error)]
pub struct SourceError {
    place: String,
    reason: String,
}

impl SourceError {
    fn new(path: &Path, reason: impl fmt::Display) -> Self {
        Self::at(path.display(), reason)
    }

    fn at(place: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self {
            place: place.to_string(),
            reason: reason.to_string(),
        }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

/// Loads sources; equal tokenizers are in memory once.
#[derive(Default)]
pub struct Loader {
    tokenizers: Mutex<HashMap<blake3::Hash, Weak<HuggingFace>>>,
}

impl Loader {
    /// Loads a source that counts images by that rule. Blocking: a second for a large vocabulary,
    /// and the time of a download for one that is not in the cache yet.
    ///
    /// # Errors
    /// With the file or address and the reason.
    pub fn load(
        &self,
        config: &SourceConfig,
        images: ImageTokens,
    ) -> Result<Arc<dyn TokenSource>, SourceError> {
        let source = match config {
            SourceConfig::Encoding(encoding) => super::builtin(*encoding),
            SourceConfig::Files(config) => self.files(config)?,
        };
        Ok(images.over(source))
    }

    fn files(&self, config: &FilesConfig) -> Result<Arc<dyn TokenSource>, SourceError> {
        let dir = match &config.place {
            Place::Dir(dir) => dir.clone(),
            Place::Hub(hub) => hub::fetch(hub)?,
        };
        let files = Files::read(&dir)?;
        let mut templates = files.templates()?;
        if let Some(path) = &config.chat_template {
            let bytes = files::read(path, TEMPLATE_BYTES_MAX);
            let bytes = bytes.map_err(|error| SourceError::new(path, error))?;
            let text = String::from_utf8(bytes).map_err(|error| SourceError::new(path, error))?;
            templates.default = Some(text);
            templates.tool_use = None;
        }
        let version = version(&files, &templates, config);
        let special_tokens = files.special_tokens()?;
        let compile = |source: &String| {
            ChatTemplate::new(
                source,
                special_tokens.clone(),
                config.content_format,
                jiff::Timestamp::now,
            )
            .map_err(|error| {
                let path = config.chat_template.as_deref().unwrap_or(&dir);
                SourceError::new(path, error)
            })
        };
        Ok(Arc::new(Chat {
            version,
            tokenizer: self.tokenizer(&files, &dir)?,
            templates: Templates {
                default: templates.default.as_ref().map(compile).transpose()?,
                tool_use: templates.tool_use.as_ref().map(compile).transpose()?,
            },
            variables: config.chat_template_kwargs.clone(),
        }))
    }

    /// The tokenizer of `files`: the one in memory, if some model has the same.
    fn tokenizer(&self, files: &Files, dir: &Path) -> Result<Arc<dyn Tokenizer>, SourceError> {
        let digest = files.tokenizer_digest();
        let mut known = self
            .tokenizers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(tokenizer) = known.get(&digest).and_then(Weak::upgrade) {
            return Ok(tokenizer);
        }
        let tokenizer = HuggingFace::load(files.tokenizer(), files.tokenizer_config())
            .map_err(|error| SourceError::new(dir, error))?;
        let tokenizer = Arc::new(tokenizer);
        known.retain(|_, tokenizer| tokenizer.strong_count() > 0);
        known.insert(digest, Arc::downgrade(&tokenizer));
        Ok(tokenizer)
    }
}

/// Digest of everything that decides a count: 32 hex digits.
fn version(files: &Files, templates: &files::Templates, config: &FilesConfig) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(RULE);
    files.digest(&mut hasher);
    let kwargs = Value::Object(config.chat_template_kwargs.clone()).to_string();
    let format = format!("{:?}", config.content_format);
    for text in [templates.default.as_deref(), Some(&kwargs), Some(&format)] {
        let text = text.unwrap_or_default();
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize().to_hex().chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(dir: &Path, template: &str, word: &str) -> SourceConfig {
        std::fs::create_dir(dir).unwrap();
        let tokenizer = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
            "decoder": null,
            "model": {"type": "WordLevel", "vocab": {word: 0}, "unk_token": word},
        });
        std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        std::fs::write(dir.join("chat_template.jinja"), template).unwrap();
        SourceConfig::Files(Box::new(FilesConfig {
            place: Place::Dir(dir.to_owned()),
            chat_template: None,
            content_format: None,
            chat_template_kwargs: Map::new(),
        }))
    }

    #[test]
    fn equal_tokenizers_are_in_memory_once_and_only_while_they_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let loader = Loader::default();
        let load = |name: &str, template: &str, word: &str| {
            let config = model(&dir.path().join(name), template, word);
            loader.load(&config, ImageTokens::Ignore).unwrap()
        };
        let users = || -> Vec<usize> {
            let known = loader.tokenizers.lock().unwrap();
            let users = known.values().map(Weak::strong_count);
            users.filter(|users| *users > 0).collect()
        };
        let first = load("a", "one", "[UNK]");
        let second = load("b", "two", "[UNK]");
        assert_ne!(first.version(), second.version());
        assert_eq!(users(), [2]);
        let third = load("c", "one", "[OTHER]");
        let mut both = users();
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
        drop((first, second));
        let _fourth = load("d", "two", "[OTHER]");
        assert_eq!(users(), [2]);
        drop(third);
    }
}
