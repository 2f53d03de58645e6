//! Encodings and headers of a response: what may change loses what described it, what may not
//! arrives as it was.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use prompt_cache_core::response::BodyKind;
use prompt_cache_e2e::{
    backend::{Backend, Ending, Protocol, expected},
    faults::Route,
    http::Request,
    world::{CHAT, Options, World, chat, completion, completion_events, long_prefix, marked},
};
use serde_json::json;

/// A gzip member of `{"usage":{"prompt_tokens":5000}}`, stored.
fn gzipped() -> Vec<u8> {
    let text = br#"{"usage":{"prompt_tokens":5000}}"#;
    let length = u16::try_from(text.len()).unwrap();
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(text);
    let mut crc = !0u32;
    for byte in text {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    out.extend_from_slice(&(!crc).to_le_bytes());
    out.extend_from_slice(&u32::from(length).to_le_bytes());
    out
}

const DESCRIBING: [(&str, &str); 4] = [
    ("etag", "\"abc\""),
    (
        "digest",
        "sha-256=4REjxQ4yrqUVicfSKYNO/cF9zNj5ANbzgDZt3/h3Qxo=",
    ),
    (
        "content-digest",
        "sha-256=:4REjxQ4yrqUVicfSKYNO/cF9zNj5ANbzgDZt3/h3Qxo=:",
    ),
    ("content-md5", "Q2hlY2sgSW50ZWdyaXR5IQ=="),
];

#[tokio::test]
async fn an_encoded_response_passes_with_a_reason() {
    let mut world = World::start().await;
    let body = gzipped();
    let length = body.len().to_string();
    for (count, (encoding, kind)) in (1..).zip([
        ("gzip", "application/json"),
        ("br", "application/json"),
        ("zstd", "text/event-stream"),
        ("GZIP", "text/event-stream"),
        ("identity, gzip", "application/json"),
    ]) {
        let request =
            chat("a", &marked(&long_prefix("encoded"))).header("accept-encoding", "gzip, br");
        let sent = world.client.send(&request).await;
        let mut call = world.upstream.next().await;
        assert_eq!(call.request.headers.get("accept-encoding"), None);
        let mut headers = vec![
            ("content-type", kind),
            ("content-encoding", encoding),
            ("content-length", &*length),
        ];
        headers.extend(DESCRIBING);
        call.head(200, &headers).await;
        call.raw(&body).await;
        let response = sent.finish().await;
        assert_eq!(response.body, body, "{encoding}");
        for (name, value) in headers {
            assert_eq!(response.headers.get(name), Some(value), "{encoding}");
        }
        world
            .await_counter("promptcache_bypass_total", &[("reason", "encoded")], count)
            .await;
    }
    world
        .await_counter(
            "promptcache_commit_vetoed_total",
            &[("reason", "no_usage")],
            5,
        )
        .await;
    assert!(world.faults.seen(Route::Commit).is_empty());
}

#[tokio::test]
async fn identity_is_no_encoding() {
    let mut backend = Backend::start(Protocol::Http1, Options::default()).await;
    for encoding in ["identity", "Identity", ""] {
        let body = completion(5000).to_string();
        let sent = backend.world.client.send(&backend.request(false)).await;
        let mut answering = backend.next().await;
        let headers = [
            ("content-type", "application/json"),
            ("content-encoding", encoding),
        ];
        answering.head(200, &headers).await;
        answering.finish(&body, Ending::WithLast).await;
        let expected = expected(body.as_bytes(), BodyKind::Json, false, backend.answer());
        assert_eq!(sent.finish().await.body, expected, "{encoding:?}");
    }
}

/// `content-length` is right or absent, and the digests of the old body are gone.
#[tokio::test]
async fn headers_that_no_longer_describe_the_body_are_gone() {
    let mut backend = Backend::start(Protocol::Http1, Options::default()).await;
    let events: String = completion_events(5000)
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    for (kind, stream, body) in [
        ("application/json", false, completion(5000).to_string()),
        ("text/event-stream; charset=utf-8", true, events),
    ] {
        let sent = backend.world.client.send(&backend.request(stream)).await;
        let length = body.len().to_string();
        let mut headers = vec![
            ("content-type", kind),
            ("content-length", &*length),
            ("x-kept", "1"),
            ("cache-control", "no-store"),
        ];
        headers.extend(DESCRIBING);
        headers.push(("repr-digest", "sha-256=:abc=:"));
        let mut answering = backend.next().await;
        answering.head(200, &headers).await;
        match answering {
            prompt_cache_e2e::backend::Answering::H1(mut call) => call.raw(&body).await,
            prompt_cache_e2e::backend::Answering::H2(_) => unreachable!("HTTP/1.1 here"),
        }
        let response = sent.finish().await;
        for (name, _) in DESCRIBING {
            assert_eq!(response.headers.get(name), None, "{kind}");
        }
        assert_eq!(response.headers.get("repr-digest"), None, "{kind}");
        assert_eq!(response.headers.get("content-type"), Some(kind));
        assert_eq!(response.headers.get("x-kept"), Some("1"));
        assert_eq!(response.headers.get("cache-control"), Some("no-store"));
        if let Some(length) = response.headers.get("content-length") {
            assert_eq!(length, response.body.len().to_string());
        }
        let kind = if stream {
            BodyKind::Sse
        } else {
            BodyKind::Json
        };
        let expected = expected(body.as_bytes(), kind, false, backend.answer());
        assert!(response.body == expected, "{}", response.text());
    }
}

#[tokio::test]
async fn headers_of_a_body_that_passes_stay() {
    let mut world = World::start().await;
    let body = completion(5000).to_string();
    let mut unknown = marked("x");
    unknown["model"] = json!("unknown");
    let length = body.len().to_string();
    for (request, kind) in [
        // No policy, nothing to edit; and a kind of body that carries no usage.
        (chat("a", &unknown), "application/json"),
        (chat("a", &marked("x")), "text/html"),
        (Request::post("/v1/embeddings", "{}"), "application/json"),
    ] {
        let sent = world.client.send(&request).await;
        let mut call = world.upstream.next().await;
        let mut headers = vec![("content-type", kind), ("content-length", &*length)];
        headers.extend(DESCRIBING);
        call.head(200, &headers).await;
        call.raw(&body).await;
        let response = sent.finish().await;
        assert_eq!(response.text(), body);
        for (name, value) in headers {
            assert_eq!(
                response.headers.get(name),
                Some(value),
                "{}",
                request.target
            );
        }
    }
    world
        .await_counter("promptcache_bypass_total", &[("reason", "content_type")], 1)
        .await;
}

#[tokio::test]
async fn bodies_without_bytes() {
    let mut backend = Backend::start(Protocol::Http1, Options::default()).await;
    let mut vetoed = 0;
    for (status, headers) in [
        (204, vec![]),
        (304, vec![("etag", "\"abc\"")]),
        (
            200,
            vec![
                ("content-length", "0"),
                ("content-type", "application/json"),
            ],
        ),
        (
            200,
            vec![
                ("content-length", "0"),
                ("content-type", "text/event-stream"),
                ("etag", "\"e\""),
            ],
        ),
    ] {
        let sent = backend.world.client.send(&backend.request(true)).await;
        let mut call = match backend.next().await {
            prompt_cache_e2e::backend::Answering::H1(call) => call,
            prompt_cache_e2e::backend::Answering::H2(_) => unreachable!("HTTP/1.1 here"),
        };
        let lines: String = headers
            .iter()
            .map(|(n, v)| format!("{n}: {v}\r\n"))
            .collect();
        call.raw(format!("HTTP/1.1 {status} X\r\n{lines}\r\n"))
            .await;
        let response = sent.finish().await;
        assert_eq!((response.status, response.body.len()), (status, 0));
        for (name, value) in headers {
            assert_eq!(response.headers.get(name), Some(value), "{status}");
        }
        vetoed += 1;
    }
    // An event stream of no events, in chunks: nothing comes, nothing is lost, it ends.
    for ending in [Ending::WithLast, Ending::Alone] {
        let sent = backend.world.client.send(&backend.request(true)).await;
        let mut answering = backend.next().await;
        answering
            .head(200, &[("content-type", "text/event-stream")])
            .await;
        answering.finish("", ending).await;
        assert_eq!(sent.finish().await.text(), "");
        vetoed += 1;
    }
    // All of them were reads: there was nothing to commit, and nothing else went wrong.
    backend.await_classified(vetoed).await;
    backend
        .world
        .await_counter("promptcache_requests_total", &[], vetoed + 1)
        .await;
    assert_eq!(backend.world.faults.seen(Route::Commit).len(), 1);
}

/// A HEAD request to the chat path is none of the filter's business.
#[tokio::test]
async fn head_requests_pass() {
    let mut world = World::start().await;
    let mut connection = world.client.connect().await;
    let head = format!("HEAD {CHAT} HTTP/1.1\r\nhost: llm\r\n\r\n");
    connection.write(head.as_bytes()).await.unwrap();
    let mut call = world.upstream.next().await;
    assert_eq!(call.request.method, "HEAD");
    call.raw("HTTP/1.1 200 OK\r\ncontent-length: 17\r\netag: \"abc\"\r\n\r\n")
        .await;
    let answer = connection.read_head().await.unwrap().unwrap();
    assert_eq!(answer.headers.get("content-length"), Some("17"));
    assert_eq!(answer.headers.get("etag"), Some("\"abc\""));
}

/// An HTTP/1.0 client reads to the end of the connection.
#[tokio::test]
async fn http_1_0_clients() {
    let options = Options {
        members: vec![(
            "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_protocol_options",
            json!({"accept_http_10": true, "default_host_for_http_10": "llm"}),
        )],
        ..Options::default()
    };
    let mut backend = Backend::start(Protocol::Http1, options).await;
    let events: String = completion_events(5000)
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    for (stream, kind, content_type, body) in [
        (true, BodyKind::Sse, "text/event-stream", events),
        (
            false,
            BodyKind::Json,
            "application/json",
            completion(5000).to_string(),
        ),
    ] {
        let bytes = backend.request(stream).encode("llm");
        let text = String::from_utf8(bytes)
            .unwrap()
            .replacen("HTTP/1.1", "HTTP/1.0", 1);
        let mut connection = backend.world.client.connect().await;
        connection.write(text.as_bytes()).await.unwrap();
        let mut answering = backend.next().await;
        answering.head(200, &[("content-type", content_type)]).await;
        answering.finish(&body, Ending::Alone).await;
        let head = connection.read_head().await.unwrap().unwrap();
        assert_eq!(head.status, 200);
        assert_eq!(head.headers.get("transfer-encoding"), None);
        let found = connection.read_body().await.unwrap();
        let expected = expected(body.as_bytes(), kind, false, backend.answer());
        if let Some(length) = head.headers.get("content-length") {
            assert_eq!(length, expected.len().to_string());
        }
        assert_eq!(
            String::from_utf8_lossy(&found),
            String::from_utf8_lossy(&expected)
        );
    }
}
