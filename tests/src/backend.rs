//! One world whose LLM speaks HTTP/1.1 or HTTP/2: the same answer, chunk by chunk, over either.

use prompt_cache_core::{
    ledger::Split,
    response::{Answer, BodyKind, Output, RewriteOptions, Rewriter},
};
use serde_json::{Value, json};

use crate::{
    client::Incoming,
    deadline::{PATIENCE, poll},
    faults::Route,
    http::{Request, encode_chunk},
    http2::{Http2Call, Http2Upstream},
    upstream::Call,
    world::{Options, World, cache_of, chat, completion, long_prefix, marked, marked_stream},
};

/// How Envoy and the LLM talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 as shipped: Envoy drops trailers.
    Http1,
    /// HTTP/1.1 with `enable_trailers`, towards the client too.
    Http1Trailers,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Http1, Self::Http1Trailers, Self::Http2];
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In the same write, or frame, as the last chunk.
    WithLast,
    /// On its own.
    Alone,
    /// With trailers.
    Trailers,
}

/// A world with one prefix in the ledger, so that every marked request reads the same tokens.
pub struct Backend {
    /// The world; its own upstream serves HTTP/1.1.
    pub world: World,
    /// The tokens that a request with [`Backend::request`] reads.
    pub read: u64,
    h2: Option<Http2Upstream>,
}

/// The LLM's side of one exchange.
pub enum Answering {
    /// Over HTTP/1.1.
    H1(Call),
    /// Over HTTP/2.
    H2(Http2Call),
}

const KEY: &str = "backend";
const TOPIC: &str = "a backend";

impl Backend {
    /// Starts the world and commits the prefix. Without leases, as the point of a backend is when
    /// the answer to a callout comes.
    pub async fn start(protocol: Protocol, mut options: Options) -> Self {
        if let Some(plugin) = options.plugin.as_object_mut() {
            plugin.insert("lease_bytes_max".to_owned(), json!(0));
        } else {
            options.plugin = json!({"lease_bytes_max": 0});
        }
        let mut h2 = None;
        match protocol {
            Protocol::Http1 => {}
            Protocol::Http1Trailers => {
                let kind =
                    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
                options.members.extend([
                    (
                        "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_protocol_options",
                        json!({"enable_trailers": true}),
                    ),
                    (
                        "/static_resources/clusters/0/typed_extension_protocol_options",
                        json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": kind,
                            "explicit_http_config": {"http_protocol_options": {"enable_trailers": true}}}}),
                    ),
                ]);
            }
            Protocol::Http2 => {
                let upstream = Http2Upstream::start().await;
                options.http2_upstream = Some(upstream.address());
                h2 = Some(upstream);
            }
        }
        let mut backend = Self {
            world: World::with(options).await,
            read: 0,
            h2,
        };
        let body = completion(1 << 30).to_string();
        let request = chat(KEY, &marked(&long_prefix(TOPIC)));
        let sent = backend.world.client.send(&request).await;
        let mut answering = backend.next().await;
        answering
            .head(200, &[("content-type", "application/json")])
            .await;
        answering.finish(&body, Ending::WithLast).await;
        backend.read = cache_of(&sent.finish().await.usage()).total();
        backend.world.await_commits(1).await;
        backend
    }

    /// The marked request, its usage asked for when it is streamed.
    pub fn request(&self, stream: bool) -> Request {
        let prefix = long_prefix(TOPIC);
        chat(
            KEY,
            &if stream {
                marked_stream(&prefix)
            } else {
                marked(&prefix)
            },
        )
    }

    /// The same, streamed, without asking for usage.
    pub fn request_unasked(&self) -> Request {
        let mut body = marked(&long_prefix(TOPIC));
        body["stream"] = json!(true);
        chat(KEY, &body)
    }

    /// What the service says about these requests.
    pub fn answer(&self) -> Answer {
        Answer::Split(Split {
            read: self.read,
            ..Split::default()
        })
    }

    /// The next request at the LLM.
    pub async fn next(&mut self) -> Answering {
        match &mut self.h2 {
            Some(upstream) => Answering::H2(upstream.next().await),
            None => Answering::H1(self.world.upstream.next().await),
        }
    }

    /// Waits until Envoy has read all of the LLM's answer.
    pub async fn await_upstream_idle(&self) {
        let labels = [("envoy_cluster_name", "upstream")];
        let idle = poll(PATIENCE, async || {
            let stats = self.world.envoy.stats().await?;
            (stats.counter("envoy_cluster_upstream_rq_active", &labels) == 0).then_some(())
        });
        assert!(idle.await.is_some(), "the upstream request does not end");
    }

    /// Waits until the filter has `count` more classifications than `before`.
    pub async fn await_classified(&self, count: u64) {
        self.world
            .await_counter("promptcache_classify_total", &[], count)
            .await;
    }

    /// Classifications the filter has settled.
    pub async fn classified(&self) -> u64 {
        self.world
            .stats()
            .await
            .counter("promptcache_classify_total", &[])
    }

    /// Calls that reached the index service to be classified.
    pub fn asked(&self) -> usize {
        self.world.faults.seen(Route::Classify).len()
    }
}

impl Answering {
    /// The request as the LLM sees it.
    pub fn request(&self) -> &Request {
        match self {
            Self::H1(call) => &call.request,
            Self::H2(call) => &call.request,
        }
    }

    /// Sends status and headers.
    pub async fn head(&mut self, status: u16, headers: &[(&str, &str)]) {
        match self {
            Self::H1(call) => call.head(status, headers).await,
            Self::H2(call) => call.head(status, headers),
        }
    }

    /// Sends one chunk or frame.
    pub async fn chunk(&mut self, bytes: impl AsRef<[u8]>) {
        match self {
            Self::H1(call) => call.chunk(bytes).await,
            Self::H2(call) => call.data(bytes, false).await,
        }
    }

    /// Sends the last chunk, and the end.
    pub async fn finish(mut self, last: impl AsRef<[u8]>, ending: Ending) {
        let last = last.as_ref();
        if ending != Ending::WithLast && !last.is_empty() {
            self.chunk(last).await;
        }
        match (self, ending) {
            (Self::H1(mut call), Ending::WithLast) => {
                let last = if last.is_empty() {
                    vec![]
                } else {
                    encode_chunk(last)
                };
                call.raw([&last, &b"0\r\n\r\n"[..]].concat()).await;
            }
            (Self::H1(call), Ending::Alone) => call.end().await,
            (Self::H1(call), Ending::Trailers) => call.end_with_trailers(&TRAILERS).await,
            (Self::H2(mut call), Ending::WithLast) => call.data(last, true).await,
            (Self::H2(mut call), Ending::Alone) => call.data([], true).await,
            (Self::H2(call), Ending::Trailers) => call.end_with_trailers(&TRAILERS),
        }
    }

    /// Breaks off.
    pub fn reset(self) {
        match self {
            Self::H1(call) => call.reset(),
            Self::H2(call) => call.reset(),
        }
    }
}

/// The trailers of [`Ending::Trailers`].
pub const TRAILERS: [(&str, &str); 1] = [("x-checksum", "1")];

/// What the client should get for a body that is not changed on the way, whatever its chunks: the
/// rewriter itself, on the whole body.
pub fn expected(body: &[u8], kind: BodyKind, drop_usage_only: bool, answer: Answer) -> Vec<u8> {
    let options = RewriteOptions {
        api: prompt_cache_core::api::Api::Chat,
        kind,
        drop_usage_only,
        event_bytes_max: 1 << 20,
        held_bytes_max: 256 << 10,
        scrub: false,
    };
    let mut rewriter = Rewriter::new(options, Some(answer));
    let mut out = vec![];
    for (output, bytes) in [(rewriter.push(body), body)] {
        match output {
            Output::Unchanged => out.extend_from_slice(bytes),
            Output::Replace(bytes) => out.extend(bytes),
        }
    }
    if let Output::Replace(bytes) = rewriter.end() {
        out.extend(bytes);
    }
    out
}

/// The body of a response that must arrive whole.
pub async fn whole(incoming: Incoming) -> Result<Vec<u8>, String> {
    match incoming.try_finish().await {
        Ok(response) => Ok(response.body),
        Err((error, seen)) => Err(format!("{error}, after {} bytes: {seen:.200}", seen.len())),
    }
}

/// `value` as compact JSON with `usage` in front of everything or behind it, `bytes` of filler.
pub fn large_json(usage_first: bool, bytes: usize, prompt_tokens: u64) -> String {
    let usage: Value = completion(prompt_tokens)["usage"].clone();
    let filler = "0123456789abcdef".repeat(bytes / 16);
    let choices = format!(
        r#""choices":[{{"index":0,"message":{{"role":"assistant","content":"{filler}"}},"finish_reason":"stop"}}]"#
    );
    if usage_first {
        format!(r#"{{"usage":{usage},{choices}}}"#)
    } else {
        format!(r#"{{{choices},"usage":{usage}}}"#)
    }
}
