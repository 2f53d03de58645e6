//! A real Envoy with the filter, as a child process.

mod config;
mod listener;
mod stats;

use std::{net::SocketAddr, path::Path, time::Duration};

use serde_json::Value;
use tokio::process::Command;

pub use config::{Address, Config};
pub use listener::{ListenerFile, listener_of};
pub use stats::Stats;

use crate::{
    client::Client,
    deadline::poll,
    http::Request,
    layout::Layout,
    process::{Output, Process},
};

/// How long Envoy may take to compile the filter and listen.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// How long the filter may take to learn the policy once Envoy listens.
const POLICY_DEADLINE: Duration = Duration::from_secs(30);
/// Root contexts that load the policy beside the one of each worker: the main thread's.
const ROOTS_BESIDE_WORKERS: u64 = 1;
/// Counts, in every root context, the moment it first holds a policy.
const POLICY_LOADS: &str = "promptcache_policy_first_loads_total";

/// A running Envoy.
pub struct Envoy {
    process: Process,
    admin: Client,
    listener: SocketAddr,
    concurrency: u32,
}

impl Envoy {
    /// Starts Envoy in `folder` (its rendered config goes there) and waits until it listens.
    /// `Err` has the log's last lines.
    pub async fn start(
        layout: &Layout,
        config: &Config,
        folder: &Path,
        output: Output<'_>,
    ) -> Result<Self, String> {
        let rendered = config.render(&layout.standalone())?;
        Self::start_rendered(layout, config, &rendered, folder, output).await
    }

    /// The same with a configuration that the caller has rendered, from `config`, and changed.
    pub async fn start_rendered(
        layout: &Layout,
        config: &Config,
        rendered: &str,
        folder: &Path,
        output: Output<'_>,
    ) -> Result<Self, String> {
        layout.require(&[layout.envoy(), config.filter.clone()])?;
        let config_path = folder.join("envoy.json");
        std::fs::write(&config_path, rendered).map_err(|e| format!("envoy config: {e}"))?;
        let admin_path = folder.join("envoy-admin-address");
        let mut command = Command::new(layout.envoy());
        command
            .current_dir(folder)
            .arg("--config-path")
            .arg(&config_path)
            .arg("--admin-address-path")
            .arg(&admin_path)
            .args(["--concurrency", &config.concurrency.to_string()])
            .args(["--log-level", config.log_level])
            .args(&config.arguments);
        let mut process = Process::spawn("envoy", command, output)?;
        match poll(START_DEADLINE, async || {
            find_ready(&mut process, &admin_path).await
        })
        .await
        {
            Some(Ok((admin, listener))) => Ok(Self {
                process,
                admin,
                listener,
                concurrency: config.concurrency,
            }),
            Some(Err(message)) => Err(message),
            None => Err(format!(
                "envoy did not listen in time\n{}",
                process.log_tail()
            )),
        }
    }

    /// Waits until every worker's filter has loaded its policy.
    pub async fn await_policy(&self) -> Result<(), String> {
        let wanted = u64::from(self.concurrency) + ROOTS_BESIDE_WORKERS;
        let loaded = poll(POLICY_DEADLINE, async || {
            let loads = self.stats().await?.counter(POLICY_LOADS, &[]);
            (loads >= wanted).then_some(())
        })
        .await;
        loaded.ok_or_else(|| {
            format!(
                "the filter did not load its policy in time\n{}",
                self.process.log_tail()
            )
        })
    }

    /// Where clients connect.
    pub fn listener(&self) -> SocketAddr {
        self.listener
    }

    /// The admin interface.
    pub fn admin(&self) -> Client {
        self.admin
    }

    /// The child.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// All stats now; `None` when the admin interface does not answer.
    pub async fn stats(&self) -> Option<Stats> {
        let answer = self
            .admin
            .try_call(&Request::get("/stats/prometheus"))
            .await
            .ok()?;
        (answer.status == 200).then(|| Stats::parse(&String::from_utf8_lossy(&answer.body)))
    }
}

/// One look at a starting Envoy: `None` while it starts, `Err` when it has ended.
async fn find_ready(
    process: &mut Process,
    admin_path: &Path,
) -> Option<Result<(Client, SocketAddr), String>> {
    if let Some(status) = process.end() {
        return Some(Err(format!(
            "envoy ended with {status}\n{}",
            process.log_tail()
        )));
    }
    let address = std::fs::read_to_string(admin_path)
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let admin = Client::new(address);
    if admin.try_call(&Request::get("/ready")).await.ok()?.status != 200 {
        return None;
    }
    let listeners = admin
        .try_call(&Request::get("/listeners?format=json"))
        .await
        .ok()?;
    Some(Ok((admin, listener_address(&listeners.json())?)))
}

fn listener_address(listeners: &Value) -> Option<SocketAddr> {
    let address = listeners.pointer("/listener_statuses/0/local_address/socket_address")?;
    let port = u16::try_from(address.get("port_value")?.as_u64()?).ok()?;
    Some(SocketAddr::new(
        address.get("address")?.as_str()?.parse().ok()?,
        port,
    ))
}
