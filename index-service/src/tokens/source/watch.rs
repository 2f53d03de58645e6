//! Noticing that a model's files have changed, without reading them.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::files::NAMES;
use super::{Place, SourceConfig};

/// When and how large a model's files were. A hub's files are not looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(Vec<(PathBuf, Option<(u64, SystemTime)>)>);

impl Stamp {
    /// Of the files that `config` names.
    pub fn of(config: &SourceConfig) -> Self {
        let SourceConfig::Files(files) = config else {
            return Self(Vec::new());
        };
        let mut paths: Vec<PathBuf> = files.chat_template.iter().cloned().collect();
        if let Place::Dir(dir) = &files.place {
            paths.extend(NAMES.iter().map(|(name, _)| dir.join(name)));
        }
        let stamped = paths.into_iter().map(|path| {
            let stamp = stamp(&path);
            (path, stamp)
        });
        Self(stamped.collect())
    }
}

fn stamp(path: &Path) -> Option<(u64, SystemTime)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}
