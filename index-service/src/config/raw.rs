//! The configuration as a file may spell it. Absent keys take the built-in defaults.

use std::path::PathBuf;

use prompt_cache_core::ledger::Tier;
use serde::Deserialize;

use super::store::RawStore;
use super::{LogFormat, LogLevel};
use crate::tokens::template::ContentFormat;
use crate::tokens::{Encoding, Tiles};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    #[serde(default = "default_listen")]
    pub listen: String,
    pub auth_token: Option<String>,
    pub auth_token_file: Option<PathBuf>,
    pub admin_token: Option<String>,
    pub admin_token_file: Option<PathBuf>,
    #[serde(default)]
    pub store: RawStore,
    pub models: Vec<RawModel>,
    #[serde(default)]
    pub unknown_principal: UnknownPrincipal,
    #[serde(default)]
    pub principals: Vec<RawPrincipal>,
    pub accounts_file: Option<PathBuf>,
    #[serde(default)]
    pub accounts_table: bool,
    #[serde(default)]
    pub drift: RawDrift,
    #[serde(default)]
    pub limits: RawLimits,
    #[serde(default = "default_sweep_interval_ms")]
    pub sweep_interval_ms: u64,
    #[serde(default = "default_tokenizer_poll_ms")]
    pub tokenizer_poll_ms: u64,
    #[serde(default)]
    pub log: RawLog,
    #[serde(default)]
    pub telemetry: RawTelemetry,
    /// What the status page shows before prices: a code like USD.
    pub currency: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawModel {
    pub model: String,
    pub encoding: Option<Encoding>,
    pub tokenizer: Option<RawTokenizer>,
    #[serde(default)]
    pub image_tokens: RawImageTokens,
    #[serde(default = "default_min_prefix_tokens")]
    pub min_prefix_tokens: u64,
    #[serde(default = "default_tiers")]
    pub tiers: Vec<Tier>,
    /// The shortest of `tiers` when absent, `5m` by default.
    pub default_tier: Option<Tier>,
    /// For the savings that the status page shows; nothing else depends on them.
    pub prices: Option<RawPrices>,
}

/// For a million tokens, in `currency`. A price of a write that is absent is `input`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPrices {
    /// Of a prompt token that is neither read nor written.
    pub input: f64,
    /// Of a token read from the cache.
    pub read: f64,
    /// Of a token written for five minutes.
    pub write_5m: Option<f64>,
    /// Of a token written for an hour.
    pub write_1h: Option<f64>,
    /// Of a token written for a day.
    pub write_24h: Option<f64>,
}

/// `dir` or `hub`; the rest of the hub's keys only with `hub`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTokenizer {
    pub dir: Option<PathBuf>,
    pub hub: Option<String>,
    pub revision: Option<String>,
    pub cache_dir: Option<PathBuf>,
    pub endpoint: Option<String>,
    pub offline: Option<bool>,
    pub chat_template: Option<PathBuf>,
    pub content_format: Option<ContentFormat>,
    #[serde(default)]
    pub chat_template_kwargs: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawImageTokens {
    #[default]
    Ignore,
    Fixed(u32),
    Tiles(RawTiles),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTiles {
    pub tile_px: u32,
    pub tokens_per_tile: u32,
    pub base_tokens: u32,
    pub long_side_px_max: u32,
    pub short_side_px_max: u32,
}

impl Default for RawTiles {
    fn default() -> Self {
        let tiles = Tiles::default();
        Self {
            tile_px: tiles.tile_px,
            tokens_per_tile: tiles.tokens_per_tile,
            base_tokens: tiles.base_tokens,
            long_side_px_max: tiles.long_side_px_max,
            short_side_px_max: tiles.short_side_px_max,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum UnknownPrincipal {
    #[default]
    Accept,
    Inactive,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPrincipal {
    /// 64 hex digits.
    pub fingerprint: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDrift {
    pub max_ratio: f64,
    pub stop_writes: bool,
}

impl Default for RawDrift {
    fn default() -> Self {
        Self {
            max_ratio: 1.02,
            stop_writes: false,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimits {
    pub classify_body_bytes_max: usize,
    pub text_body_bytes_max: usize,
    pub text_bytes_in_flight_max: usize,
    pub commit_body_bytes_max: usize,
    pub connections_max: usize,
    pub concurrency_max: usize,
    pub tokenize_concurrency_max: usize,
    pub tokenize_queue_max: usize,
    pub tokenize_timeout_ms: u64,
    pub request_timeout_ms: u64,
    pub shutdown_grace_ms: u64,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            classify_body_bytes_max: 64 << 10,
            // The largest body the filter accepts, and the head before it.
            text_body_bytes_max: (32 << 20) + (64 << 10),
            text_bytes_in_flight_max: 256 << 20,
            commit_body_bytes_max: 1 << 20,
            connections_max: 4096,
            concurrency_max: 1024,
            tokenize_concurrency_max: std::thread::available_parallelism().map_or(1, usize::from),
            tokenize_queue_max: 256,
            tokenize_timeout_ms: 4000,
            request_timeout_ms: 10_000,
            shutdown_grace_ms: 10_000,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    pub format: LogFormat,
    pub level: LogLevel,
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            format: LogFormat::Json,
            level: LogLevel::Info,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTelemetry {
    /// Where traces go, without `/v1/traces`; absent: what the environment says, or nowhere.
    pub otlp_endpoint: Option<String>,
    /// Share of the requests without a sampled parent that are traced, 0 to 1.
    pub sample_ratio: f64,
}

impl Default for RawTelemetry {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            sample_ratio: 1.0,
        }
    }
}

fn default_listen() -> String {
    "127.0.0.1:8088".to_owned()
}

const fn default_sweep_interval_ms() -> u64 {
    10_000
}

const fn default_tokenizer_poll_ms() -> u64 {
    10_000
}

const fn default_min_prefix_tokens() -> u64 {
    1024
}

fn default_tiers() -> Vec<Tier> {
    vec![Tier::FiveMinutes, Tier::OneHour]
}

impl Raw {
    /// What runs without a file.
    pub fn builtin() -> Self {
        Self {
            listen: default_listen(),
            auth_token: None,
            auth_token_file: None,
            admin_token: None,
            admin_token_file: None,
            store: RawStore::default(),
            models: vec![RawModel {
                model: "demo".to_owned(),
                encoding: Some(Encoding::O200kBase),
                tokenizer: None,
                image_tokens: RawImageTokens::Ignore,
                min_prefix_tokens: default_min_prefix_tokens(),
                tiers: default_tiers(),
                default_tier: None,
                prices: None,
            }],
            unknown_principal: UnknownPrincipal::Accept,
            principals: Vec::new(),
            drift: RawDrift::default(),
            accounts_file: None,
            accounts_table: false,
            limits: RawLimits::default(),
            sweep_interval_ms: default_sweep_interval_ms(),
            tokenizer_poll_ms: default_tokenizer_poll_ms(),
            log: RawLog::default(),
            telemetry: RawTelemetry::default(),
            currency: None,
        }
    }
}
