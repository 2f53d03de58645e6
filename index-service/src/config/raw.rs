//! The configuration as a file may spell it. Absent keys take the built-in defaults.

use std::path::PathBuf;

use prompt_cache_core::ledger::Tier;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::store::RawStore;
use super::validate::{COUNT_MAX, IMAGE_MAX, MODELS_MAX, PAUSE_MS_MAX, PAUSE_MS_MIN, WAIT_MS_MAX};
use super::{LogFormat, LogLevel};
use crate::tokens::template::ContentFormat;
use crate::tokens::{Encoding, Tiles};

/// One YAML file. Unknown and repeated keys are refused.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Configuration of prompt-cache-index")]
pub(super) struct Raw {
    /// Address and port. Port 0 takes a free one; the log's `listening` event has it in `addr`.
    #[serde(default = "default_listen")]
    pub listen: String,
    /// Bearer token that `/v1/*` asks for. Printable ASCII, at most 4096 bytes; white space around
    /// it is ignored.
    pub auth_token: Option<String>,
    /// The same from a file; relative to the directory of the configuration. Not both.
    pub auth_token_file: Option<PathBuf>,
    /// Bearer token that `POST /v1/purge` asks for, given like `auth_token`. Without it there is no
    /// purge over HTTP.
    pub admin_token: Option<String>,
    /// The same from a file. Not both.
    pub admin_token_file: Option<PathBuf>,
    /// Where the ledger lives: at most one of the three; without any, `embedded`.
    #[serde(default)]
    pub store: RawStore,
    /// The active models.
    #[schemars(length(min = 1, max = MODELS_MAX))]
    pub models: Vec<RawModel>,
    /// `accept`: every credential is its own principal. `inactive`: only those under `principals`
    /// or with an account cache.
    #[serde(default)]
    pub unknown_principal: UnknownPrincipal,
    /// Refused with `accept`; with `inactive` these or accounts are needed.
    #[serde(default)]
    pub principals: Vec<RawPrincipal>,
    /// Which credentials belong together; see *Accounts*. Relative to the directory of the
    /// configuration.
    pub accounts_file: Option<PathBuf>,
    /// The same from tables beside the ledger in PostgreSQL. Needs `store.postgres`; not both.
    #[serde(default)]
    pub accounts_table: bool,
    /// What counts above the upstream's lead to.
    #[serde(default)]
    pub drift: RawDrift,
    /// Caps and deadlines.
    #[serde(default)]
    pub limits: RawLimits,
    /// Pause between removals of expired entries.
    #[serde(default = "default_sweep_interval_ms")]
    #[schemars(range(min = PAUSE_MS_MIN, max = PAUSE_MS_MAX))]
    pub sweep_interval_ms: u64,
    /// Pause between two looks for changed tokenizer files, and between tries of a hub.
    #[serde(default = "default_tokenizer_poll_ms")]
    #[schemars(range(min = PAUSE_MS_MIN, max = PAUSE_MS_MAX))]
    pub tokenizer_poll_ms: u64,
    /// The log, on standard error.
    #[serde(default)]
    pub log: RawLog,
    /// Traces.
    #[serde(default)]
    pub telemetry: RawTelemetry,
    /// The currency of all prices: a code of three capital letters, such as `USD`.
    #[schemars(regex(pattern = "^[A-Z]{3}$"))]
    pub currency: Option<String>,
}

/// One active model.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawModel {
    /// The `model` string that clients send: 1 to 256 bytes, each name once.
    #[schemars(length(min = 1))]
    pub model: String,
    /// A built-in encoding. One of this and `tokenizer`.
    pub encoding: Option<Encoding>,
    /// The model's own files, from a directory or a hub; see [tokens.md](tokens.md).
    pub tokenizer: Option<RawTokenizer>,
    /// What an image counts besides what the chat template shows for it; the rules are in
    /// [tokens.md](tokens.md).
    #[serde(default)]
    pub image_tokens: RawImageTokens,
    /// The floor: a prefix below it is not written, one equal to it is.
    #[serde(default = "default_min_prefix_tokens")]
    #[schemars(range(max = u32::MAX))]
    pub min_prefix_tokens: u64,
    /// Enabled tiers, in the order that error messages list them.
    #[serde(default = "default_tiers")]
    #[schemars(length(min = 1))]
    pub tiers: Vec<Tier>,
    /// The tier of a marker without `ttl`.
    #[schemars(extend("x-default" = "the shortest of `tiers`"))]
    pub default_tier: Option<Tier>,
    /// Caches requests that come without any marker, for clients that cannot send them: at their
    /// last block, and at the last block of the turn before, with this tier; one of `tiers`.
    #[schemars(extend("x-default" = "they are not cached"))]
    pub auto: Option<Tier>,
    /// For the savings that the [status page](#status-page) shows; nothing else depends on it.
    pub prices: Option<RawPrices>,
}

/// What a million tokens cost, in `currency`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPrices {
    /// Of a prompt token that is neither read nor written.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub input: f64,
    /// Of a token read from the cache.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub read: f64,
    /// Of a token written for five minutes.
    #[schemars(range(min = 0.0, max = 1e6), extend("x-default" = "as `input`"))]
    pub write_5m: Option<f64>,
    /// Of a token written for an hour.
    #[schemars(range(min = 0.0, max = 1e6), extend("x-default" = "as `input`"))]
    pub write_1h: Option<f64>,
    /// Of a token written for a day.
    #[schemars(range(min = 0.0, max = 1e6), extend("x-default" = "as `input`"))]
    pub write_24h: Option<f64>,
}

/// The model's own files.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTokenizer {
    /// The files' directory; relative to the configuration. One of this and `hub`.
    pub dir: Option<PathBuf>,
    /// A repository, `organisation/name`. The four keys below go only with it.
    pub hub: Option<String>,
    /// A branch, tag or commit. What was downloaded completely is not asked for again, so a branch
    /// is followed only once: name a commit to know what you have.
    #[schemars(extend("x-default" = "`main`"))]
    pub revision: Option<String>,
    /// Where downloads are kept, in the layout of the hub's own clients.
    #[schemars(extend("x-default" = "`./hub-cache`"))]
    pub cache_dir: Option<PathBuf>,
    /// Another hub's address.
    #[schemars(extend("x-default" = "the public hub"))]
    pub endpoint: Option<String>,
    /// Use `cache_dir` and nothing else.
    #[schemars(extend("x-default" = "`false`"))]
    pub offline: Option<bool>,
    /// A template file that replaces the model's own, for engines started with one.
    #[schemars(extend("x-default" = "the model's own"))]
    pub chat_template: Option<PathBuf>,
    /// What the template wants `content` to be.
    #[schemars(extend("x-default" = "guessed"))]
    pub content_format: Option<ContentFormat>,
    /// Template variables that a request may override, for engines started with defaults.
    #[serde(default)]
    pub chat_template_kwargs: serde_json::Map<String, serde_json::Value>,
}

/// What an image counts.
#[derive(Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawImageTokens {
    /// Nothing.
    #[default]
    Ignore,
    /// So many tokens each.
    Fixed(#[schemars(range(max = IMAGE_MAX))] u32),
    /// By its size in pixels.
    Tiles(RawTiles),
}

/// An image is scaled down to fit both sides, then counted in square tiles.
#[derive(Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTiles {
    /// Side of a tile, in pixels.
    #[schemars(range(min = 1, max = IMAGE_MAX))]
    pub tile_px: u32,
    /// Tokens of a tile.
    #[schemars(range(max = IMAGE_MAX))]
    pub tokens_per_tile: u32,
    /// Tokens of the image besides its tiles.
    #[schemars(range(max = IMAGE_MAX))]
    pub base_tokens: u32,
    /// Longest long side, in pixels; larger images are scaled down first.
    #[schemars(range(min = 1, max = IMAGE_MAX))]
    pub long_side_px_max: u32,
    /// Longest short side, in pixels, after that.
    #[schemars(range(min = 1, max = IMAGE_MAX))]
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

/// What happens to credentials that nobody listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum UnknownPrincipal {
    /// Every credential is its own principal.
    #[default]
    Accept,
    /// They are not cached.
    Inactive,
}

/// A credential that may cache.
#[derive(Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPrincipal {
    /// A credential's fingerprint as the filter computes it: 64 hex digits.
    #[schemars(regex(pattern = "^[0-9a-fA-F]{64}$"))]
    pub fingerprint: String,
}

/// When a model's counts have drifted, and what follows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDrift {
    /// Our count of whole prompts over the upstream's `prompt_tokens`, above which a model's counts
    /// have drifted.
    #[schemars(range(min = 1.0, max = 10.0))]
    pub max_ratio: f64,
    /// For a model whose counts have drifted: write nothing and bill no creation until they are
    /// back.
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

/// Caps and deadlines.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimits {
    /// Body of a classification without the prompt, and head of one with it, in bytes.
    #[schemars(range(min = 16384))]
    pub classify_body_bytes_max: usize,
    /// Body of a classification with the prompt, in bytes.
    #[schemars(range(min = 65536))]
    pub text_body_bytes_max: usize,
    /// Bytes of such bodies held at once; those of 256 KiB or more take three quarters at most. At
    /// least `text_body_bytes_max`.
    #[schemars(range(min = 65536))]
    pub text_bytes_in_flight_max: usize,
    /// Body of a commit batch, in bytes.
    #[schemars(range(min = 16384))]
    pub commit_body_bytes_max: usize,
    /// Open connections. For one more the one that has been quiet for longest is closed; where all are
    /// answering, the new one is.
    #[schemars(range(min = 1, max = COUNT_MAX))]
    pub connections_max: usize,
    /// `/v1` requests at once; more are answered 503.
    #[schemars(range(min = 1, max = COUNT_MAX))]
    pub concurrency_max: usize,
    /// Prompts tokenized at once; beside them half as many of 256 KiB or more, in a lane of their
    /// own.
    #[schemars(range(min = 1, max = COUNT_MAX), extend("x-default" = "one per core"))]
    pub tokenize_concurrency_max: Option<usize>,
    /// Prompts waiting in each of the two lanes; more are answered 503. So are those that would
    /// wait longer than a quarter of `tokenize_timeout_ms`, as fast as counts are at the time.
    #[schemars(range(max = COUNT_MAX))]
    pub tokenize_queue_max: usize,
    /// Longest wait and count of one prompt. Beyond it the read is answered and nothing is written.
    /// Below the filter's `classify_deadline_ms`.
    #[schemars(range(min = 1, max = WAIT_MS_MAX))]
    pub tokenize_timeout_ms: u64,
    /// Longest `/v1` request, body included; then 504.
    #[schemars(range(min = 1, max = WAIT_MS_MAX))]
    pub request_timeout_ms: u64,
    /// How long the service goes on serving after SIGTERM, not ready and closing each connection
    /// with its next answer, so that balancers turn to other replicas first. With several
    /// replicas: more than the balancer takes to notice.
    #[schemars(range(max = WAIT_MS_MAX))]
    pub shutdown_delay_ms: u64,
    /// How long a shutdown waits for requests in flight.
    #[schemars(range(max = WAIT_MS_MAX))]
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
            tokenize_concurrency_max: None,
            tokenize_queue_max: 256,
            tokenize_timeout_ms: 4000,
            request_timeout_ms: 10_000,
            shutdown_delay_ms: 0,
            shutdown_grace_ms: 10_000,
        }
    }
}

/// The log, one line per event, on standard error.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    /// Shape of a line.
    pub format: LogFormat,
    /// Least severe level that is written; `debug` has one line per request.
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

/// [Traces](#traces).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTelemetry {
    /// Where [traces](#traces) go: the base URL of an OTLP/HTTP receiver, to which `/v1/traces` is
    /// appended. Without either there are none.
    #[schemars(extend("x-default" = "`OTEL_EXPORTER_OTLP_ENDPOINT`"))]
    pub otlp_endpoint: Option<String>,
    /// Share of requests that are traced where the caller's `traceparent` has not decided it.
    #[schemars(range(min = 0.0, max = 1.0))]
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
                auto: None,
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
