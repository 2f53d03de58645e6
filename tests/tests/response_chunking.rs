//! Backends' shapes in random chunks through a real Envoy: the bytes that arrive are those that the
//! rewriter gives for the whole.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use prompt_cache_core::response::BodyKind;
use prompt_cache_e2e::{
    backend::{Backend, Ending, Protocol, expected},
    http2,
    world::Options,
};

/// A sample of the shapes in core/tests/transcripts.
const TRANSCRIPTS: [(&str, &str); 12] = [
    (
        "azure",
        include_str!("../../core/tests/transcripts/azure.sse"),
    ),
    (
        "deepseek",
        include_str!("../../core/tests/transcripts/deepseek.sse"),
    ),
    (
        "error_mid_stream",
        include_str!("../../core/tests/transcripts/error_mid_stream.sse"),
    ),
    (
        "escaped_key",
        include_str!("../../core/tests/transcripts/escaped_key.sse"),
    ),
    (
        "fields",
        include_str!("../../core/tests/transcripts/fields.sse"),
    ),
    (
        "mistral",
        include_str!("../../core/tests/transcripts/mistral.sse"),
    ),
    (
        "multi_byte",
        include_str!("../../core/tests/transcripts/multi_byte.sse"),
    ),
    (
        "no_done",
        include_str!("../../core/tests/transcripts/no_done.sse"),
    ),
    (
        "openai",
        include_str!("../../core/tests/transcripts/openai.sse"),
    ),
    (
        "openrouter",
        include_str!("../../core/tests/transcripts/openrouter.sse"),
    ),
    (
        "two_usages",
        include_str!("../../core/tests/transcripts/two_usages.sse"),
    ),
    (
        "vllm_continuous",
        include_str!("../../core/tests/transcripts/vllm_continuous.sse"),
    ),
];
/// Random ways to cut each of them, per protocol and line ending.
const CUTS: u64 = 3;

fn cut_up(body: &[u8], random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let longest = *[1, 8, 40, 200, 2000].get(random.usize(..5)).unwrap();
    let mut chunks = vec![];
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, tail) = rest.split_at(random.usize(1..=longest).min(rest.len()));
        chunks.push(chunk.to_vec());
        rest = tail;
        // Never thousands of writes for one body.
        if chunks.len() > 200 {
            chunks.push(rest.to_vec());
            break;
        }
    }
    chunks
}

async fn transcripts(protocol: Protocol, client_h2: bool, trailers: bool, seed: u64) {
    let mut backend = Backend::start(protocol, Options::default()).await;
    let mut random = fastrand::Rng::with_seed(seed);
    for (name, text) in TRANSCRIPTS {
        for line_end in ["\n", "\r\n", "\r"] {
            let body = text.replace('\n', line_end).into_bytes();
            for _ in 0..CUTS {
                let asked = random.bool();
                let request = if asked {
                    backend.request(true)
                } else {
                    backend.request_unasked()
                };
                let expected = expected(&body, BodyKind::Sse, !asked, backend.answer());
                let chunks = cut_up(&body, &mut random);
                let address = backend.world.client.address();
                let client = backend.world.client;
                let before = backend.classified().await;
                let answer = tokio::spawn(async move {
                    if client_h2 {
                        http2::call(address, &request).await
                    } else {
                        Ok(client.call(&request).await)
                    }
                });
                let mut answering = backend.next().await;
                // Usage that is shown on the way depends on when the answer comes.
                backend.await_classified(before + 1).await;
                let mut headers = vec![("content-type", "text/event-stream")];
                if trailers {
                    headers.push(("trailer", "x-checksum"));
                }
                answering.head(200, &headers).await;
                let (last, others) = chunks.split_last().unwrap();
                for chunk in others {
                    answering.chunk(chunk).await;
                    // Lets Envoy see some chunks alone, others together.
                    if random.u8(..4) == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                let ending = match (trailers, random.bool()) {
                    (true, _) => Ending::Trailers,
                    (false, true) => Ending::WithLast,
                    (false, false) => Ending::Alone,
                };
                answering.finish(last, ending).await;
                let response = answer.await.unwrap().unwrap();
                assert_eq!(
                    String::from_utf8_lossy(&response.body),
                    String::from_utf8_lossy(&expected),
                    "{name}, {line_end:?}, {protocol:?}, client h2 {client_h2}, {ending:?}, asked {asked}, {:?}",
                    chunks.iter().map(Vec::len).collect::<Vec<_>>()
                );
                if trailers && protocol == Protocol::Http2 && client_h2 {
                    assert_eq!(response.trailers.get("x-checksum"), Some("1"));
                }
            }
        }
    }
}

#[tokio::test]
async fn http1() {
    transcripts(Protocol::Http1, false, false, 1).await;
}

#[tokio::test]
async fn http1_with_trailers() {
    transcripts(Protocol::Http1Trailers, false, true, 2).await;
}

#[tokio::test]
async fn http2() {
    transcripts(Protocol::Http2, true, false, 3).await;
}

#[tokio::test]
async fn http2_with_trailers() {
    transcripts(Protocol::Http2, true, true, 4).await;
}

#[tokio::test]
async fn http2_behind_http1() {
    transcripts(Protocol::Http2, false, true, 5).await;
}
