//! Replicas of the index service behind one Envoy.

use std::{fmt, net::SocketAddr, path::PathBuf};

use prompt_cache_e2e::{
    client::Client,
    deadline::{PATIENCE, poll},
    envoy::{self, Envoy, Stats},
    index::{self, Index},
    layout::Layout,
    process::Output,
};
use prompt_cache_test_servers::port;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::llm::Llm;

/// What differs between the tests.
pub struct Setting {
    /// The service's `store` key; an embedded one without.
    pub store: Option<Value>,
    pub replicas: usize,
    pub shutdown_delay_ms: u64,
    /// Envoy asks each replica whether it is ready.
    pub health_checks: bool,
    /// The filter is that of an older release, and so are the replicas until their first restart.
    pub older: bool,
}

pub struct Fleet {
    envoy: Envoy,
    replicas: Vec<Replica>,
    health_checks: bool,
    _llm: Llm,
    folder: TempDir,
}

struct Replica {
    index: Index,
    config: index::Config,
}

impl Fleet {
    pub async fn start(setting: Setting) -> Self {
        let layout = if setting.older {
            Layout::of_older_release()
        } else {
            Layout::of_tests()
        };
        let folder = tempfile::tempdir().unwrap();
        let data_dir = match &setting.store {
            Some(_) => PathBuf::new(),
            None => folder.path().join("data"),
        };
        let mut service = json!({
            "models": [{"model": "demo", "encoding": "o200k_base"}],
            "store": setting.store.unwrap_or_else(|| json!({"embedded": {}})),
        });
        let older_file = folder.path().join("older.yaml");
        std::fs::write(&older_file, service.to_string()).unwrap();
        service["limits"] = json!({"shutdown_delay_ms": setting.shutdown_delay_ms});
        let file = folder.path().join("index.yaml");
        std::fs::write(&file, service.to_string()).unwrap();
        let mut replicas = vec![];
        for _ in 0..setting.replicas {
            let config = index::Config {
                port: port::free(),
                file: Some(file.clone()),
                data_dir: data_dir.clone(),
            };
            let mut first = config.clone();
            if setting.older {
                first.file = Some(older_file.clone());
            }
            let index = start(&layout, &first, &folder).await;
            replicas.push(Replica { index, config });
        }
        let llm = Llm::start().await;
        let mut config = envoy::Config::new(
            layout.filter(),
            llm.address().into(),
            replicas[0].index.address().into(),
        );
        config.concurrency = 2;
        config.access_log = Some("/dev/null".into());
        // Every request asks the service.
        config.plugin = json!({"lease_bytes_max": 0, "commit_flush_ms": 20});
        let endpoints: Vec<_> = replicas
            .iter()
            .map(|replica| endpoint(replica.index.address()))
            .collect();
        config.members = vec![(
            "/static_resources/clusters/1/load_assignment/endpoints/0/lb_endpoints",
            json!(endpoints),
        )];
        if setting.health_checks {
            config.members.extend([
                (
                    "/static_resources/clusters/1/health_checks",
                    health_checks(),
                ),
                (
                    "/static_resources/clusters/1/common_lb_config",
                    json!({"update_merge_window": "0s"}),
                ),
            ]);
        }
        let envoy = Envoy::start(&layout, &config, folder.path(), log(&folder))
            .await
            .unwrap();
        envoy.await_policy().await.unwrap();
        Self {
            envoy,
            replicas,
            health_checks: setting.health_checks,
            _llm: llm,
            folder,
        }
    }

    pub fn client(&self) -> Client {
        Client::new(self.envoy.listener())
    }

    pub fn replicas(&self) -> usize {
        self.replicas.len()
    }

    pub async fn stats(&self) -> Stats {
        self.envoy.stats().await.unwrap()
    }

    /// SIGTERM, the end, and a new process in its place; then Envoy must have noticed.
    pub async fn restart(&mut self, number: usize) {
        let replica = &mut self.replicas[number];
        let process = replica.index.process();
        process.signal(libc::SIGTERM);
        let status = prompt_cache_e2e::deadline::within("the replica's end", process.ended()).await;
        assert!(status.unwrap().success());
        replica.index = start(&Layout::of_tests(), &replica.config, &self.folder).await;
        if self.health_checks {
            let healthy = [("envoy_cluster_name", "prompt_cache_index")];
            let all = poll(PATIENCE, async || {
                let stats = self.envoy.stats().await?;
                let count = stats.counter("envoy_cluster_membership_healthy", &healthy);
                (count == self.replicas.len() as u64).then_some(())
            });
            all.await.expect("Envoy takes the replica back");
        }
    }

    /// Waits until so many commits have landed.
    pub async fn await_delivered(&self, count: u64) {
        let landed = poll(PATIENCE, async || {
            let stats = self.envoy.stats().await?;
            let ok = stats.counter("promptcache_commit_total", &[("result", "ok")]);
            (ok >= count).then_some(())
        });
        if landed.await.is_none() {
            let lines = self.stats().await.lines("promptcache_").join("\n");
            panic!("{count} commits:\n{lines}");
        }
    }

    /// Classifications that brought nothing.
    pub fn lost(&self, stats: &Stats) -> Lost {
        let count = |outcome| stats.counter("promptcache_classify_total", &[("outcome", outcome)]);
        Lost {
            error: count("error") + count("refused"),
            late: count("deadline_exceeded"),
            breaker: count("breaker_open"),
            abandoned: count("abandoned"),
            retried: stats.counter(
                "envoy_cluster_upstream_rq_retry",
                &[("envoy_cluster_name", "prompt_cache_index")],
            ),
        }
    }
}

/// Classifications by how they were lost, and calls that Envoy made once more.
pub struct Lost {
    error: u64,
    late: u64,
    breaker: u64,
    abandoned: u64,
    retried: u64,
}

impl Lost {
    pub const fn total(&self) -> u64 {
        self.error + self.late + self.breaker + self.abandoned
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "classifications lost: {} failed, {} late, {} behind the breaker, {} abandoned; calls retried: {}",
            self.error, self.late, self.breaker, self.abandoned, self.retried
        )
    }
}

async fn start(layout: &Layout, config: &index::Config, folder: &TempDir) -> Index {
    Index::start(layout, config, log(folder)).await.unwrap()
}

fn log(folder: &TempDir) -> Output<'_> {
    Output::LogIn(folder.path())
}

/// As docs/operations.md recommends, four times as often.
fn health_checks() -> Value {
    json!([{
        "timeout": "1s", "interval": "0.25s", "no_traffic_interval": "0.25s",
        "unhealthy_threshold": 1, "healthy_threshold": 1,
        "http_health_check": {"path": "/readyz"},
    }])
}

fn endpoint(address: SocketAddr) -> Value {
    let socket = json!({"address": address.ip().to_string(), "port_value": address.port()});
    json!({"endpoint": {"address": {"socket_address": socket}}})
}
