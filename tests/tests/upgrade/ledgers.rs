//! A ledger that an older release has written, under this one; and the reverse, which reads it or
//! refuses it and leaves it as it is. On one database, both at once.

use std::path::Path;

use prompt_cache_core::wire::{CLASSIFY_PATH, COMMIT_PATH, POLICY_PATH};
use prompt_cache_e2e::{
    client::Client,
    http::Request,
    index::{self, Index},
    layout::Layout,
    process::Output,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const ENTRIES: u64 = 200;

/// A running service and the folder of its log.
struct Service {
    index: Index,
    client: Client,
    tokenizer_version: Value,
    folder: TempDir,
}

impl Service {
    /// With this `store`, or an embedded one in that folder.
    async fn start(layout: &Layout, store: Result<&Value, &Path>) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = store.ok().map(|store| {
            let file = folder.path().join("index.yaml");
            let config =
                json!({"models": [{"model": "demo", "encoding": "o200k_base"}], "store": store});
            std::fs::write(&file, config.to_string()).unwrap();
            file
        });
        let config = index::Config {
            port: 0,
            file,
            data_dir: store.err().map(Path::to_owned).unwrap_or_default(),
        };
        let index = Index::start(layout, &config, Output::LogIn(folder.path())).await?;
        let client = Client::new(index.address());
        let policy = client.call(&Request::get(POLICY_PATH)).await.json();
        Ok(Self {
            index,
            client,
            tokenizer_version: policy["models"][0]["tokenizer_version"].clone(),
            folder,
        })
    }

    /// Commits entries `from..from + ENTRIES`, each of one token more than its number.
    async fn write(&self, from: u64) {
        let writes: Vec<Value> = (from..from + ENTRIES)
            .map(|n| {
                json!({"principal": "ab".repeat(32), "model": "demo", "age_ms": 0,
                    "tokenizer_version": self.tokenizer_version,
                    "writes": [{"hash": format!("{n:064x}"), "tokens": n + 1, "tier": "1h"}]})
            })
            .collect();
        let batch = json!({"v": 1, "commits": writes}).to_string();
        let answer = self.client.call(&Request::post(COMMIT_PATH, batch)).await;
        assert_eq!(answer.json()["written"], ENTRIES, "{}", answer.text());
    }

    /// Panics unless entries `from..from + ENTRIES` are read.
    async fn reads(&self, from: u64) {
        for n in from..from + ENTRIES {
            let request = json!({
                "v": 1, "principal": "ab".repeat(32), "model": "demo",
                "breakpoints": [{"block": 0, "tier": "1h"}],
                "candidates": [{"block": 0, "hash": format!("{n:064x}")}],
            });
            let request = Request::post(CLASSIFY_PATH, request.to_string());
            let answer = self.client.call(&request).await.json();
            assert_eq!(answer["split"]["read"], n + 1, "{answer}");
        }
    }

    async fn stop(mut self) {
        self.index.process().stop().await;
        drop(self.folder);
    }
}

#[tokio::test]
async fn a_ledger_file_goes_forward_and_back() {
    let (older, this) = (Layout::of_older_release(), Layout::of_tests());
    let data = tempfile::tempdir().unwrap();
    let service = Service::start(&older, Err(data.path())).await.unwrap();
    service.write(0).await;
    service.stop().await;

    let service = Service::start(&this, Err(data.path())).await.unwrap();
    service.reads(0).await;
    service.write(1000).await;
    service.stop().await;

    match Service::start(&older, Err(data.path())).await {
        Ok(service) => {
            service.reads(0).await;
            service.reads(1000).await;
            service.stop().await;
            println!("the older release reads the ledger file of this one");
        }
        Err(message) => {
            assert!(message.contains("ledger format"), "{message}");
            println!("the older release refuses the ledger file of this one");
        }
    }
    let service = Service::start(&this, Err(data.path())).await.unwrap();
    service.reads(0).await;
    service.reads(1000).await;
    service.stop().await;
}

/// A replica of each release on one ledger, as while replicas are replaced.
async fn share(store: Value) {
    let (older, this) = (Layout::of_older_release(), Layout::of_tests());
    let store = Ok(&store);
    let first = Service::start(&older, store).await.unwrap();
    first.write(0).await;
    let second = Service::start(&this, store).await.unwrap();
    second.reads(0).await;
    second.write(1000).await;
    first.reads(1000).await;
    first.write(2000).await;
    second.reads(2000).await;
    first.stop().await;
    // One that starts late, or is started again while the others are replaced.
    match Service::start(&older, store).await {
        Ok(late) => {
            late.reads(1000).await;
            late.write(3000).await;
            second.reads(3000).await;
            late.stop().await;
            println!("the older release starts beside this one");
        }
        Err(message) => {
            assert!(message.contains("newer than this service"), "{message}");
            println!("the older release refuses the ledger of this one");
        }
    }
    second.reads(0).await;
    second.reads(2000).await;
    second.stop().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
async fn replicas_of_two_releases_share_postgres() {
    let url = std::env::var("TEST_POSTGRES_URL").expect("./just test-stores sets it");
    let schema = prompt_cache_test_servers::fresh_name();
    share(json!({"postgres": {"url": url, "schema": schema}})).await;
}

#[tokio::test]
#[ignore = "needs a Redis server: ./just test-stores"]
async fn replicas_of_two_releases_share_redis() {
    let url = std::env::var("TEST_REDIS_URL").expect("./just test-stores sets it");
    let prefix = prompt_cache_test_servers::fresh_name();
    share(json!({"redis": {"url": url, "key_prefix": prefix}})).await;
}
