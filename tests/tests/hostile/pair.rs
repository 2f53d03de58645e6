//! The same bytes through Envoy with the filter and through Envoy alone, to one upstream.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use prompt_cache_e2e::{
    client::Client,
    envoy::{self, Envoy},
    http::{Headers, Request},
    layout::Layout,
    process::Output,
    upstream::Upstream,
    world::{World, cache_of, chat, completion, long_prefix, marked},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;

/// What differs from one answer to the next, or says how the body is framed.
const NOT_COMPARED: [&str; 6] = [
    "date",
    "x-envoy-upstream-service-time",
    "x-request-id",
    "content-length",
    "transfer-encoding",
    // Of handled requests the filter takes it away, so that it can read the response.
    "accept-encoding",
];
/// Who has said nothing for so long waits for more.
const SILENCE: Duration = Duration::from_secs(10);

/// Both.
pub struct Pair {
    pub world: World,
    alone: Envoy,
    upstream: Arc<Mutex<Vec<Request>>>,
    _folder: TempDir,
}

/// What came of some bytes.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// An answer: status, headers, body.
    Answer(u16, Vec<(String, String)>, Vec<u8>),
    /// The connection was closed without one, or in the middle of it.
    Closed,
    /// Neither.
    Silence,
}

impl Pair {
    pub async fn start() -> Self {
        let mut world = World::start().await;
        let upstream = std::mem::replace(&mut world.upstream, Upstream::start().await);
        let address = upstream.address();
        let seen = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(answer_all(upstream, Arc::clone(&seen)));
        let layout = Layout::of_tests();
        let folder = tempfile::tempdir().unwrap();
        let index = world.index.address();
        let config = envoy::Config::new(layout.filter(), address.into(), index.into());
        let rendered = config.render(&layout.standalone()).unwrap();
        let mut rendered: Value = serde_json::from_str(&rendered).unwrap();
        let filters =
            "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";
        rendered
            .pointer_mut(filters)
            .unwrap()
            .as_array_mut()
            .unwrap()
            .remove(0);
        let output = Output::LogIn(folder.path());
        let text = rendered.to_string();
        let alone = Envoy::start_rendered(&layout, &config, &text, folder.path(), output).await;
        Self {
            world,
            alone: alone.unwrap(),
            upstream: seen,
            _folder: folder,
        }
    }

    /// Sends the same bytes both ways, compares what came back and what arrived, and returns it.
    pub async fn same(&self, name: &str, bytes: &[u8]) -> Outcome {
        let alone = outcome(self.alone.listener(), bytes).await;
        let expected: Vec<Request> = self.taken();
        let found = outcome(self.world.envoy.listener(), bytes).await;
        let arrived: Vec<Request> = self.taken();
        assert_eq!(found, alone, "{name}");
        assert!(
            arrived == expected,
            "{name}: {arrived:.500?}, alone {expected:.500?}"
        );
        found
    }

    /// What the upstream got since the last call.
    fn taken(&self) -> Vec<Request> {
        let mut seen = std::mem::take(&mut *self.upstream.lock().unwrap());
        for request in &mut seen {
            request.headers.0 = compared(&request.headers);
        }
        seen
    }

    /// A valid request is served, counted and read again, and no VM was lost.
    pub async fn assert_well(&self, topic: &str) {
        let request = chat("well", &marked(&long_prefix(topic)));
        let client = Client::new(self.world.envoy.listener());
        let before = self
            .world
            .stats()
            .await
            .counter("promptcache_commit_total", &[("result", "ok")]);
        let written = cache_of(&client.call(&request).await.usage());
        assert!(
            written.read == 0 && written.five_minutes > 1024,
            "{written:?}"
        );
        self.world.await_commits(before + 1).await;
        let read = cache_of(&client.call(&request).await.usage());
        assert_eq!(read.read, written.five_minutes);
        self.taken();
        self.world.assert_no_vm_lost().await;
    }
}

/// The headers that are compared, in order.
fn compared(headers: &Headers) -> Vec<(String, String)> {
    let mut all: Vec<_> = headers.0.clone();
    for (name, _) in &mut all {
        name.make_ascii_lowercase();
    }
    all.retain(|(name, _)| !NOT_COMPARED.contains(&name.as_str()));
    all
}

/// Sends the bytes on a connection of their own and reads one answer.
async fn outcome(address: std::net::SocketAddr, bytes: &[u8]) -> Outcome {
    let mut connection = Client::new(address).connect().await;
    // It may be answered, and closed, before all is written.
    let _ = timeout(SILENCE, connection.write(bytes)).await;
    let answer = async {
        let head = connection.read_head().await.ok()??;
        let bodiless = bytes.starts_with(b"HEAD ");
        let body = if bodiless {
            Vec::new()
        } else {
            connection.read_body().await.ok()?
        };
        Some((head.status, compared(&head.headers), body))
    };
    match timeout(SILENCE, answer).await {
        Ok(Some((status, headers, body))) => Outcome::Answer(status, headers, body),
        Ok(None) => Outcome::Closed,
        Err(_) => Outcome::Silence,
    }
}

/// Answers every request alike, and notes it.
async fn answer_all(mut upstream: Upstream, seen: Arc<Mutex<Vec<Request>>>) {
    while let Some(call) = upstream.wait().await {
        seen.lock().unwrap().push(call.request.clone());
        tokio::spawn(call.json(200, completion(5000).to_string()));
    }
}
