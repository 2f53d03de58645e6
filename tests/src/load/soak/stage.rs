//! What a soak runs: Envoy with two workers and the filter that tells its VM's size, the service
//! on the embedded store, the LLM.

use serde_json::json;
use tempfile::TempDir;

use crate::{
    client::Client,
    envoy::{Config, Envoy},
    index::{self, Index},
    layout::Layout,
    load::llm,
    process::Output,
};

use super::{
    sample::Sources,
    traffic::{MODELS, scripts},
};

/// Most memory of a worker for leases: what is bounded is to reach its bound early.
const LEASE_BYTES_MAX: u64 = 1 << 20;

/// The same for the pages of the ledger's file that the service holds: less than the file gets long.
const CACHE_BYTES: usize = 8 << 20;

/// Everything that runs. Fields end in this order.
pub struct Stage {
    pub envoy: Envoy,
    pub index: Index,
    pub sources: Sources,
    _folder: TempDir,
}

impl Stage {
    pub async fn start(layout: &Layout) -> Result<Self, String> {
        layout.require(&[layout.envoy(), layout.trapping_filter()])?;
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let llm = llm::start(scripts())
            .await
            .map_err(|e| format!("llm: {e}"))?;
        let data_dir = folder.path().join("data");
        let file = folder.path().join("index.json");
        let model = |number: u8| {
            json!({
                "model": format!("M{number}"), "encoding": "o200k_base",
                "min_prefix_tokens": 256, "tiers": ["5m"],
            })
        };
        let service = json!({
            "models": MODELS.map(model),
            "sweep_interval_ms": 5_000,
            "store": {"embedded": {"data_dir": data_dir, "cache_bytes": CACHE_BYTES}},
            "log": {"level": "error"},
        });
        std::fs::create_dir(&data_dir)
            .and_then(|()| std::fs::write(&file, service.to_string()))
            .map_err(|e| e.to_string())?;
        let ledger = data_dir.join("ledger.redb");
        let config = index::Config {
            port: 0,
            file: Some(file),
            data_dir,
        };
        let mut index = Index::start(layout, &config, Output::LogIn(folder.path())).await?;
        let filter = layout.trapping_filter();
        let mut config = Config::new(filter, llm.into(), index.address().into());
        config.concurrency = 2;
        config.log_level = "warning";
        config.access_log = Some("/dev/null".into());
        config.plugin = json!({"lease_bytes_max": LEASE_BYTES_MAX});
        let log = Output::LogIn(folder.path());
        let mut envoy = Envoy::start(layout, &config, folder.path(), log).await?;
        envoy.await_policy().await?;
        let sources = Sources {
            envoy_pid: envoy.process().child().id().ok_or("envoy has ended")?,
            service_pid: index
                .process()
                .child()
                .id()
                .ok_or("the service has ended")?,
            admin: envoy.admin(),
            service: Client::new(index.address()),
            ledger,
        };
        Ok(Self {
            envoy,
            index,
            sources,
            _folder: folder,
        })
    }

    pub async fn stop(&mut self) {
        self.envoy.process().stop().await;
        self.index.process().stop().await;
    }
}
