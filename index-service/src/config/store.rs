//! Which store, and how: the `store` key of the configuration.

use std::path::{Path, PathBuf};

use redis::IntoConnectionInfo as _;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::secret::{RawSecret, RawUrl, Secret};
use super::validate::{Invalid, at_least, beside, between, invalid};

/// Name of the ledger file inside the data directory.
pub const LEDGER_FILE: &str = "ledger.redb";
/// Longest name of a PostgreSQL schema.
const SCHEMA_BYTES_MAX: usize = 63;
/// Longest prefix of the keys in Redis.
const KEY_PREFIX_BYTES_MAX: usize = 64;
/// Least memory for pages of the embedded store's file.
const CACHE_BYTES_MIN: u64 = 1 << 20;
/// Most connections of a pool.
const CONNECTIONS_MAX: u64 = 1000;
/// Longest wait for a server.
const TIMEOUT_MS_MAX: u64 = 60_000;
/// Longest time that refreshes gather.
const REFRESH_FLUSH_MS_MAX: u64 = 10_000;

/// Which store, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// One file on this machine, one process.
    Embedded(EmbeddedConfig),
    /// A PostgreSQL database, shared by any number of processes.
    Postgres(PostgresConfig),
    /// Redis or Valkey, one server or a cluster, shared by any number of processes.
    Redis(RedisConfig),
}

impl StoreConfig {
    /// The key under `store`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Embedded(_) => "embedded",
            Self::Postgres(_) => "postgres",
            Self::Redis(_) => "redis",
        }
    }

    /// Refreshes gather this long before they are written together: the longest stretch of
    /// refreshes a crash can lose. Commits are always durable before they are answered.
    pub const fn refresh_flush_ms(&self) -> u64 {
        match self {
            Self::Embedded(embedded) => embedded.refresh_flush_ms,
            Self::Postgres(postgres) => postgres.refresh_flush_ms,
            Self::Redis(redis) => redis.refresh_flush_ms,
        }
    }
}

/// The embedded store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedConfig {
    /// Directory of the ledger file; created when missing.
    pub data_dir: PathBuf,
    /// Memory for pages of the file.
    pub cache_bytes: usize,
    /// [`StoreConfig::refresh_flush_ms`].
    pub refresh_flush_ms: u64,
}

/// The PostgreSQL store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresConfig {
    /// A connection string that has been parsed once.
    pub url: Secret,
    /// Schema of the tables; created when missing. A plain identifier: it needs no quotes.
    pub schema: String,
    /// PEM file of the certificate authorities to trust; the system's when absent.
    pub ca_file: Option<PathBuf>,
    /// Connections of the pool.
    pub connections_max: usize,
    /// Longest wait for a free connection of the pool; then the operation fails.
    pub acquire_timeout_ms: u64,
    /// Longest time to open a connection.
    pub connect_timeout_ms: u64,
    /// Longest time for an operation: the wait, its statement and its second try.
    pub operation_timeout_ms: u64,
    /// [`StoreConfig::refresh_flush_ms`].
    pub refresh_flush_ms: u64,
}

/// The Redis store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    /// URLs that have been parsed once, separated by white space.
    pub url: Secret,
    /// Whether the URLs are nodes of a cluster.
    pub cluster: bool,
    /// What every key starts with.
    pub key_prefix: String,
    /// PEM file of the certificate authorities to trust; the system's when absent.
    pub ca_file: Option<PathBuf>,
    /// Longest time to open a connection.
    pub connect_timeout_ms: u64,
    /// Longest time for an operation: redirects, waits and its second try.
    pub operation_timeout_ms: u64,
    /// [`StoreConfig::refresh_flush_ms`].
    pub refresh_flush_ms: u64,
}

impl RedisConfig {
    /// The URLs one by one.
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        self.url.expose().split_whitespace()
    }
}

/// One key per kind of store; at most one may be given.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawStore {
    /// One file on this machine, one process.
    #[serde(deserialize_with = "given")]
    embedded: Option<RawEmbedded>,
    /// A PostgreSQL database, shared by any number of replicas.
    #[serde(deserialize_with = "given")]
    postgres: Option<RawPostgres>,
    /// Redis or Valkey, shared by any number of replicas.
    #[serde(deserialize_with = "given")]
    redis: Option<RawRedis>,
}

/// A key without a value is a mistake, not an absent key.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// One file on this machine, one process.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawEmbedded {
    /// Directory of `ledger.redb`; created when missing. One process at a time.
    data_dir: PathBuf,
    /// Memory for pages of the file, in bytes.
    #[schemars(range(min = CACHE_BYTES_MIN))]
    cache_bytes: usize,
    /// How long refreshes gather before they are written: the window a crash can lose.
    #[schemars(range(min = 1, max = REFRESH_FLUSH_MS_MAX))]
    refresh_flush_ms: u64,
}

impl Default for RawEmbedded {
    fn default() -> Self {
        Self {
            data_dir: "./data".into(),
            cache_bytes: 256 << 20,
            refresh_flush_ms: REFRESH_FLUSH_MS,
        }
    }
}

/// Default of every store.
const REFRESH_FLUSH_MS: u64 = 200;

/// A PostgreSQL database, shared by any number of replicas.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawPostgres {
    /// Connection string, `postgresql://user:password@host/database`, several hosts with commas.
    /// One of the three is needed. Never logged.
    url: Option<RawSecret>,
    /// The same from a file; relative to the directory of the configuration.
    url_file: Option<PathBuf>,
    /// The same from the environment variable of this name.
    url_env: Option<String>,
    /// Schema of the tables, created when missing. Lower-case letters, digits and `_`.
    schema: String,
    /// PEM file with the certificate authorities to trust. TLS is always used and verified, unless
    /// the URL says `sslmode=disable`.
    #[schemars(extend("x-default" = "the system's"))]
    ca_file: Option<PathBuf>,
    /// Connections of one replica.
    #[schemars(range(min = 1, max = CONNECTIONS_MAX))]
    connections_max: usize,
    /// Longest wait for a free connection.
    #[schemars(range(min = 1, max = TIMEOUT_MS_MAX))]
    acquire_timeout_ms: u64,
    /// Longest time to open one.
    #[schemars(range(min = 1, max = TIMEOUT_MS_MAX))]
    connect_timeout_ms: u64,
    /// Longest time for one operation with all its waits and its second try; also the server's
    /// `statement_timeout`.
    #[schemars(range(min = 1, max = TIMEOUT_MS_MAX))]
    operation_timeout_ms: u64,
    /// As for the embedded store.
    #[schemars(range(min = 1, max = REFRESH_FLUSH_MS_MAX))]
    refresh_flush_ms: u64,
}

impl Default for RawPostgres {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            url_env: None,
            schema: "prompt_cache".to_owned(),
            ca_file: None,
            connections_max: 16,
            acquire_timeout_ms: 500,
            connect_timeout_ms: 1000,
            operation_timeout_ms: 2000,
            refresh_flush_ms: REFRESH_FLUSH_MS,
        }
    }
}

/// Redis or Valkey, shared by any number of replicas.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawRedis {
    /// `redis://user:password@host:6379/0`, or `rediss://` for TLS, always verified. Of a cluster,
    /// one or more nodes separated by white space. One of the three is needed. Never logged.
    url: Option<RawSecret>,
    /// The same from a file; relative to the directory of the configuration.
    url_file: Option<PathBuf>,
    /// The same from the environment variable of this name.
    url_env: Option<String>,
    /// Whether the URLs are nodes of a cluster.
    cluster: bool,
    /// What every key starts with. Letters, digits and `_.:-`, at most 64.
    key_prefix: String,
    /// PEM file with the certificate authorities to trust.
    #[schemars(extend("x-default" = "the system's"))]
    ca_file: Option<PathBuf>,
    /// Longest time to open a connection.
    #[schemars(range(min = 1, max = TIMEOUT_MS_MAX))]
    connect_timeout_ms: u64,
    /// Longest time for one operation with its redirects, waits and second try.
    #[schemars(range(min = 1, max = TIMEOUT_MS_MAX))]
    operation_timeout_ms: u64,
    /// As for the embedded store.
    #[schemars(range(min = 1, max = REFRESH_FLUSH_MS_MAX))]
    refresh_flush_ms: u64,
}

impl Default for RawRedis {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            url_env: None,
            cluster: false,
            key_prefix: "prompt-cache".to_owned(),
            ca_file: None,
            connect_timeout_ms: 1000,
            operation_timeout_ms: 2000,
            refresh_flush_ms: REFRESH_FLUSH_MS,
        }
    }
}

impl RawStore {
    /// The configured store; the embedded one where none is given.
    pub fn validate(self, config: &Path) -> Result<StoreConfig, Invalid> {
        match (self.embedded, self.postgres, self.redis) {
            (embedded, None, None) => Ok(StoreConfig::Embedded(
                embedded.unwrap_or_default().validate()?,
            )),
            (None, Some(postgres), None) => Ok(StoreConfig::Postgres(postgres.validate(config)?)),
            (None, None, Some(redis)) => Ok(StoreConfig::Redis(redis.validate(config)?)),
            _ => Err(invalid("store", "more than one store is given; keep one")),
        }
    }
}

impl RawEmbedded {
    fn validate(self) -> Result<EmbeddedConfig, Invalid> {
        if self.data_dir.as_os_str().is_empty() {
            return Err(invalid("store.embedded.data_dir", "must not be empty"));
        }
        let cache_bytes = self.cache_bytes as u64;
        at_least("store.embedded.cache_bytes", cache_bytes, CACHE_BYTES_MIN)?;
        refresh_flush("store.embedded", self.refresh_flush_ms)?;
        Ok(EmbeddedConfig {
            data_dir: self.data_dir,
            cache_bytes: self.cache_bytes,
            refresh_flush_ms: self.refresh_flush_ms,
        })
    }
}

impl RawPostgres {
    fn validate(self, config: &Path) -> Result<PostgresConfig, Invalid> {
        const STORE: &str = "store.postgres";
        let url = RawUrl {
            url: self.url,
            url_file: self.url_file,
            url_env: self.url_env,
        };
        let (url, url_key) = url.resolve(STORE, config)?;
        match url.expose().parse::<tokio_postgres::Config>() {
            Ok(parsed) if !parsed.get_hosts().is_empty() => {}
            // The parser's reason could quote a part of the password.
            _ => {
                return Err((
                    url_key,
                    "not a URL like postgresql://user:password@host/database".to_owned(),
                ));
            }
        }
        if !is_identifier(&self.schema) {
            let reason =
                "must be lower-case letters, digits and _, not starting with a digit or pg_";
            return Err(invalid("store.postgres.schema", reason));
        }
        let connections = self.connections_max as u64;
        between(
            "store.postgres.connections_max",
            connections,
            1,
            CONNECTIONS_MAX,
        )?;
        timeouts(
            STORE,
            &[
                ("acquire_timeout_ms", self.acquire_timeout_ms),
                ("connect_timeout_ms", self.connect_timeout_ms),
                ("operation_timeout_ms", self.operation_timeout_ms),
            ],
        )?;
        refresh_flush(STORE, self.refresh_flush_ms)?;
        Ok(PostgresConfig {
            url,
            schema: self.schema,
            ca_file: self.ca_file.map(|file| beside(config, &file)),
            connections_max: self.connections_max,
            acquire_timeout_ms: self.acquire_timeout_ms,
            connect_timeout_ms: self.connect_timeout_ms,
            operation_timeout_ms: self.operation_timeout_ms,
            refresh_flush_ms: self.refresh_flush_ms,
        })
    }
}

impl RawRedis {
    fn validate(self, config: &Path) -> Result<RedisConfig, Invalid> {
        const STORE: &str = "store.redis";
        let url = RawUrl {
            url: self.url,
            url_file: self.url_file,
            url_env: self.url_env,
        };
        let (url, url_key) = url.resolve(STORE, config)?;
        let mut urls = 0;
        for url in url.expose().split_whitespace() {
            urls += 1;
            if url.into_connection_info().is_err() {
                // The parser's reason could quote a part of the password.
                let reason =
                    "not a URL like redis://user:password@host:6379/0, or rediss:// for TLS";
                return Err((url_key, reason.to_owned()));
            }
        }
        if urls > 1 && !self.cluster {
            return Err((url_key, "several URLs need cluster: true".to_owned()));
        }
        let of_letters = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
        if !(1..=KEY_PREFIX_BYTES_MAX).contains(&self.key_prefix.len())
            || !self.key_prefix.chars().all(of_letters)
        {
            let reason = format!("must be 1 to {KEY_PREFIX_BYTES_MAX} letters, digits and _.:-");
            return Err(invalid("store.redis.key_prefix", reason));
        }
        timeouts(
            STORE,
            &[
                ("connect_timeout_ms", self.connect_timeout_ms),
                ("operation_timeout_ms", self.operation_timeout_ms),
            ],
        )?;
        refresh_flush(STORE, self.refresh_flush_ms)?;
        Ok(RedisConfig {
            url,
            cluster: self.cluster,
            key_prefix: self.key_prefix,
            ca_file: self.ca_file.map(|file| beside(config, &file)),
            connect_timeout_ms: self.connect_timeout_ms,
            operation_timeout_ms: self.operation_timeout_ms,
            refresh_flush_ms: self.refresh_flush_ms,
        })
    }
}

/// A name that means the same with and without quotes.
fn is_identifier(name: &str) -> bool {
    let of_letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.len() <= SCHEMA_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(of_letters)
        && !name.starts_with("pg_")
}

fn timeouts(store: &str, values: &[(&str, u64)]) -> Result<(), Invalid> {
    values
        .iter()
        .try_for_each(|(key, value)| between(&format!("{store}.{key}"), *value, 1, TIMEOUT_MS_MAX))
}

fn refresh_flush(store: &str, value: u64) -> Result<(), Invalid> {
    between(
        &format!("{store}.refresh_flush_ms"),
        value,
        1,
        REFRESH_FLUSH_MS_MAX,
    )
}
