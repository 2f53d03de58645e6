//! The kinds of stores, and what an entry takes in each.

use std::path::Path;

use tokio_postgres::NoTls;

use crate::service::Service;
use crate::setting;

/// A kind of store to measure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    Embedded,
    /// The server at `TEST_POSTGRES_URL`.
    Postgres,
    /// The server at `TEST_REDIS_URL`.
    Redis,
}

impl StoreKind {
    pub const ALL: [Self; 3] = [Self::Embedded, Self::Postgres, Self::Redis];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }

    /// The largest ledger that is made: a server's takes long to fill.
    pub fn entries_max(self) -> u64 {
        match self {
            Self::Embedded => u64::MAX,
            Self::Postgres | Self::Redis => setting("BENCH_SERVER_ENTRIES_MAX", "1000000")
                .parse()
                .unwrap(),
        }
    }

    /// The value of the configuration's `store`, for a ledger of its own.
    pub fn yaml(self, dir: &Path, entries: u64) -> String {
        // Filling sends more at once than a service would.
        const PATIENT: &str = "operation_timeout_ms: 60000";
        match self {
            Self::Embedded => format!("{{embedded: {{data_dir: {}}}}}", dir.display()),
            Self::Postgres => format!(
                "{{postgres: {{url_env: TEST_POSTGRES_URL, schema: bench_{entries}, {PATIENT}, \
                 acquire_timeout_ms: 60000}}}}"
            ),
            Self::Redis => format!(
                "{{redis: {{url_env: TEST_REDIS_URL, key_prefix: bench{entries}, {PATIENT}}}}}"
            ),
        }
    }

    /// Lets the server finish what filling has left it to do.
    pub fn settle(self, entries: u64) {
        if self != Self::Postgres {
            return;
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let url = std::env::var("TEST_POSTGRES_URL").unwrap();
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
            tokio::spawn(connection);
            let vacuum = format!("VACUUM ANALYZE bench_{entries}.entries");
            client.execute(&vacuum, &[]).await.unwrap();
            client.execute("CHECKPOINT", &[]).await.unwrap();
        });
    }

    /// Bytes in use before a ledger is made, where others share the server.
    pub fn bytes_before(self) -> u64 {
        match self {
            Self::Embedded | Self::Postgres => 0,
            Self::Redis => redis_memory(),
        }
    }

    /// Bytes that the ledger takes: on disk, in Redis of memory.
    pub fn bytes(self, service: &Service, before: u64) -> f64 {
        match self {
            Self::Embedded | Self::Postgres => service.metric("prompt_cache_index_store_bytes"),
            Self::Redis => redis_memory().saturating_sub(before) as f64,
        }
    }
}

fn redis_memory() -> u64 {
    let url = std::env::var("TEST_REDIS_URL").unwrap();
    let mut link = redis::Client::open(url).unwrap().get_connection().unwrap();
    let info: String = redis::cmd("INFO").arg("memory").query(&mut link).unwrap();
    let used = info.lines().find_map(|l| l.strip_prefix("used_memory:"));
    used.unwrap().trim().parse().unwrap()
}
