//! `check-config` and `schema`: what is right, before it runs.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use prompt_cache_core::config::FilterConfig;
use serde_json::Value;

use super::{Failed, source_error};
use crate::config::{Config, ConfigError, schema};
use crate::policy::Models;

/// The key that every configuration of the filter has, and nothing else.
const FILTER_KEY: &str = "index_cluster";

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct CheckArgs {
    /// The service's YAML file; the tokenizers it names in directories must load.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The filter's configuration: the JSON object itself, or any YAML that holds it, such as an
    /// Envoy bootstrap or a WasmPlugin.
    #[arg(long, value_name = "FILE")]
    filter: Option<PathBuf>,
}

/// Which configuration.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Which {
    /// The service's.
    Index,
    /// The filter's.
    Filter,
}

impl CheckArgs {
    pub(super) fn run(self) -> Result<(), Failed> {
        if let Some(file) = &self.config {
            check_index(file)?;
        }
        match &self.filter {
            Some(file) => check_filter(file),
            None => Ok(()),
        }
    }
}

impl Which {
    /// Prints the JSON Schema.
    pub(super) fn print(self) -> Result<(), Failed> {
        let schema = match self {
            Self::Index => schema::index(),
            Self::Filter => schema::filter(),
        };
        let mut text = serde_json::to_string_pretty(&schema).map_err(Failed::other)?;
        text.push('\n');
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).map_err(Failed::other)
    }
}

/// Loads what the configuration names, but asks no hub.
fn check_index(file: &Path) -> Result<(), Failed> {
    let config = Config::load(file)?;
    Models::new(&config.models).map_err(|error| source_error(file, error.index, &error.error))?;
    Ok(())
}

fn check_filter(file: &Path) -> Result<(), Failed> {
    let fail = |reason: String| Failed::from(ConfigError::new(file, None, reason));
    let text =
        std::fs::read_to_string(file).map_err(|error| fail(format!("cannot be read: {error}")))?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
        .map_err(|error| fail(error.without_snippet().to_string()))?;
    let mut found = Vec::new();
    for document in &documents {
        find(document, &mut found);
    }
    if found.is_empty() {
        return Err(fail(format!(
            "holds no configuration of the filter: nothing in it has the key {FILTER_KEY}"
        )));
    }
    for json in &found {
        FilterConfig::parse(json.as_bytes())
            .map_err(|error| ConfigError::new(file, Some(&error.key), error.reason))?;
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{}: {} configuration{} of the filter, good",
        file.display(),
        found.len(),
        if found.len() == 1 { "" } else { "s" }
    )
    .map_err(Failed::other)
}

/// The configurations in `value`, as JSON: objects, or strings that hold one (Envoy's
/// `StringValue`), as they stand, so that an error's position is one of the string.
fn find(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) if members.contains_key(FILTER_KEY) => found.push(value.to_string()),
        Value::Object(members) => members.values().for_each(|value| find(value, found)),
        Value::Array(items) => items.iter().for_each(|item| find(item, found)),
        // A quoted key: prose that mentions it is no configuration.
        Value::String(text) if text.contains(&format!("\"{FILTER_KEY}\"")) => {
            found.push(text.clone());
        }
        _ => {}
    }
}
