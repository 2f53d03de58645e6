//! How a model's tokens are counted, raw to validated.

use std::path::{Path, PathBuf};

use super::raw::{RawModel, RawTokenizer};
use crate::tokens::source::{FilesConfig, HubConfig, Place, SourceConfig};

/// Longest name of a repository or revision.
const NAME_BYTES_MAX: usize = 200;

/// The key inside a model, and the reason.
type Invalid = (&'static str, String);

/// The source of a model. Relative paths start from the directory of the file at `config`.
pub(super) fn source(model: &mut RawModel, config: &Path) -> Result<SourceConfig, Invalid> {
    match (model.encoding, model.tokenizer.take()) {
        (Some(encoding), None) => Ok(SourceConfig::Encoding(encoding)),
        (None, Some(raw)) => Ok(SourceConfig::Files(Box::new(files(raw, config)?))),
        (None, None) => Err((
            "encoding",
            "one of encoding and tokenizer is needed".to_owned(),
        )),
        (Some(_), Some(_)) => Err(("tokenizer", "encoding is set as well; keep one".to_owned())),
    }
}

fn files(raw: RawTokenizer, config: &Path) -> Result<FilesConfig, Invalid> {
    let from_config = |path: PathBuf| match config.parent() {
        Some(dir) => dir.join(path),
        None => path,
    };
    let place = match (raw.dir, raw.hub) {
        (Some(dir), None) => {
            let hub_keys = [
                ("tokenizer.revision", raw.revision.is_some()),
                ("tokenizer.cache_dir", raw.cache_dir.is_some()),
                ("tokenizer.endpoint", raw.endpoint.is_some()),
                ("tokenizer.offline", raw.offline.is_some()),
            ];
            if let Some((key, _)) = hub_keys.iter().find(|(_, set)| *set) {
                return Err((key, "has no effect without hub".to_owned()));
            }
            Place::Dir(from_config(dir))
        }
        (None, Some(repository)) => Place::Hub(HubConfig {
            repository: repository_name(repository)?,
            revision: revision(raw.revision.unwrap_or_else(|| "main".to_owned()))?,
            cache_dir: from_config(raw.cache_dir.unwrap_or_else(|| "./hub-cache".into())),
            endpoint: raw.endpoint.map(endpoint).transpose()?,
            offline: raw.offline.unwrap_or(false),
        }),
        (None, None) => return Err(("tokenizer", "one of dir and hub is needed".to_owned())),
        (Some(_), Some(_)) => {
            return Err(("tokenizer.dir", "hub is set as well; keep one".to_owned()));
        }
    };
    Ok(FilesConfig {
        place,
        chat_template: raw.chat_template.map(from_config),
        content_format: raw.content_format,
        chat_template_kwargs: raw.chat_template_kwargs,
    })
}

/// Names become parts of paths in the cache directory.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && !text.starts_with('.') && !text.contains("..") && text.chars().all(plain)
}

fn repository_name(name: String) -> Result<String, Invalid> {
    let parts: Vec<&str> = name.split('/').collect();
    let good = matches!(parts.len(), 1 | 2) && parts.iter().all(|part| is_name(part));
    if !good || name.len() > NAME_BYTES_MAX {
        let reason = format!("{name:?} is no repository like organisation/name");
        return Err(("tokenizer.hub", reason));
    }
    Ok(name)
}

fn revision(name: String) -> Result<String, Invalid> {
    if name.len() > NAME_BYTES_MAX || !name.split('/').all(is_name) {
        let reason = format!("{name:?} is no branch, tag or commit");
        return Err(("tokenizer.revision", reason));
    }
    Ok(name)
}

fn endpoint(address: String) -> Result<String, Invalid> {
    let good = address.starts_with("https://") || address.starts_with("http://");
    if !good || !address.chars().all(|c| c.is_ascii_graphic()) {
        let reason = format!("{address:?} is no address like https://hub.example");
        return Err(("tokenizer.endpoint", reason));
    }
    Ok(address)
}
