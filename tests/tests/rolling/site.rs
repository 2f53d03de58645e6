//! One index service and one upstream, before which Envoys come and go.

use std::path::PathBuf;

use prompt_cache_e2e::{
    client::Client,
    deadline::{PATIENCE, poll, within},
    envoy::{Config, Envoy, ListenerFile, listener_of},
    faults::Faults,
    http::Request,
    index::{self, Index},
    layout::Layout,
    process::Output,
};
use prompt_cache_test_servers::port;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::{llm::Llm, module::another_build};

/// Worker threads of each Envoy.
pub const WORKERS: u32 = 2;
/// How long Envoys that shall go take requests, or connections of theirs stay: longer than a balancer
/// takes to hear of it.
const DRAIN_S: &str = "12";
/// When Envoy is ended by the next of a row, after that one has begun: longer than the streams take.
const PARENT_SHUTDOWN_S: &str = "15";
/// Entries that commits brought, in the service's metrics.
const ENTRIES: &str = "prompt_cache_index_commit_entries_total";

pub struct Site {
    pub llm: Llm,
    pub faults: Faults,
    index: Index,
    folder: TempDir,
}

/// Which filter an Envoy runs, and with which configuration.
#[derive(Clone, Copy)]
pub enum Release {
    /// The one that `UPGRADE_FROM` names, or this checkout's.
    Older,
    /// This checkout's, as another module than the older one, whatever that is.
    This,
}

impl Site {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = index::Config {
            port: 0,
            file: None,
            data_dir: folder.path().join("data"),
        };
        let log = Output::LogIn(folder.path());
        let index = Index::start(&Layout::of_tests(), &config, log)
            .await
            .unwrap();
        Self {
            llm: Llm::start().await,
            faults: Faults::start(index.address()).await,
            index,
            folder,
        }
    }

    /// An Envoy that knows its policy, in a folder of this name.
    pub async fn envoy(&self, name: &str, release: Release) -> Envoy {
        let (layout, config) = config(self, release);
        self.run(name, &layout, &config).await
    }

    /// One of a row of Envoys that take the listener at `port` over from each other (hot restart).
    pub async fn epoch(&self, epoch: u8, release: Release, port: u16) -> Envoy {
        let (layout, mut config) = config(self, release);
        config.port = port;
        let base = self.folder.path().join("base-id");
        let row = if epoch == 0 {
            vec![
                "--use-dynamic-base-id".into(),
                "--base-id-path".into(),
                base.display().to_string(),
            ]
        } else {
            vec![
                "--base-id".into(),
                std::fs::read_to_string(base).unwrap().trim().into(),
            ]
        };
        config.arguments = arguments([
            ["--restart-epoch", &epoch.to_string()],
            ["--drain-time-s", DRAIN_S],
            ["--parent-shutdown-time-s", PARENT_SHUTDOWN_S],
        ]);
        // Its own counters from the start.
        config
            .arguments
            .push("--skip-hot-restart-parent-stats".into());
        config.arguments.extend(row);
        self.run(&format!("epoch {epoch}"), &layout, &config).await
    }

    async fn run(&self, name: &str, layout: &Layout, config: &Config) -> Envoy {
        let folder = self.subfolder(name);
        let log = Output::LogIn(&folder);
        let envoy = Envoy::start(layout, config, &folder, log).await.unwrap();
        envoy.await_policy().await.unwrap();
        envoy
    }

    /// An Envoy with its listener in a file.
    pub async fn envoy_that_follows(&self, release: Release) -> (Envoy, ListenerFile) {
        let (layout, mut config) = config(self, release);
        config.port = port::free();
        let folder = self.subfolder("follows");
        let rendered = config.render(&layout.standalone()).unwrap();
        let (rest, _, file) = ListenerFile::split(&rendered, &folder).unwrap();
        let log = Output::LogIn(&folder);
        let envoy = Envoy::start_rendered(&layout, &config, &rest, &folder, log)
            .await
            .unwrap();
        envoy.await_policy().await.unwrap();
        (envoy, file)
    }

    /// The listener of `release` at the port of `envoy`.
    pub fn listener(&self, release: Release, envoy: &Envoy) -> Value {
        let (layout, mut config) = config(self, release);
        config.port = envoy.listener().port();
        listener_of(&config.render(&layout.standalone()).unwrap()).unwrap()
    }

    fn subfolder(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    }

    /// Entries that the service has written.
    pub async fn written(&self) -> u64 {
        let stats = self.index.stats().await.unwrap();
        stats.counter(ENTRIES, &[("outcome", "written")])
    }

    /// Waits until the service has written so many entries.
    pub async fn await_written(&self, count: u64) {
        let all = poll(PATIENCE, async || {
            (self.written().await >= count).then_some(())
        });
        if all.await.is_none() {
            panic!("{} of {count} entries arrived", self.written().await);
        }
    }
}

fn config(site: &Site, release: Release) -> (Layout, Config) {
    let (layout, filter) = match release {
        Release::Older => {
            let layout = Layout::of_older_release();
            let filter = layout.filter();
            (layout, filter)
        }
        Release::This => {
            let layout = Layout::of_tests();
            let filter = another_build(&layout.filter(), site.folder.path());
            (layout, filter)
        }
    };
    let [llm, index] = [site.llm.address(), site.faults.address()];
    let mut config = Config::new(filter, llm.into(), index.into());
    config.concurrency = WORKERS;
    config.access_log = Some("/dev/null".into());
    // Every request asks the service.
    config.plugin = json!({"lease_bytes_max": 0});
    config
        .arguments
        .extend(arguments([["--drain-time-s", DRAIN_S]]));
    (layout, config)
}

fn arguments<const N: usize>(pairs: [[&str; 2]; N]) -> Vec<String> {
    pairs.iter().flatten().map(|&word| word.into()).collect()
}

/// Tells Envoy to go: it takes requests for its drain time, then no connection any more.
pub async fn drain(envoy: &Envoy) {
    let request = Request::post("/drain_listeners?graceful", "");
    assert_eq!(envoy.admin().call(&request).await.status, 200);
}

/// Waits until it takes no connection any more.
pub async fn await_drained(envoy: &Envoy) {
    let refused = poll(PATIENCE, async || {
        let probe = TcpStream::connect(envoy.listener()).await;
        probe.is_err().then_some(())
    });
    refused.await.expect("a drained Envoy refuses connections");
}

/// Waits until no client's request is in this Envoy.
pub async fn await_idle(envoy: &Envoy) {
    let idle = poll(PATIENCE, async || {
        let labels = [("envoy_http_conn_manager_prefix", "llm")];
        let stats = envoy.stats().await?;
        let active = stats.counter("envoy_http_downstream_rq_active", &labels);
        (active == 0).then_some(())
    });
    idle.await.expect("every request ends");
}

/// SIGTERM, and a good end.
pub async fn end(mut envoy: Envoy) {
    let process = envoy.process();
    process.signal(libc::SIGTERM);
    let status = within("Envoy's end", process.ended()).await.unwrap();
    assert!(status.success(), "{status}");
}

pub fn client(envoy: &Envoy) -> Client {
    Client::new(envoy.listener())
}
