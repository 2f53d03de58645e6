//! The cases of `core` inside Envoy's VM: an Envoy that does nothing else, and what it logs.

use std::{path::PathBuf, time::Duration};

use prompt_cache_e2e::{
    deadline::poll,
    layout::Layout,
    process::{Output, Process},
};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

/// All cases, warm-up included, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(300);

/// One case's line.
#[derive(Clone, Debug, Deserialize)]
pub struct CaseLine {
    pub case: String,
    pub min_ns: u64,
    pub median_ns: u64,
    pub plain_min_ns: u64,
    pub plain_median_ns: u64,
}

/// What planning one request took of linear memory.
#[derive(Clone, Debug, Deserialize)]
pub struct MemoryLine {
    /// The request's size.
    pub memory: u64,
    pub grown_bytes: u64,
    pub output_bytes: u64,
}

/// What a call out of the VM took.
#[derive(Clone, Debug, Deserialize)]
pub struct HostCallLine {
    pub host_call: String,
    pub min_ns: u64,
    pub median_ns: u64,
}

/// Everything the VM reported.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub cases: Vec<CaseLine>,
    pub memory: Vec<MemoryLine>,
    pub host_calls: Vec<HostCallLine>,
}

/// The filter built with the feature `bench`.
pub fn module(layout: &Layout) -> PathBuf {
    layout
        .root()
        .join("dist/test-only/prompt-cache-filter-bench.wasm")
}

/// Runs them on one core.
pub async fn measure(layout: &Layout, core: usize) -> Result<Measured, String> {
    let module = module(layout);
    layout.require(&[layout.envoy(), module.clone()])?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let config = json!({"bootstrap_extensions": [{
        "name": "envoy.bootstrap.wasm",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.wasm.v3.WasmService",
            // On the main thread alone: no second VM beside the one that is timed.
            "singleton": true,
            "config": {
                "name": "bench",
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": "core",
                },
                "vm_config": {
                    "vm_id": "bench",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": module}},
                },
            },
        },
    }]});
    let path = folder.path().join("envoy.json");
    std::fs::write(&path, config.to_string()).map_err(|e| e.to_string())?;
    let mut command = Command::new("taskset");
    command
        .args(["-c", &core.to_string()])
        .arg(layout.envoy())
        .arg("--config-path")
        .arg(&path)
        .args(["--concurrency", "1", "--log-level", "info"])
        .arg("--disable-hot-restart");
    let mut envoy = Process::spawn("envoy", command, Output::LogIn(folder.path()))?;
    let ended = poll(DEADLINE, async || {
        if envoy.end().is_some() {
            return Some(Err(envoy.log_tail()));
        }
        let log = envoy.log();
        log.contains("bench: end").then_some(Ok(log))
    });
    let log = ended
        .await
        .unwrap_or_else(|| Err(format!("no end in time\n{}", envoy.log_tail())))?;
    envoy.stop().await;
    let mut measured = Measured::default();
    for line in log.lines() {
        let Some((_, json)) = line.rsplit_once("bench: ") else {
            continue;
        };
        if let Ok(case) = serde_json::from_str(json) {
            measured.cases.push(case);
        } else if let Ok(memory) = serde_json::from_str(json) {
            measured.memory.push(memory);
        } else if let Ok(call) = serde_json::from_str::<HostCallLine>(json) {
            // Envoy configures a VM more than once.
            let known = |line: &HostCallLine| line.host_call == call.host_call;
            if !measured.host_calls.iter().any(known) {
                measured.host_calls.push(call);
            }
        }
    }
    Ok(measured)
}
