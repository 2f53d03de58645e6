//! What is sampled, and what it may grow by.

use std::{fs, path::PathBuf};

use crate::{client::Client, envoy::Stats, http::Request};

/// One quantity that must stay where it is.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// What it is called in tables and pictures.
    pub name: &'static str,
    /// Its unit in both.
    pub unit: &'static str,
    /// How many of what is sampled make one of those.
    pub scale: f64,
    /// Growth in a million requests up to which it counts as flat, in that unit.
    pub growth_max: f64,
}

const MIB: f64 = 1_048_576.0;

/// All of them, in the order of [`Sample::values`]. How many connections there are depends on how
/// long answers take, and so on who else uses the machine: what grows with the requests does so
/// beyond that.
pub const QUANTITIES: [Quantity; 9] = [
    quantity("Envoy's memory (RSS)", "MiB", MIB, 1.0),
    quantity("service's memory (RSS)", "MiB", MIB, 2.0),
    quantity("filter VM's memory", "pages", 1.0, 2.0),
    quantity("Envoy's file descriptors", "", 1.0, 30.0),
    quantity("service's file descriptors", "", 1.0, 30.0),
    quantity("Envoy's connections", "", 1.0, 30.0),
    quantity("Envoy's stats", "", 1.0, 1.0),
    quantity("service's metrics", "", 1.0, 1.0),
    quantity("ledger file", "MiB", MIB, 4.0),
];

const fn quantity(name: &'static str, unit: &'static str, scale: f64, growth_max: f64) -> Quantity {
    Quantity {
        name,
        unit,
        scale,
        growth_max,
    }
}

/// Everything at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Requests that had ended.
    pub requests: f64,
    /// In the units of [`QUANTITIES`].
    pub values: [f64; QUANTITIES.len()],
}

/// Where to look.
pub struct Sources {
    pub envoy_pid: u32,
    pub service_pid: u32,
    pub admin: Client,
    pub service: Client,
    pub ledger: PathBuf,
}

impl Sources {
    /// Looks everywhere.
    pub async fn sample(&self, requests: u64) -> Result<Sample, String> {
        let stats = get(&self.admin, "/stats/prometheus").await?;
        let lines = get(&self.admin, "/stats").await?.lines().count();
        let metrics = get(&self.service, "/metrics").await?;
        let series = metrics
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count();
        let stats = Stats::parse(&stats);
        let connections = [
            "envoy_http_downstream_cx_active",
            "envoy_cluster_upstream_cx_active",
        ]
        .map(|name| stats.counter(name, &[]) as f64);
        let ledger = fs::metadata(&self.ledger).map_err(|e| e.to_string())?.len();
        let raw = [
            rss_bytes(self.envoy_pid)?,
            rss_bytes(self.service_pid)?,
            stats.counter("promptcache_vm_memory_pages", &[]) as f64,
            descriptors(self.envoy_pid)?,
            descriptors(self.service_pid)?,
            connections.iter().sum(),
            lines as f64,
            series as f64,
            ledger as f64,
        ];
        let mut values = raw;
        for (value, quantity) in values.iter_mut().zip(QUANTITIES) {
            *value /= quantity.scale;
        }
        Ok(Sample {
            requests: requests as f64,
            values,
        })
    }
}

async fn get(client: &Client, path: &str) -> Result<String, String> {
    let answer = client.try_call(&Request::get(path)).await;
    let answer = answer.map_err(|e| format!("{path}: {e}"))?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

fn rss_bytes(pid: u32) -> Result<f64, String> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .and_then(|text| text.trim().parse::<f64>().ok());
    kib.map(|kib| kib * 1024.0)
        .ok_or_else(|| format!("{path} has no VmRSS"))
}

fn descriptors(pid: u32) -> Result<f64, String> {
    let path = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&path).map_err(|e| format!("{path}: {e}"))?;
    Ok(entries.count() as f64)
}
