//! Models with files of their own: from a directory, from a hub, changed while they are in use,
//! and what `count` says about a request.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod command;
mod directory;
mod files;
mod hub;
mod hub_server;

use std::path::Path;

use prompt_cache_index::config::{Config, ModelConfig};

/// The models of a configuration in `dir`.
pub fn models(dir: &Path, yaml: &str) -> Vec<ModelConfig> {
    Config::parse(yaml, &dir.join("index.yaml")).unwrap().models
}
