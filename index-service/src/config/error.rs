//! What is wrong with a configuration, on one line: file, key, reason.

use std::fmt;
use std::path::{Path, PathBuf};

/// A configuration that the service does not start with.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: PathBuf,
    key: Option<String>,
    reason: String,
}

impl ConfigError {
    /// An error in `file`, at `key` (a path like `models[0].tiers`; `None` for the whole file).
    pub fn new(file: &Path, key: Option<&str>, reason: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            key: key.map(str::to_owned),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        // Parsers explain themselves over several lines; operators grep for one.
        for (i, word) in self.reason.split_whitespace().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            f.write_str(word)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
