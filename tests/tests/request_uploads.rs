//! How a request's body arrives: in crumbs, slowly, after a question, or not to its end.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use prompt_cache_e2e::{
    client::Response,
    http::{Connection, Request, encode_chunk},
    world::{
        CHAT, Options, World, cache_of, chat, completion, long_prefix, marked, marked_stream, sized,
    },
};
use serde_json::{Value, json};

const UPSTREAM: [(&str, &str); 1] = [("envoy_cluster_name", "upstream")];

/// A request's bytes, up to and without its body.
fn head_of(request: &Request, world: &World) -> Vec<u8> {
    let mut bytes = request.encode(&world.client.address().to_string());
    bytes.truncate(bytes.len() - request.body.len());
    bytes
}

async fn answer(mut connection: Connection) -> Response {
    let head = connection.read_head().await.unwrap().unwrap();
    Response {
        status: head.status,
        headers: head.headers,
        body: connection.read_body().await.unwrap(),
        trailers: std::mem::take(&mut connection.trailers),
    }
}

/// What the upstream must see of `body`.
fn without_markers(body: &Value) -> Value {
    let mut body = body.clone();
    for message in body["messages"].as_array_mut().unwrap() {
        for part in message["content"].as_array_mut().into_iter().flatten() {
            part.as_object_mut().unwrap().remove("cache_control");
        }
    }
    body
}

/// Calls and connections that the upstream has seen.
async fn upstream_calls(world: &World) -> u64 {
    let stats = world.stats().await;
    stats.counter("envoy_cluster_upstream_rq_total", &UPSTREAM)
        + stats.counter("envoy_cluster_upstream_cx_total", &UPSTREAM)
}

#[tokio::test]
async fn a_body_in_one_byte_chunks() {
    let mut world = World::start().await;
    let body = marked_stream(&long_prefix("crumbs"));
    let mut request = chat("a", &body).header("transfer-encoding", "chunked");
    let crumbs = request.body.chunks(1).map(encode_chunk);
    request.body = crumbs.chain([b"0\r\n\r\n".to_vec()]).flatten().collect();
    let (response, seen) = world.exchange(&request, &completion(5000)).await;
    assert_eq!(seen.json(), without_markers(&body));
    let length = seen.body.len().to_string();
    assert_eq!(seen.headers.get("content-length"), Some(&*length));
    assert_eq!(seen.headers.get("transfer-encoding"), None);
    assert!(cache_of(&response.usage()).five_minutes > 1024);
}

/// Each piece arrives alone, and only the last one lets anything out.
#[tokio::test]
async fn a_slow_body_leaves_when_it_is_whole() {
    const PIECES: usize = 24;
    let mut world = World::start().await;
    let body = marked(&long_prefix("patience"));
    for with_length in [true, false] {
        let mut request = chat("a", &body);
        if !with_length {
            request = request.header("transfer-encoding", "chunked");
        }
        let mut connection = world.client.connect().await;
        let before = world.stats().await.counter(
            "envoy_http_downstream_cx_rx_bytes_total",
            &[("envoy_http_conn_manager_prefix", "llm")],
        );
        let calls_before = upstream_calls(&world).await;
        let mut sent = head_of(&request, &world);
        connection.write(&sent).await.unwrap();
        let mut total = sent.len() as u64;
        for piece in request.body.chunks(request.body.len().div_ceil(PIECES)) {
            world.await_received(before + total).await;
            assert_eq!(upstream_calls(&world).await, calls_before);
            sent = if with_length {
                piece.to_vec()
            } else {
                encode_chunk(piece)
            };
            connection.write(&sent).await.unwrap();
            total += sent.len() as u64;
        }
        if !with_length {
            world.await_received(before + total).await;
            assert_eq!(upstream_calls(&world).await, calls_before);
            connection.write(b"0\r\n\r\n").await.unwrap();
        }
        let call = world.upstream.next().await;
        assert_eq!(call.request.json(), without_markers(&body));
        call.json(200, completion(5000).to_string()).await;
        let response = answer(connection).await;
        assert!(cache_of(&response.usage()).total() > 1024);
        world.await_commits(1).await;
    }
}

/// Request trailers end the body; Envoy drops them here, as its HTTP/1 codec does by default.
#[tokio::test]
async fn trailers_after_a_chunked_body() {
    let mut world = World::start().await;
    let body = marked(&long_prefix("trailers"));
    let mut request = chat("a", &body).header("transfer-encoding", "chunked");
    request.body = [&*encode_chunk(&request.body), b"0\r\nx-checksum: 1\r\n\r\n"].concat();
    let (response, seen) = world.exchange(&request, &completion(5000)).await;
    assert_eq!(seen.json(), without_markers(&body));
    assert!(cache_of(&response.usage()).five_minutes > 1024);
}

#[tokio::test]
async fn expect_100_continue() {
    const MAX: usize = 100_000;
    let mut world = World::with(Options {
        plugin: json!({"max_request_bytes": MAX}),
        buffer_bytes_max: Some(MAX as u64),
        ..Options::default()
    })
    .await;
    let body = marked(&long_prefix("expect"));
    let request = chat("a", &body).header("expect", "100-continue");
    let mut connection = world.client.connect().await;
    connection.write(&head_of(&request, &world)).await.unwrap();
    assert_eq!(interim(&mut connection).await, "HTTP/1.1 100 Continue");
    assert_eq!(upstream_calls(&world).await, 0);
    connection.write(&request.body).await.unwrap();
    let call = world.upstream.next().await;
    assert_eq!(call.request.json(), without_markers(&body));
    assert_eq!(call.request.headers.get("expect"), None);
    call.json(200, completion(5000).to_string()).await;
    let response = answer(connection).await;
    assert!(cache_of(&response.usage()).five_minutes > 1024);

    // A body that is declared too large is refused before any of it is sent. The go-ahead is
    // Envoy's own, and comes first.
    let request = Request::post(CHAT, sized(MAX + 1, false)).header("expect", "100-continue");
    let mut connection = world.client.connect().await;
    connection.write(&head_of(&request, &world)).await.unwrap();
    let response = answer(connection).await;
    assert_eq!(response.status, 400, "{}", response.text());
    assert_eq!(response.json()["error"]["code"], "body_read_failed");
    world.upstream.assert_untouched();
}

/// The status line of an interim response, which is read off the connection.
async fn interim(connection: &mut Connection) -> String {
    use tokio::io::AsyncReadExt;
    let mut bytes = vec![];
    prompt_cache_e2e::deadline::within("an interim response", async {
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(connection.stream().read_u8().await.unwrap());
        }
    })
    .await;
    let text = String::from_utf8(bytes).unwrap();
    text.lines().next().unwrap_or_default().to_owned()
}

/// Nothing goes out, nothing is counted as a request, and the next one is as good as ever.
#[tokio::test]
async fn a_client_that_goes_away_mid_upload() {
    let mut world = World::start().await;
    let body = marked(&long_prefix("gone"));
    let whole = chat("a", &body);
    let half = whole.body.len() / 2;
    for with_length in [true, false] {
        for by_reset in [true, false] {
            let mut request = whole.clone();
            if !with_length {
                request = request.header("transfer-encoding", "chunked");
                request.body = encode_chunk(&request.body);
            }
            let before = world.stats().await.counter(
                "envoy_http_downstream_cx_rx_bytes_total",
                &[("envoy_http_conn_manager_prefix", "llm")],
            );
            let bytes = request.encode(&world.client.address().to_string());
            let cut = bytes.len() - half;
            let mut connection = world.client.connect().await;
            connection.write(&bytes[..cut]).await.unwrap();
            world.await_received(before + cut as u64).await;
            if by_reset {
                connection.reset();
            } else {
                drop(connection);
            }
            world.await_idle().await;
        }
    }
    let line = world
        .await_access_log(|line| line["flags"] == "DC" || line["flags"] == "DPE")
        .await;
    assert_eq!(line["prompt_cache"], Value::Null, "{line}");
    assert_eq!(upstream_calls(&world).await, 0);
    let stats = world.stats().await;
    for name in [
        "promptcache_marker_requests_total",
        "promptcache_requests_total",
        "promptcache_classify_total",
        "promptcache_body_read_failed_total",
        "promptcache_bypass_total",
    ] {
        assert_eq!(stats.counter(name, &[]), 0, "{name}");
    }
    let (response, _) = world.exchange(&whole, &completion(5000)).await;
    let written = cache_of(&response.usage());
    assert!(written.five_minutes > 1024, "{written:?}");
}
