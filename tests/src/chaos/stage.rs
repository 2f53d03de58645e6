//! Everything that runs in one episode: store, replicas, Envoy; and what the weather does to it.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use prompt_cache_e2e::{
    deadline::poll,
    envoy::{Config, Envoy},
    faults::Tamper,
    layout::Layout,
    process::Output,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    books::Books,
    clock::Offset,
    judge::CLASSIFY_DEADLINE_MS,
    ledger::DELIVERY_MS_MAX,
    listener::{Listener, Reloads},
    replica::{Replica, clocks_move},
    script::Model,
    settings::{Plant, StoreKind},
    store::StoreServer,
    weather::{StoreFault, Strike},
};

/// What the filter may wait under the plant that must be found out.
const LONG_HOLD_MS: i64 = 9_000;

/// The stage. Fields end in this order.
pub struct Stage {
    envoy: Envoy,
    listener: Listener,
    replicas: Vec<Replica>,
    store: Option<StoreServer>,
    books: Books,
    /// How far all clocks of the services are ahead, and each of them beside that.
    ahead_ms: i64,
    skew_ms: Vec<i64>,
    folder: TempDir,
}

impl Stage {
    pub async fn start(
        layout: &Layout,
        kind: StoreKind,
        leases: bool,
        llm: SocketAddr,
        tamper: Option<Tamper>,
        books: &Books,
    ) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let store = StoreServer::start(kind).await?;
        let service = service_config(store.as_ref(), folder.path());
        let mut replicas = vec![];
        for number in 0..kind.replicas() {
            let replica = Replica::start(layout, folder.path(), number, &service).await?;
            if let Some(tamper) = tamper {
                replica.proxy().tamper(tamper);
            }
            replicas.push(replica);
        }
        let first = replicas[0].proxy().address();
        let mut config = Config::new(layout.filter(), llm.into(), first.into());
        config.concurrency = 2;
        config.log_level = "warning";
        config.access_log = Some("/dev/null".into());
        config.port = prompt_cache_test_servers::port::free();
        config.plugin = plugin(leases, books.plant);
        let endpoints: Vec<_> = replicas
            .iter()
            .map(|r| endpoint(r.proxy().address()))
            .collect();
        config.members = vec![(
            "/static_resources/clusters/1/load_assignment/endpoints/0/lb_endpoints",
            json!(endpoints),
        )];
        let rendered = config.render(&layout.standalone())?;
        let (rendered, listener) = Listener::split(&rendered, folder.path())?;
        let envoy = Envoy::start_rendered(
            layout,
            &config,
            &rendered,
            folder.path(),
            Output::LogIn(folder.path()),
        )
        .await?;
        envoy.await_policy().await?;
        Ok(Self {
            envoy,
            listener,
            skew_ms: vec![0; replicas.len()],
            replicas,
            store,
            books: books.clone(),
            ahead_ms: 0,
            folder,
        })
    }

    pub fn envoy(&mut self) -> &mut Envoy {
        &mut self.envoy
    }

    pub fn replicas(&mut self) -> &mut [Replica] {
        &mut self.replicas
    }

    /// What was done to the listener so far.
    pub const fn reloads(&self) -> Reloads {
        self.listener.reloads()
    }

    pub const fn books(&self) -> &Books {
        &self.books
    }

    /// A strike begins.
    pub async fn strike(&mut self, strike: Strike) -> Result<(), String> {
        match strike {
            Strike::Service(number, fault) => self.replicas[number].strike(fault).await,
            Strike::Store(StoreFault::DiskFull) => self.limit_ledger(true).await?,
            Strike::Store(fault) => self.store.iter().for_each(|store| store.strike(fault)),
            Strike::Envoy(reload) => self.listener.reload(reload)?,
            Strike::Skew(number, ms) => self.set_skew(number, ms)?,
        }
        Ok(())
    }

    /// It ends.
    pub async fn heal(&mut self, strike: Strike) -> Result<(), String> {
        match strike {
            Strike::Service(number, fault) => self.replicas[number].heal(fault).await?,
            Strike::Store(StoreFault::DiskFull) => self.limit_ledger(false).await?,
            Strike::Store(fault) => self.store.iter().for_each(|store| store.heal(fault)),
            Strike::Skew(number, _) => self.set_skew(number, 0)?,
            Strike::Envoy(_) => {}
        }
        Ok(())
    }

    /// Waits until everything is well again.
    pub async fn recovered(&mut self) -> Result<(), String> {
        if let Some(store) = &self.store {
            store.settled().await?;
        }
        for replica in &mut self.replicas {
            replica.ready().await?;
        }
        Ok(())
    }

    /// Waits until no commit has been on its way to the services for `pause`.
    pub async fn delivered(&self, pause: Duration, at_most: Duration) -> Result<(), String> {
        let quiet = poll(at_most, async || {
            let mut proxies = self.replicas.iter().map(Replica::proxy);
            let all = proxies.all(|proxy| proxy.commits_quiet_for() >= pause);
            all.then_some(())
        });
        quiet
            .await
            .ok_or("commits do not come to an end".to_owned())
    }

    /// Moves the clocks of the services ahead, while nothing is on its way to them.
    pub fn jump(&mut self, seconds: i64) -> Result<(), String> {
        self.ahead_ms += seconds * 1000;
        self.set_clocks().map(drop)
    }

    /// Tells the books of a jump that does not happen.
    pub fn claim_jump(&self, seconds: i64) {
        let mut state = self.books.lock();
        let now_ms = state.clocks.now_ms();
        let mut offset = state.clocks.span(now_ms, now_ms);
        offset.low_ms += seconds * 1000;
        offset.high_ms += seconds * 1000;
        state.clocks.step(now_ms, offset);
    }

    fn set_skew(&mut self, number: usize, ms: i64) -> Result<(), String> {
        self.skew_ms[number] = ms;
        let ahead_ms = self.set_clocks()?;
        let mut state = self.books.lock();
        let now_ms = state.clocks.now_ms();
        state.ledger.stepped(now_ms, ahead_ms);
        Ok(())
    }

    /// Moves the clocks, and tells the books: in between they may show either. Returns how much
    /// further the latest of them is.
    fn set_clocks(&self) -> Result<i64, String> {
        if !clocks_move() {
            return Ok(0);
        }
        let least = self.skew_ms.iter().min().copied().unwrap_or(0);
        let most = self.skew_ms.iter().max().copied().unwrap_or(0);
        let new = Offset {
            low_ms: self.ahead_ms + least,
            high_ms: self.ahead_ms + most,
        };
        let old = {
            let mut state = self.books.lock();
            let now_ms = state.clocks.now_ms();
            let old = state.clocks.span(now_ms, now_ms);
            let either = Offset {
                low_ms: old.low_ms.min(new.low_ms),
                high_ms: old.high_ms.max(new.high_ms),
            };
            state.clocks.step(now_ms, either);
            old
        };
        for (replica, skew_ms) in self.replicas.iter().zip(&self.skew_ms) {
            replica.set_clock(self.ahead_ms + skew_ms)?;
        }
        let mut state = self.books.lock();
        let now_ms = state.clocks.now_ms();
        state.clocks.step(now_ms + 1, new);
        Ok(new.high_ms - old.high_ms)
    }

    /// Lets the embedded ledger grow no more, or again.
    async fn limit_ledger(&mut self, full: bool) -> Result<(), String> {
        let ledger = self.folder.path().join("data/ledger.redb");
        let size = fs::metadata(&ledger).map_err(|e| format!("{}: {e}", ledger.display()))?;
        let limit = if full {
            size.len().to_string()
        } else {
            "unlimited".to_owned()
        };
        let Some(pid) = self.replicas[0].pid() else {
            return Ok(());
        };
        // Fails where the service has been killed meanwhile; a new one has no limit.
        let _ = Command::new("prlimit")
            .args(["--pid", &pid.to_string(), &format!("--fsize={limit}:")])
            .stderr(std::process::Stdio::null())
            .status()
            .await;
        Ok(())
    }
}

fn endpoint(address: SocketAddr) -> Value {
    let socket = json!({"address": address.ip().to_string(), "port_value": address.port()});
    json!({"endpoint": {"address": {"socket_address": socket}}})
}

fn service_config(store: Option<&StoreServer>, folder: &Path) -> Value {
    let embedded =
        || json!({"embedded": {"data_dir": folder.join("data"), "refresh_flush_ms": 50}});
    let model = |model: Model| {
        json!({
            "model": model.name(),
            "encoding": "o200k_base",
            "min_prefix_tokens": model.floor(),
            "tiers": ["5m", "1h"],
            "default_tier": model.default_tier().name(),
        })
    };
    json!({
        "store": store.map_or_else(embedded, StoreServer::config),
        "models": Model::ACTIVE.map(model),
        "sweep_interval_ms": 500,
        "log": {"level": "error"},
    })
}

/// Deadlines short enough for minutes to hold many of them.
fn plugin(leases: bool, plant: Option<Plant>) -> Value {
    let deadline_ms = match plant {
        Some(Plant::LongHold) => LONG_HOLD_MS,
        _ => CLASSIFY_DEADLINE_MS,
    };
    let mut plugin = json!({
        "classify_deadline_ms": deadline_ms,
        "commit_deadline_ms": DELIVERY_MS_MAX - 2_000,
        "commit_flush_ms": 20,
        "breaker_open_ms": 500,
        "policy_refresh_ms": 500,
        "max_event_bytes": 65_536,
        "max_held_bytes": 32_768,
    });
    if !leases {
        plugin["lease_bytes_max"] = json!(0);
    }
    plugin
}
