//! A running service, a client that speaks the wire as the filter does, and a fault switch.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use prompt_cache_core::PrefixHash;
use prompt_cache_core::api::Api;
use prompt_cache_core::ledger::Fingerprint;
use prompt_cache_core::ledger::{Breakpoint, Candidate, LiveEntry, NewEntry, Tier, look_back};
use prompt_cache_core::request::scan_as;
use prompt_cache_core::wire::{
    Classified, ClassifyAnswer, ClassifyRequest, Commit, CommitAnswer, CommitBatch,
    TEXT_CONTENT_TYPE, WIRE_VERSION,
};
use prompt_cache_index::clock::ManualClock;
use prompt_cache_index::config::{Config, StoreConfig};
use prompt_cache_index::state::Service;
use prompt_cache_index::store::{
    Cursor, Epoch, Page, Refresh, Scope, ScopeInfo, Stats, Store, StoreError, Swept, Write,
};
use prompt_cache_index::upkeep::{self, FileSource, look};
use prompt_cache_index::{boot, http, server};
use tokio::sync::oneshot;

pub const NOW: u64 = 1_800_000_000_000;
pub const M5: Tier = Tier::FiveMinutes;
pub const H1: Tier = Tier::OneHour;
const MODEL: &str = "models: [{model: demo, encoding: o200k_base, min_prefix_tokens: 10}]\n";

/// A service on a port of its own, stopped on drop.
pub struct Running {
    pub service: Arc<Service>,
    pub clock: Arc<ManualClock>,
    pub faults: Arc<Faults>,
    pub url: String,
    runtime: tokio::runtime::Runtime,
    stop: Option<oneshot::Sender<()>>,
    _dir: tempfile::TempDir,
}

/// What the store does instead of its work.
#[derive(Default)]
pub struct Faults {
    pub fail: AtomicBool,
    pub hang: AtomicBool,
}

/// The configuration of one model, `demo`, with a floor of 10 tokens, and `more`.
pub fn start(more: &str) -> Running {
    let text = if more.contains("models:") {
        more.to_owned()
    } else {
        format!("{MODEL}{more}")
    };
    let mut config = Config::parse(&text, Path::new("test.yaml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    if let StoreConfig::Embedded(embedded) = &mut config.store {
        embedded.data_dir = dir.path().to_owned();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let clock = Arc::new(ManualClock::new(NOW));
    let faults = Arc::new(Faults::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let (service, addr) = runtime.block_on(async {
        let store = boot::open_store(&config.store).unwrap();
        let store = Arc::new(FaultyStore {
            inner: store,
            faults: Arc::clone(&faults),
        });
        let service = boot::assemble(&config, store, clock.clone()).unwrap();
        service.models.warm_up();
        service.warm.store(true, Ordering::Release);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let router = http::router(Arc::clone(&service));
        tokio::spawn(server::serve(
            listener,
            router,
            Arc::clone(&service),
            async {
                let _ = stopped.await;
            },
        ));
        (service, addr)
    });
    let url = format!("http://{addr}");
    Running {
        service,
        clock,
        faults,
        url,
        runtime,
        stop: Some(stop),
        _dir: dir,
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.faults.hang.store(false, Ordering::SeqCst);
        self.runtime.block_on(self.service.store.close());
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect(&self.body)
    }

    /// The code of an error answer.
    pub fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .expect(&self.body)
            .to_owned()
    }
}

pub fn agent() -> &'static ureq::Agent {
    static AGENT: OnceLock<ureq::Agent> = OnceLock::new();
    AGENT.get_or_init(|| {
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .new_agent()
    })
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = response.unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.body_mut().read_to_string().unwrap(),
    }
}

impl Running {
    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = agent().get(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.call())
    }

    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = agent().post(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send(body))
    }

    /// The answer to the head of a request that announces a body of `bytes` and holds it back: a
    /// refusal that does not wait for the body.
    pub fn announce(&self, path: &str, headers: &[(&str, &str)], bytes: usize) -> Answer {
        let mut stream = TcpStream::connect(self.url.strip_prefix("http://").unwrap()).unwrap();
        let extra: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{extra}\
             expect: 100-continue\r\ncontent-length: {bytes}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer {
            status,
            headers: ureq::http::HeaderMap::new(),
            body: body.to_owned(),
        }
    }

    /// The first call: hashes only.
    pub fn ask(&self, request: &ClassifyRequest) -> ClassifyAnswer {
        let answer = self.post("/v1/classify", &[], &serde_json::to_vec(request).unwrap());
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// The second call: with the prompt.
    pub fn ask_with_text(&self, request: &ClassifyRequest, body: &[u8]) -> ClassifyAnswer {
        let answer = self.post_text(request, body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    pub fn post_text(&self, request: &ClassifyRequest, body: &[u8]) -> Answer {
        let mut bytes = serde_json::to_vec(request).unwrap();
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
        self.post(
            "/v1/classify",
            &[("content-type", TEXT_CONTENT_TYPE)],
            &bytes,
        )
    }

    /// What the filter does: hashes first, the prompt when it is asked for.
    pub fn classify(&self, request: &ClassifyRequest, body: &[u8]) -> Classified {
        let answer = match self.ask(request) {
            ClassifyAnswer::TextNeeded { .. } => self.ask_with_text(request, body),
            other => other,
        };
        match answer {
            ClassifyAnswer::Ok(classified) => classified,
            other => panic!("{other:?}"),
        }
    }

    pub fn commit(&self, commits: Vec<Commit>) -> CommitAnswer {
        let batch = CommitBatch {
            v: WIRE_VERSION,
            commits,
            reads: Vec::new(),
        };
        let answer = self.post("/v1/commit", &[], &serde_json::to_vec(&batch).unwrap());
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// A whole successful exchange.
    pub fn exchange(&self, request: &ClassifyRequest, body: &[u8]) -> Classified {
        let classified = self.classify(request, body);
        if !classified.writes.is_empty() {
            let written = classified.writes.len() as u64;
            let answer = self.commit(vec![commit_of(request, &classified)]);
            assert_eq!((answer.written, answer.dropped), (written, 0));
        }
        classified
    }

    /// Returns when all refreshes of earlier classifications are stored.
    pub fn flush(&self) {
        self.runtime.block_on(self.service.refreshes.flush());
    }

    /// Runs a future of the service or its store.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// One look at an accounts source, as the reloader does; whether it failed.
    pub fn look(&self, source: &mut FileSource) -> bool {
        self.runtime.block_on(look(&self.service, source, false))
    }

    /// Purges the store itself, as another replica would.
    pub fn purge(&self, scopes: &[Scope]) -> u64 {
        self.runtime
            .block_on(self.service.store.purge(scopes))
            .unwrap()
    }

    /// Every entry of the store, expired ones included.
    pub fn entries(&self) -> Vec<Write> {
        self.runtime.block_on(async {
            let (mut entries, mut from) = (Vec::new(), Cursor::default());
            loop {
                let page = self.service.store.scan(from, 1000).await.unwrap();
                entries.extend(page.items);
                match page.next {
                    Some(next) => from = next,
                    None => return entries,
                }
            }
        })
    }

    /// Starts what `serve` runs beside the router.
    pub fn start_sweeper(&self, interval_ms: u64) {
        let service = &self.service;
        let (store, clock) = (Arc::clone(&service.store), Arc::clone(&service.clock));
        let metrics = Arc::clone(&service.metrics);
        self.runtime
            .spawn(upkeep::sweep(store, clock, metrics, interval_ms));
    }

    /// The value of a metric line that starts with `name` (and its labels, if any).
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics", &[]).body;
        let line = text.lines().find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' '))
        });
        let line = line.unwrap_or_else(|| panic!("{name} is not in\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

pub fn commit_of(request: &ClassifyRequest, classified: &Classified) -> Commit {
    Commit {
        principal: request.principal,
        model: request.model.clone(),
        tokenizer_version: classified.tokenizer_version.clone(),
        age_ms: 0,
        prompt_tokens: None,
        counted_prompt_tokens: classified.counted_prompt_tokens,
        writes: classified.writes.clone(),
    }
}

pub fn principal(tenant: u8) -> Fingerprint {
    Fingerprint::new([tenant; 32])
}

/// A chat request whose messages have these texts: one block each.
pub fn chat(texts: &[&str]) -> Vec<u8> {
    let messages: Vec<_> = texts
        .iter()
        .map(|text| serde_json::json!({"role": "user", "content": text}))
        .collect();
    serde_json::to_vec(&serde_json::json!({"model": "demo", "messages": messages})).unwrap()
}

/// The filter's request for the `body` of a chat request with breakpoints after these blocks.
pub fn request(tenant: u8, body: &[u8], breakpoints: &[(u32, Tier)]) -> ClassifyRequest {
    request_as(Api::Chat, tenant, body, breakpoints)
}

/// The same for a request of any API.
pub fn request_as(
    api: Api,
    tenant: u8,
    body: &[u8],
    breakpoints: &[(u32, Tier)],
) -> ClassifyRequest {
    let breakpoints: Vec<Breakpoint> = breakpoints
        .iter()
        .map(|&(block, tier)| Breakpoint { block, tier })
        .collect();
    let last = breakpoints.last().unwrap().block;
    let hashes = scan_as(api, body).unwrap().prefix_hashes(&[], last);
    let candidates = look_back(&breakpoints)
        .into_iter()
        .map(|block| Candidate {
            block,
            hash: hashes
                .get(block as usize)
                .copied()
                .unwrap_or(PrefixHash::new([block as u8; 32])),
        })
        .collect();
    ClassifyRequest {
        v: WIRE_VERSION,
        api,
        principal: principal(tenant),
        model: "demo".to_owned(),
        breakpoints,
        candidates,
    }
}

/// Text of exactly `tokens` tokens in o200k_base.
pub fn text(tokens: usize) -> String {
    let text = " a".repeat(tokens);
    assert_eq!(bpe_openai::o200k_base().count(text.as_str()), tokens);
    text
}

pub fn entry(n: u8, tokens: u32, tier: Tier) -> NewEntry {
    NewEntry {
        hash: PrefixHash::new([n; 32]),
        tokens,
        tier,
    }
}

struct FaultyStore {
    inner: Arc<dyn Store>,
    faults: Arc<Faults>,
}

impl FaultyStore {
    async fn check(&self) -> Result<(), StoreError> {
        while self.faults.hang.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        if self.faults.fail.load(Ordering::SeqCst) {
            return Err(StoreError::Failed("injected".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn look_up(
        &self,
        scope: &Scope,
        hashes: &[PrefixHash],
        now_ms: u64,
    ) -> Result<Vec<Option<LiveEntry>>, StoreError> {
        self.check().await?;
        self.inner.look_up(scope, hashes, now_ms).await
    }

    async fn find(
        &self,
        scope: &Scope,
        breakpoints: &[Breakpoint],
        candidates: &[Candidate],
        now_ms: u64,
    ) -> Result<Vec<Option<LiveEntry>>, StoreError> {
        self.check().await?;
        self.inner
            .find(scope, breakpoints, candidates, now_ms)
            .await
    }

    async fn write(&self, writes: Vec<Write>, now_ms: u64) -> Result<(), StoreError> {
        self.check().await?;
        self.inner.write(writes, now_ms).await
    }

    async fn refresh(&self, refreshes: Vec<Refresh>) -> Result<(), StoreError> {
        self.check().await?;
        self.inner.refresh(refreshes).await
    }

    async fn sweep(&self, now_ms: u64, limit: usize) -> Result<Swept, StoreError> {
        self.check().await?;
        self.inner.sweep(now_ms, limit).await
    }

    async fn register(&self, scopes: &[ScopeInfo]) -> Result<(), StoreError> {
        self.check().await?;
        self.inner.register(scopes).await
    }

    async fn scopes(&self, from: Cursor, limit: usize) -> Result<Page<ScopeInfo>, StoreError> {
        self.check().await?;
        self.inner.scopes(from, limit).await
    }

    async fn purge(&self, scopes: &[Scope]) -> Result<u64, StoreError> {
        self.check().await?;
        self.inner.purge(scopes).await
    }

    async fn epoch(&self) -> Result<Epoch, StoreError> {
        self.check().await?;
        self.inner.epoch().await
    }

    async fn scan(&self, from: Cursor, limit: usize) -> Result<Page<Write>, StoreError> {
        self.check().await?;
        self.inner.scan(from, limit).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.inner.stats().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.check().await?;
        self.inner.ping().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
