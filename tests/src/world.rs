//! One test's world: scripted upstream, real index service behind the fault proxy, real Envoy.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    client::{Client, Response},
    deadline::{PATIENCE, poll},
    envoy::{self, Envoy, Stats},
    faults::Faults,
    http::Request,
    index::{self, Index},
    layout::Layout,
    process::Output,
    upstream::Upstream,
};

/// The path that every chat client uses.
pub const CHAT: &str = "/v1/chat/completions";

/// Labels of the listener's stats, the admin interface's left out.
const LISTENER: [(&str, &str); 1] = [("envoy_http_conn_manager_prefix", "llm")];

/// Everything that runs for one test; it all ends with this value.
pub struct World {
    /// Sends to Envoy.
    pub client: Client,
    /// Envoy with the filter.
    pub envoy: Envoy,
    /// What the filter reaches as the index service.
    pub faults: Faults,
    /// The index service itself.
    pub index: Index,
    /// The LLM.
    pub upstream: Upstream,
    layout: Layout,
    folder: TempDir,
}

/// What a test wants to be different.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Members of the plugin's configuration.
    pub plugin: Value,
    /// Envoy's own buffer limit.
    pub buffer_bytes_max: Option<u64>,
    /// The index service's config, as YAML or JSON text.
    pub index_config: Option<String>,
    /// Runs the filter that is built for tests: its VM traps on request and tells its size.
    pub trapping: bool,
    /// The upstream is this one, over HTTP/2; the world's own sees nothing.
    pub http2_upstream: Option<SocketAddr>,
    /// Does not wait until the filter knows the models.
    pub without_policy: bool,
    /// Envoy's worker threads; `CONCURRENCY` from the environment, or 1, when not given.
    pub concurrency: Option<u32>,
    /// Members of Envoy's own configuration, see [`envoy::Config::members`].
    pub members: Vec<(&'static str, Value)>,
    /// Envoy's whole configuration, where it is not the shipped one.
    pub base: Option<Value>,
    /// Which programs run, where it is not this checkout's.
    pub layout: Option<Layout>,
}

impl World {
    /// A world as shipped.
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// A world with other values.
    pub async fn with(options: Options) -> Self {
        match Self::try_with(options).await {
            Ok(world) => world,
            Err(message) => panic!("{message}"),
        }
    }

    /// Like [`World::with`]; `Err` when Envoy or the service refuses to start.
    pub async fn try_with(options: Options) -> Result<Self, String> {
        let layout = options.layout.clone().unwrap_or_else(Layout::of_tests);
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let upstream = Upstream::start().await;
        let mut index_config = index::Config {
            port: 0,
            file: None,
            data_dir: folder.path().join("data"),
        };
        std::fs::create_dir(&index_config.data_dir).map_err(|e| e.to_string())?;
        if let Some(text) = &options.index_config {
            let path = folder.path().join("index.yaml");
            std::fs::write(&path, text).map_err(|e| e.to_string())?;
            index_config.file = Some(path);
        }
        let index = Index::start(&layout, &index_config, Output::LogIn(folder.path())).await?;
        let faults = Faults::start(index.address()).await;
        let filter = if options.trapping {
            layout.trapping_filter()
        } else {
            layout.filter()
        };
        let llm = options.http2_upstream.unwrap_or(upstream.address());
        let mut config = envoy::Config::new(filter, llm.into(), faults.address().into());
        config.upstream_http2 = options.http2_upstream.is_some();
        config.plugin = options.plugin;
        config.buffer_bytes_max = options.buffer_bytes_max;
        config.access_log = Some(folder.path().join("access.log"));
        config.concurrency = options.concurrency.unwrap_or_else(default_concurrency);
        config.members = options.members;
        config.base = options.base;
        let envoy = Envoy::start(
            &layout,
            &config,
            folder.path(),
            Output::LogIn(folder.path()),
        )
        .await?;
        if !options.without_policy {
            envoy.await_policy().await?;
        }
        let client = Client::new(envoy.listener());
        Ok(Self {
            client,
            envoy,
            faults,
            index,
            upstream,
            layout,
            folder,
        })
    }

    /// Sends `request`, lets the upstream answer with `body` as JSON, and returns what the client
    /// got and what the upstream saw.
    pub async fn exchange(&mut self, request: &Request, body: &Value) -> (Response, Request) {
        let sent = self.client.send(request).await;
        let call = self.upstream.next().await;
        let seen = call.request.clone();
        call.json(200, body.to_string()).await;
        (sent.finish().await, seen)
    }

    /// Sends `request`, lets the upstream stream `events`, and returns what the client got and
    /// what the upstream saw.
    pub async fn stream(&mut self, request: &Request, events: &[&str]) -> (Response, Request) {
        let sent = self.client.send(request).await;
        let call = self.upstream.next().await;
        let seen = call.request.clone();
        call.events(events).await;
        (sent.finish().await, seen)
    }

    /// The filter's and Envoy's stats.
    pub async fn stats(&self) -> Stats {
        self.envoy
            .stats()
            .await
            .expect("the admin interface answers")
    }

    /// Waits until `name` with `labels` has counted to `count`.
    pub async fn await_counter(&self, name: &str, labels: &[(&str, &str)], count: u64) {
        let reached = poll(PATIENCE, async || {
            (self.envoy.stats().await?.counter(name, labels) >= count).then_some(())
        });
        if reached.await.is_none() {
            let lines = self.stats().await.lines("promptcache_").join("\n");
            panic!("{name}{labels:?} did not reach {count}:\n{lines}");
        }
    }

    /// Panics when Envoy had to replace a VM: the filter trapped.
    pub async fn assert_no_vm_lost(&self) {
        let stats = self.stats().await;
        let reload = |name: &str| name.contains("vm_reload");
        assert!(
            stats.names().any(|name| reload(&name)),
            "Envoy counts reloads by another name"
        );
        let lost: Vec<_> = stats.lines("").into_iter().filter(|l| reload(l)).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }

    /// Waits until Envoy has read `bytes` from clients since its start: what was sent before has
    /// passed the filter, what is sent next comes in a piece of its own.
    pub async fn await_received(&self, bytes: u64) {
        self.await_counter("envoy_http_downstream_cx_rx_bytes_total", &LISTENER, bytes)
            .await;
    }

    /// Waits until no client's request is in the proxy.
    pub async fn await_idle(&self) -> Stats {
        let idle = poll(PATIENCE, async || {
            let stats = self.envoy.stats().await?;
            let active = stats.counter("envoy_http_downstream_rq_active", &LISTENER);
            (active == 0).then_some(stats)
        });
        idle.await.expect("every request ends")
    }

    /// Waits until `count` commits have landed since the start.
    pub async fn await_commits(&self, count: u64) {
        self.await_counter("promptcache_commit_total", &[("result", "ok")], count)
            .await;
    }

    /// Waits until a line of the access log matches, and returns it. What the filter decided is
    /// in `prompt_cache`, read from the text that Envoy writes there.
    pub async fn await_access_log(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let path = self.access_log();
        let line = poll(PATIENCE, async || {
            let text = std::fs::read_to_string(&path).ok()?;
            text.lines()
                .filter_map(access_log_line)
                .find(|line| wanted(line))
        });
        line.await.unwrap_or_else(|| {
            panic!(
                "no such line in the access log:\n{:?}",
                std::fs::read_to_string(self.access_log())
            )
        })
    }

    /// The lines of the access log that the filter has a say in, as soon as there are `count`.
    pub async fn access_log_lines(&self, count: usize) -> Vec<Value> {
        let path = self.access_log();
        let lines = poll(PATIENCE, async || {
            let text = std::fs::read_to_string(&path).ok()?;
            let lines: Vec<Value> = text
                .lines()
                .filter_map(access_log_line)
                .filter(|line| line["prompt_cache"].is_object())
                .collect();
            (lines.len() >= count).then_some(lines)
        });
        let lines = lines.await.expect("every exchange is logged");
        assert_eq!(lines.len(), count);
        lines
    }

    /// Where both programs write all they write.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn access_log(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }

    /// Stops the index service and starts it again on its store.
    pub async fn restart_index(&mut self) {
        let data_dir = self.folder.path().join("data");
        let restarted =
            self.index
                .restart(&self.layout, &data_dir, Output::LogIn(self.folder.path()));
        restarted
            .await
            .unwrap_or_else(|message| panic!("{message}"));
    }
}

/// Worker threads of a test that does not say how many.
fn default_concurrency() -> u32 {
    let given = std::env::var("CONCURRENCY").ok();
    given.map_or(1, |text| {
        text.parse()
            .unwrap_or_else(|e| panic!("CONCURRENCY={text}: {e}"))
    })
}

fn access_log_line(line: &str) -> Option<Value> {
    let mut line: Value = serde_json::from_str(line).ok()?;
    if let Some(text) = line["prompt_cache"].as_str() {
        line["prompt_cache"] = serde_json::from_str(text).ok()?;
    }
    Some(line)
}

/// A chat request with a bearer key.
pub fn chat(key: &str, body: &Value) -> Request {
    Request::post(CHAT, body.to_string()).header("authorization", &format!("Bearer {key}"))
}

/// A body for the model `demo`: `prefix` as a marked system prompt, then a question.
pub fn marked(prefix: &str) -> Value {
    json!({
        "model": "demo",
        "messages": [
            {"role": "system", "content": [
                {"type": "text", "text": prefix, "cache_control": {"type": "ephemeral"}},
            ]},
            {"role": "user", "content": "And now?"},
        ],
    })
}

/// The same, streamed, with the usage asked for.
pub fn marked_stream(prefix: &str) -> Value {
    let mut body = marked(prefix);
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    body
}

/// A body for the model `demo` of exactly `bytes` bytes, without a marker.
pub fn sized(bytes: usize, stream: bool) -> String {
    let [head, tail] = [
        format!(r#"{{"model":"demo","stream":{stream},"messages":[{{"role":"user","content":""#),
        r#""}]}"#.to_owned(),
    ];
    let filler = "x".repeat(bytes - head.len() - tail.len());
    head + &filler + &tail
}

/// A prefix of more tokens than the floor of 1024, different for each `topic`.
pub fn long_prefix(topic: &str) -> String {
    (0..300)
        .map(|n| format!("Fact {n} about {topic} is true.\n"))
        .collect()
}

/// A complete answer that used `prompt_tokens`.
pub fn completion(prompt_tokens: u64) -> Value {
    json!({
        "id": "c1", "object": "chat.completion", "created": 1, "model": "demo",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 2, "total_tokens": prompt_tokens + 2},
    })
}

/// The events of a streamed answer: two tokens, the end, the usage, `[DONE]`.
pub fn completion_events(prompt_tokens: u64) -> Vec<String> {
    let chunk = |choices: Value| json!({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "demo", "choices": choices});
    let token = |text: &str| {
        chunk(json!([{"index": 0, "delta": {"content": text}, "finish_reason": null}])).to_string()
    };
    let mut usage = chunk(json!([]));
    usage["usage"] = completion(prompt_tokens)["usage"].clone();
    vec![
        token("Ye"),
        token("s."),
        chunk(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}])).to_string(),
        usage.to_string(),
        "[DONE]".to_owned(),
    ]
}

/// What a usage object says about the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached {
    /// Tokens read.
    pub read: u64,
    /// Tokens created for five minutes.
    pub five_minutes: u64,
    /// Tokens created for an hour.
    pub one_hour: u64,
}

impl Cached {
    /// Tokens created.
    pub fn creation(&self) -> u64 {
        self.five_minutes + self.one_hour
    }

    /// Tokens read or created.
    pub fn total(&self) -> u64 {
        self.read + self.creation()
    }
}

/// Reads both spellings of the cache's share and panics when they disagree or are not there.
pub fn cache_of(usage: &Value) -> Cached {
    let number = |path: &str| {
        let value = usage.pointer(path).and_then(Value::as_u64);
        value.unwrap_or_else(|| panic!("no number at {path}: {usage}"))
    };
    let cached = Cached {
        read: number("/cache_read_input_tokens"),
        five_minutes: number("/cache_creation/ephemeral_5m_input_tokens"),
        one_hour: number("/cache_creation/ephemeral_1h_input_tokens"),
    };
    assert_eq!(
        number("/cache_creation/ephemeral_24h_input_tokens"),
        0,
        "{usage}"
    );
    assert_eq!(
        number("/cache_creation_input_tokens"),
        cached.creation(),
        "{usage}"
    );
    assert_eq!(
        number("/prompt_tokens_details/cached_tokens"),
        cached.read,
        "{usage}"
    );
    assert_eq!(
        number("/prompt_tokens_details/cache_write_tokens"),
        cached.creation(),
        "{usage}"
    );
    cached
}
