//! The Envoys that are compared: the shipped config, each with another filter in its place.

use std::{net::SocketAddr, path::Path, time::Duration};

use prompt_cache_e2e::{
    client::Client,
    cpu::cpu_ns,
    deadline::poll,
    envoy::{self, Stats},
    http::Request,
    layout::Layout,
    process::{Output, Process},
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{Settings, vm};

/// How long an Envoy may take to listen, and its filter to know the models.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Root contexts of one worker: its own and the main thread's.
const ROOTS: u64 = 2;

/// What stands before the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Nothing.
    Alone,
    /// A wasm filter whose callbacks return at once.
    Noop,
    /// A wasm filter that holds the request until it is whole.
    Buffer,
    /// A wasm filter that reads every piece of the response.
    Read,
    /// The filter.
    Filter,
    /// Another build of it, to see what a change is worth.
    Other,
}

impl Variant {
    pub const ALL: [Self; 6] = [
        Self::Alone,
        Self::Noop,
        Self::Buffer,
        Self::Read,
        Self::Filter,
        Self::Other,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Noop => "noop",
            Self::Buffer => "buffer",
            Self::Read => "read",
            Self::Filter => "filter",
            Self::Other => "other",
        }
    }
}

/// A running Envoy.
pub struct Envoy {
    process: Process,
    pid: u32,
    listener: SocketAddr,
    admin: Client,
}

impl Envoy {
    /// Starts it on `core` with one worker, and without an access log: the comparison is harder
    /// for the filter where Envoy has less to do.
    pub async fn start(
        layout: &Layout,
        variant: Variant,
        (upstream, index): (SocketAddr, SocketAddr),
        settings: &Settings,
        folder: &Path,
    ) -> Result<Self, String> {
        let folder = folder.join(variant.as_str());
        std::fs::create_dir(&folder).map_err(|e| e.to_string())?;
        let filter = match (variant, &settings.other_filter) {
            (Variant::Other, Some(other)) => other.clone(),
            _ => layout.filter(),
        };
        let config = envoy::Config::new(filter, upstream.into(), index.into());
        let rendered = config.render(&layout.standalone())?;
        let mut config: Value = serde_json::from_str(&rendered).map_err(|e| e.to_string())?;
        adapt(&mut config, variant, layout)
            .ok_or("the shipped Envoy config is not laid out as expected")?;
        let path = folder.join("envoy.json");
        std::fs::write(&path, config.to_string()).map_err(|e| e.to_string())?;
        let admin_path = folder.join("envoy-admin-address");
        let mut command = Command::new("taskset");
        command
            .args(["-c", &settings.envoy_core.to_string()])
            .arg(layout.envoy())
            .arg("--config-path")
            .arg(&path)
            .arg("--admin-address-path")
            .arg(&admin_path)
            .args(["--concurrency", "1", "--log-level", "warning"])
            .arg("--disable-hot-restart");
        let mut process = Process::spawn("envoy", command, Output::LogIn(&folder))?;
        let ready = poll(START_DEADLINE, async || {
            if process.end().is_some() {
                return Some(Err(process.log_tail()));
            }
            let (admin, listener) = addresses(&admin_path).await?;
            if matches!(variant, Variant::Filter | Variant::Other) {
                let loads = stats(&admin)
                    .await?
                    .counter("promptcache_policy_first_loads_total", &[]);
                (loads >= ROOTS).then_some(())?;
            }
            Some(Ok((admin, listener)))
        });
        let (admin, listener) = ready.await.unwrap_or_else(|| {
            Err(format!(
                "envoy ({}) is not ready in time\n{}",
                variant.as_str(),
                process.log_tail()
            ))
        })?;
        let pid = process.child().id().ok_or("envoy has ended")?;
        Ok(Self {
            process,
            pid,
            listener,
            admin,
        })
    }

    /// Its stats, flushed; `None` if it does not answer.
    pub async fn stats(&self) -> Option<Stats> {
        stats(&self.admin).await
    }

    /// Where clients connect.
    pub fn listener(&self) -> SocketAddr {
        self.listener
    }

    /// Processor time used so far, in nanoseconds.
    pub fn cpu_ns(&self) -> Result<u64, String> {
        cpu_ns(self.pid)
    }

    /// Ends it.
    pub async fn stop(&mut self) {
        self.process.stop().await;
    }
}

/// `None`: the config is laid out otherwise.
fn adapt(config: &mut Value, variant: Variant, layout: &Layout) -> Option<()> {
    let manager = config
        .pointer_mut("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config")?;
    manager.as_object_mut()?.remove("access_log")?;
    let filters = manager.pointer_mut("/http_filters")?.as_array_mut()?;
    match variant {
        Variant::Alone => {
            filters.remove(0);
        }
        Variant::Noop | Variant::Buffer | Variant::Read => {
            let wasm = filters.first_mut()?.pointer_mut("/typed_config/config")?;
            *wasm.pointer_mut("/configuration/value")? = json!(variant.as_str());
            *wasm.pointer_mut("/vm_config/code/local/filename")? = json!(vm::module(layout));
        }
        Variant::Filter | Variant::Other => {}
    }
    Some(())
}

async fn stats(admin: &Client) -> Option<Stats> {
    let answer = admin
        .try_call(&Request::get("/stats/prometheus"))
        .await
        .ok()?;
    (answer.status == 200).then(|| Stats::parse(&String::from_utf8_lossy(&answer.body)))
}

/// Of the admin interface and the listener, once both are there.
async fn addresses(admin_path: &Path) -> Option<(Client, SocketAddr)> {
    let text = std::fs::read_to_string(admin_path).ok()?;
    let admin = Client::new(text.trim().parse().ok()?);
    let ready = admin.try_call(&Request::get("/ready")).await.ok()?;
    (ready.status == 200).then_some(())?;
    let listeners = admin
        .try_call(&Request::get("/listeners?format=json"))
        .await
        .ok()?
        .json();
    let address = listeners.pointer("/listener_statuses/0/local_address/socket_address")?;
    let port = u16::try_from(address.get("port_value")?.as_u64()?).ok()?;
    Some((admin, SocketAddr::from(([127, 0, 0, 1], port))))
}
