//! What is loaded: the index service, Envoy alone and Envoy with the filter, and one LLM for both.

use std::{path::Path, time::Duration};

use prompt_cache_core::api::Api;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    envoy::{Config, Envoy, Stats},
    index::{self, Index},
    layout::Layout,
    load::{llm, reply},
    process::Output,
};

use super::Settings;

/// Numbers of the answers: whole or streamed, both with their end after [`GENERATION`]; and
/// whole at once.
pub const WHOLE: u8 = 0;
pub const STREAMED: u8 = 1;
pub const AT_ONCE: u8 = 2;
/// How long the LLM takes for an answer: a short one.
pub const GENERATION: Duration = Duration::from_secs(1);

/// Everything that runs. Fields end in this order.
pub struct Stage {
    pub alone: Envoy,
    pub filter: Envoy,
    pub index: Index,
    _folder: TempDir,
}

/// What stands before the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Alone,
    Filter,
}

impl Variant {
    /// Every other round backwards: what drifts does not favour anyone.
    pub fn order(round: usize) -> [Self; 2] {
        if round.is_multiple_of(2) {
            [Self::Alone, Self::Filter]
        } else {
            [Self::Filter, Self::Alone]
        }
    }
}

impl Stage {
    pub async fn start(layout: &Layout, settings: &Settings) -> Result<Self, String> {
        layout.require(&[layout.envoy(), layout.filter()])?;
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let whole = reply::json(Api::Chat);
        let streamed = reply::stream(Api::Chat);
        let scripts = vec![
            whole.clone().pausing(GENERATION),
            streamed.pausing(GENERATION),
            whole,
        ];
        let llm = llm::start(scripts).await.map_err(|e| format!("llm: {e}"))?;
        let data_dir = folder.path().join("data");
        let file = folder.path().join("index.json");
        let service = json!({
            "models": [{"model": "M0", "encoding": "o200k_base", "min_prefix_tokens": 1024}],
            "log": {"level": "error"},
        });
        std::fs::create_dir(&data_dir)
            .and_then(|()| std::fs::write(&file, service.to_string()))
            .map_err(|e| e.to_string())?;
        let config = index::Config {
            port: 0,
            file: Some(file),
            data_dir,
        };
        let mut index = Index::start(layout, &config, Output::LogIn(folder.path())).await?;
        // The load and the LLM stand for other machines: the service takes what they leave.
        if let Some(pid) = index.process().child().id() {
            command("renice", &["-n", "19", "-g", &pid.to_string()]).await?;
        }
        let mut config = Config::new(layout.filter(), llm.into(), index.address().into());
        config.log_level = "warning";
        config.access_log = Some("/dev/null".into());
        let rendered = config.render(&layout.standalone())?;
        let mut bare: Value = serde_json::from_str(&rendered).map_err(|e| e.to_string())?;
        bare.pointer_mut(
            "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters",
        )
        .and_then(Value::as_array_mut)
        .ok_or("the shipped Envoy config is not laid out as expected")?
        .remove(0);
        let start = async |name: &str, rendered: &str| {
            let folder = folder.path().join(name);
            std::fs::create_dir(&folder).map_err(|e| e.to_string())?;
            pinned(layout, &config, rendered, &folder, settings.envoy_core).await
        };
        let alone = start("alone", &bare.to_string()).await?;
        let filter = start("filter", &rendered).await?;
        filter.await_policy().await?;
        Ok(Self {
            alone,
            filter,
            index,
            _folder: folder,
        })
    }

    pub fn envoy(&mut self, variant: Variant) -> &mut Envoy {
        match variant {
            Variant::Alone => &mut self.alone,
            Variant::Filter => &mut self.filter,
        }
    }

    /// The filter's stats.
    pub async fn stats(&self) -> Result<Stats, String> {
        let stats = self.filter.stats().await;
        stats.ok_or_else(|| "Envoy's admin interface does not answer".to_owned())
    }

    /// The service's metrics.
    pub async fn metrics(&self) -> Result<Stats, String> {
        let stats = self.index.stats().await;
        stats.ok_or_else(|| "the index service's metrics do not answer".to_owned())
    }

    pub async fn stop(&mut self) {
        self.alone.process().stop().await;
        self.filter.process().stop().await;
        self.index.process().stop().await;
    }
}

/// An Envoy with all its threads on `core`.
async fn pinned(
    layout: &Layout,
    config: &Config,
    rendered: &str,
    folder: &Path,
    core: usize,
) -> Result<Envoy, String> {
    let mut envoy =
        Envoy::start_rendered(layout, config, rendered, folder, Output::LogIn(folder)).await?;
    let pid = envoy.process().child().id().ok_or("envoy has ended")?;
    let (core, pid) = (core.to_string(), pid.to_string());
    command(
        "taskset",
        &["--all-tasks", "--cpu-list", "--pid", &core, &pid],
    )
    .await?;
    Ok(envoy)
}

async fn command(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().await;
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {error}"))
}
