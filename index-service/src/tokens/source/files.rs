//! The files of a model that decide its counts: read from a directory, bounded and digested.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::SourceError;

/// Largest `tokenizer.json`; the largest in use have about 35 MB.
const TOKENIZER_BYTES_MAX: u64 = 256 << 20;
/// Largest of the other files.
const OTHER_BYTES_MAX: u64 = 8 << 20;

/// The names of the files, and whether a model must have them.
pub(super) const NAMES: [(&str, bool); 5] = [
    (TOKENIZER, true),
    (TOKENIZER_CONFIG, false),
    (SPECIAL_TOKENS, false),
    (TEMPLATE_JINJA, false),
    (TEMPLATE_JSON, false),
];
pub(super) const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const TEMPLATE_JINJA: &str = "chat_template.jinja";
const TEMPLATE_JSON: &str = "chat_template.json";

/// The special tokens that a template may name.
const SPECIAL_NAMES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// The contents of a model's files.
pub(super) struct Files {
    dir: PathBuf,
    contents: Vec<(&'static str, Vec<u8>)>,
}

/// The chat templates of a model.
#[derive(Default)]
pub(super) struct Templates {
    /// For every request, or for those without tools.
    pub default: Option<String>,
    /// For requests with tools.
    pub tool_use: Option<String>,
}

impl Files {
    /// Reads the files in `dir`. Blocking.
    pub fn read(dir: &Path) -> Result<Self, SourceError> {
        let mut contents = Vec::new();
        for (name, required) in NAMES {
            match read(&dir.join(name), bytes_max(name)) {
                Ok(bytes) => contents.push((name, bytes)),
                Err(error) if !required && error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(SourceError::new(&dir.join(name), error)),
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            contents,
        })
    }

    fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self.contents.iter().find(|(known, _)| *known == name);
        found.map(|(_, bytes)| bytes.as_slice())
    }

    /// `tokenizer.json`.
    pub fn tokenizer(&self) -> &[u8] {
        self.get(TOKENIZER).unwrap_or_default()
    }

    /// `tokenizer_config.json`.
    pub fn tokenizer_config(&self) -> Option<&[u8]> {
        self.get(TOKENIZER_CONFIG)
    }

    /// Adds the names and contents of all files to a digest, so that no two sets are the same.
    pub fn digest(&self, hasher: &mut blake3::Hasher) {
        for (name, bytes) in &self.contents {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
    }

    /// Digest of what the tokenizer alone is made of: models that agree in it share one.
    pub fn tokenizer_digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for name in [TOKENIZER, TOKENIZER_CONFIG] {
            let bytes = self.get(name).unwrap_or_default();
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        hasher.finalize()
    }

    fn object(&self, name: &'static str) -> Result<Map<String, Value>, SourceError> {
        let Some(bytes) = self.get(name) else {
            return Ok(Map::new());
        };
        serde_json::from_slice(bytes).map_err(|error| SourceError::new(&self.dir.join(name), error))
    }

    /// The special tokens, as variables of the template.
    pub fn special_tokens(&self) -> Result<Vec<(String, String)>, SourceError> {
        let mut tokens = Vec::new();
        let configured = self.object(TOKENIZER_CONFIG)?;
        let mapped = self.object(SPECIAL_TOKENS)?;
        for name in SPECIAL_NAMES {
            let of = |object: &Map<String, Value>| {
                let value = object.get(name)?;
                let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
                Some(text.to_owned())
            };
            if let Some(token) = of(&configured).or_else(|| of(&mapped)) {
                tokens.push((name.to_owned(), token));
            }
        }
        Ok(tokens)
    }

    /// The chat templates: of `chat_template.jinja`, else of `chat_template.json`, else of
    /// `tokenizer_config.json`, where they may be a list with names.
    pub fn templates(&self) -> Result<Templates, SourceError> {
        if let Some(bytes) = self.get(TEMPLATE_JINJA) {
            let text = String::from_utf8(bytes.to_vec())
                .map_err(|error| SourceError::new(&self.dir.join(TEMPLATE_JINJA), error))?;
            return Ok(Templates {
                default: Some(text),
                tool_use: None,
            });
        }
        for name in [TEMPLATE_JSON, TOKENIZER_CONFIG] {
            match self.object(name)?.remove("chat_template") {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) => {
                    return Ok(Templates {
                        default: Some(text),
                        tool_use: None,
                    });
                }
                Some(named) => {
                    return named_templates(&named).ok_or_else(|| {
                        let reason = "chat_template has no template named default";
                        SourceError::new(&self.dir.join(name), reason)
                    });
                }
            }
        }
        Ok(Templates::default())
    }
}

/// `[{"name": …, "template": …}]`, or an object from names to templates.
fn named_templates(named: &Value) -> Option<Templates> {
    let get = |wanted: &str| match named {
        Value::Array(list) => list
            .iter()
            .find(|entry| entry.get("name").is_some_and(|name| name == wanted))?
            .get("template")?
            .as_str()
            .map(str::to_owned),
        _ => named.get(wanted)?.as_str().map(str::to_owned),
    };
    Some(Templates {
        default: Some(get("default")?),
        tool_use: get("tool_use"),
    })
}

fn bytes_max(name: &str) -> u64 {
    if name == TOKENIZER {
        TOKENIZER_BYTES_MAX
    } else {
        OTHER_BYTES_MAX
    }
}

/// Reads a file of at most `bytes_max`.
pub(super) fn read(path: &Path, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let reason = format!("has more than {bytes_max} bytes");
        return Err(std::io::Error::other(reason));
    }
    Ok(bytes)
}
