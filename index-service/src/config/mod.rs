//! The service's configuration: YAML, defaults, and the checks a file must pass.
//!
//! `raw` is what a file may say, this module what the service runs with. Everything that reaches
//! the rest of the program has been validated.

pub mod accounts_file;
mod error;
mod observe;
mod raw;
pub mod schema;
mod secret;
mod source;
mod store;
mod validate;
mod yaml;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use prompt_cache_core::ledger::{Fingerprint, Tier};

pub use error::ConfigError;
pub use observe::{Prices, TelemetryConfig};
pub use secret::Secret;
pub use store::{EmbeddedConfig, LEDGER_FILE, PostgresConfig, RedisConfig, StoreConfig};
pub use yaml::parse as parse_yaml;

use crate::tokens::ImageTokens;
use crate::tokens::source::SourceConfig;

/// Longest name of a model.
pub const MODEL_NAME_BYTES_MAX: usize = 256;

/// A validated configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to listen. Port 0 takes a free one, shown in the boot log.
    pub listen: SocketAddr,
    /// The bearer token `/v1/*` asks for; `None` asks for none.
    pub auth_token: Option<AuthToken>,
    /// The bearer token a purge asks for; `None` switches purges over HTTP off.
    pub admin_token: Option<AuthToken>,
    /// Where the ledger lives.
    pub store: StoreConfig,
    /// The active models, in the order of the file.
    pub models: Vec<ModelConfig>,
    /// Who may cache.
    pub principals: PrincipalsConfig,
    /// What counts above the upstream's lead to.
    pub drift: DriftConfig,
    /// Where accounts are kept.
    pub accounts: AccountsConfig,
    /// Caps and deadlines.
    pub limits: Limits,
    /// Pause between two sweeps of expired entries.
    pub sweep_interval_ms: u64,
    /// Pause between two looks at whether tokenizer files have changed.
    pub tokenizer_poll_ms: u64,
    /// The log.
    pub log: LogConfig,
    /// Traces.
    pub telemetry: TelemetryConfig,
    /// The currency of all prices: three capital letters, for the status page.
    pub currency: Option<String>,
}

/// A shared secret. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthToken(String);

impl AuthToken {
    /// The token's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl std::fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthToken(..)")
    }
}

/// The cache policy of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelConfig {
    /// The `model` string that clients send.
    pub model: String,
    /// How its tokens are counted.
    pub source: SourceConfig,
    /// What an image counts.
    pub images: ImageTokens,
    /// The floor below which a prefix is not written.
    pub min_prefix_tokens: u64,
    /// Enabled tiers, at least one, no repeats.
    pub tiers: Vec<Tier>,
    /// One of `tiers`.
    pub default_tier: Tier,
    /// The tier of requests without any marker, one of `tiers`; none: they are not cached.
    pub auto: Option<Tier>,
    /// What tokens cost; only the status page asks.
    pub prices: Option<Prices>,
}

/// Which principals may cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrincipalsConfig {
    /// Every credential is its own principal.
    Any,
    /// Only these; others are inactive.
    Known(HashSet<Fingerprint>),
}

/// Where it says which credentials belong together; reloaded when that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountsConfig {
    /// There are none.
    None,
    /// In a file.
    File(PathBuf),
    /// In the database that is the store.
    Table(PostgresConfig),
}

/// When a model's counts have drifted, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriftConfig {
    /// Thousandths: our count of a prompt over the upstream's, above which counts have drifted.
    pub max_ratio_permille: u32,
    /// Write nothing for a model whose counts have drifted.
    pub stop_writes: bool,
}

/// Caps and deadlines of the HTTP side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest body of a classification without the prompt, and largest head of one with it.
    pub classify_body_bytes_max: usize,
    /// Largest body of a classification with the prompt.
    pub text_body_bytes_max: usize,
    /// Prompt bytes held at once over all requests.
    pub text_bytes_in_flight_max: usize,
    /// Largest commit batch.
    pub commit_body_bytes_max: usize,
    /// Open connections.
    pub connections_max: usize,
    /// `/v1` requests at once; more are answered 503.
    pub concurrency_max: usize,
    /// Prompts tokenized at once.
    pub tokenize_concurrency_max: usize,
    /// Prompts waiting for a tokenizer; more are answered 503.
    pub tokenize_queue_max: usize,
    /// Longest time to count one prompt; beyond it the read is answered and nothing written.
    pub tokenize_timeout_ms: u64,
    /// Longest time for one `/v1` request, from its headers to its answer.
    pub request_timeout_ms: u64,
    /// How long the service goes on serving, not ready, before it shuts down.
    pub shutdown_delay_ms: u64,
    /// How long a shutdown waits for requests in flight.
    pub shutdown_grace_ms: u64,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Shape of a line.
    pub format: LogFormat,
    /// Least severe level that is written.
    pub level: LogLevel,
}

/// Shape of a log line.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Least severe level that is written.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Failures that need a person.
    Error,
    /// And degradations.
    Warn,
    /// And the life of the process.
    Info,
    /// And every request.
    Debug,
    /// And everything else.
    Trace,
}

impl Config {
    /// The built-in configuration: one active model, `demo`, every principal accepted.
    ///
    /// # Errors
    /// None in practice: a test holds the defaults to the same checks as a file.
    pub fn builtin() -> Result<Self, ConfigError> {
        validate::validate(raw::Raw::builtin(), Path::new("built-in defaults"))
    }

    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// With the file, the key and the reason.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::new(path, None, format!("cannot be read: {error}")))?;
        Self::parse(&text, path)
    }

    /// Checks `text` as the contents of the file at `path`, which names it in errors and is
    /// what relative file names start from.
    ///
    /// # Errors
    /// With the file, the key and the reason.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        validate::validate(parse_yaml(text, path)?, path)
    }
}
