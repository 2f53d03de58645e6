//! Requests over HTTP/2, from the client, to the upstream, or both.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::pin::pin;

use prompt_cache_e2e::{
    client::Response,
    http::Request,
    http2::{Http2Upstream, Upload},
    world::{
        CHAT, Options, World, cache_of, chat, completion, completion_events, long_prefix, marked,
        marked_stream, sized,
    },
};
use serde_json::{Value, json};

const MIB: usize = 1024 * 1024;

fn without_marker(body: &Value) -> Value {
    let mut body = body.clone();
    let part = &mut body["messages"][0]["content"][0];
    part.as_object_mut().unwrap().remove("cache_control");
    body
}

/// Lets the upstream answer the upload that `response` finishes.
async fn exchange(
    world: &mut World,
    response: impl Future<Output = Response>,
) -> (Response, Request) {
    let mut response = pin!(response);
    let call = tokio::select! {
        early = &mut response => panic!("answered early: {} {}", early.status, early.text()),
        call = world.upstream.next() => call,
    };
    let seen = call.request.clone();
    call.json(200, completion(5000).to_string()).await;
    (response.await, seen)
}

/// Whether the filter is told the length, and how the body ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Length,
    LastFrame,
    EmptyFrame,
    Trailers,
}

#[tokio::test]
async fn from_the_client_in_every_shape() {
    let mut world = World::start().await;
    let mut written = 0;
    for shape in [
        Shape::Length,
        Shape::LastFrame,
        Shape::EmptyFrame,
        Shape::Trailers,
    ] {
        let body = marked(&long_prefix("http2"));
        let mut request = chat("a", &body);
        if shape == Shape::Length {
            let length = request.body.len().to_string();
            request = request.header("content-length", &length);
        }
        let mut upload = Upload::start(world.envoy.listener(), &request).await;
        let (pieces, last) = request.body.split_at(request.body.len() - 500);
        for piece in pieces.chunks(500) {
            assert!(upload.data(piece).await);
        }
        let response = async {
            match shape {
                Shape::LastFrame => upload.end_with(last).await,
                Shape::Length | Shape::EmptyFrame => {
                    upload.data(last).await;
                    upload.end().await
                }
                Shape::Trailers => {
                    upload.data(last).await;
                    upload.end_with_trailers(&[("x-checksum", "1")]).await
                }
            }
        };
        let (response, seen) = exchange(&mut world, response).await;
        assert_eq!(seen.json(), without_marker(&body), "{shape:?}");
        let length = seen.body.len().to_string();
        assert_eq!(seen.headers.get("content-length"), Some(&*length));
        assert_eq!(seen.headers.get("transfer-encoding"), None);
        let cached = cache_of(&response.usage());
        if written == 0 {
            written = cached.five_minutes;
            assert!(written > 1024);
            world.await_commits(1).await;
        } else {
            assert_eq!(cached.read, written, "{shape:?}");
        }
    }
}

/// A body that is nothing: an empty frame, or trailers straight after the headers.
#[tokio::test]
async fn without_a_body() {
    let mut world = World::start().await;
    for with_trailers in [false, true] {
        let upload = Upload::start(world.envoy.listener(), &Request::post(CHAT, "")).await;
        let response = async {
            if with_trailers {
                upload.end_with_trailers(&[("x-checksum", "1")]).await
            } else {
                upload.end().await
            }
        };
        let (response, seen) = exchange(&mut world, response).await;
        assert_eq!((response.status, seen.body.len()), (200, 0));
    }
}

/// Both sides HTTP/2, streamed: request trailers pass, the terminal frame ends the stream.
#[tokio::test]
async fn to_the_upstream() {
    let mut upstream = Http2Upstream::start().await;
    let world = World::with(Options {
        http2_upstream: Some(upstream.address()),
        ..Options::default()
    })
    .await;
    let body = marked_stream(&long_prefix("http2 upstream"));
    let request = chat("a", &body);
    let events = completion_events(5000);
    let events: Vec<_> = events.iter().map(|e| format!("data: {e}\n\n")).collect();
    let pieces: Vec<_> = events.iter().map(String::as_str).collect();

    // From an HTTP/1 client.
    let sent = world.client.send(&request).await;
    let call = upstream.next().await;
    assert_eq!(call.request.json(), without_marker(&body));
    let length = call.request.body.len().to_string();
    assert_eq!(call.request.headers.get("content-length"), Some(&*length));
    call.answer("text/event-stream", &pieces).await;
    let written = cache_of(&sent.finish().await.usage()).five_minutes;
    assert!(written > 1024);
    world.await_commits(1).await;

    // From an HTTP/2 client, with trailers and without.
    for trailers in [&[][..], &[("x-checksum", "1")]] {
        let mut upload = Upload::start(world.envoy.listener(), &request).await;
        assert!(upload.data(&request.body).await);
        let response = async {
            if trailers.is_empty() {
                upload.end().await
            } else {
                upload.end_with_trailers(trailers).await
            }
        };
        let upstream = async {
            let call = upstream.next().await;
            let seen = (call.request.clone(), call.trailers.clone());
            call.answer("text/event-stream", &pieces).await;
            seen
        };
        let (response, (seen, seen_trailers)) = tokio::join!(response, upstream);
        assert_eq!(seen.json(), without_marker(&body));
        let length = seen.body.len().to_string();
        assert_eq!(seen.headers.get("content-length"), Some(&*length));
        for (name, value) in trailers {
            assert_eq!(seen_trailers.get(name), Some(*value));
        }
        assert_eq!(cache_of(&response.usage()).read, written);
        assert!(response.text().ends_with("data: [DONE]\n\n"));
    }
}

/// The limit is the same as over HTTP/1, although Envoy derives it from the stream's window here.
#[tokio::test]
async fn the_shipped_limit_from_both_sides() {
    const SHIPPED: usize = 32 * MIB;
    let mut world = World::start().await;
    for size in [MIB - 1, MIB, MIB + 1, 20 * MIB, SHIPPED] {
        let request = Request::post(CHAT, sized(size, false));
        let mut upload = Upload::start(world.envoy.listener(), &request).await;
        let response = async {
            upload.data(&request.body).await;
            upload.end().await
        };
        let (response, seen) = exchange(&mut world, response).await;
        assert_eq!(response.status, 200, "{size}: {}", response.text());
        assert!(seen.body == request.body, "{size}: {}", seen.body.len());
    }
    let over = Request::post(CHAT, sized(SHIPPED + 1, false));
    let length = over.body.len().to_string();
    let declared = over.clone().header("content-length", &length);
    let mut upload = Upload::start(world.envoy.listener(), &declared).await;
    upload.data(&over.body).await;
    let response = upload.end().await;
    assert_eq!(response.status, 400, "{}", response.text());
    assert_eq!(response.json()["error"]["code"], "body_read_failed");
    // Without a length Envoy finds out first.
    let mut upload = Upload::start(world.envoy.listener(), &over).await;
    upload.data(&over.body).await;
    assert_eq!(upload.end().await.status, 413);
    world.upstream.assert_untouched();
}

/// A limit as small as an edge proxy's: the byte that is too many may be the one that ends the
/// body, and the filter acts on a whole that Envoy has already given up.
#[tokio::test]
async fn a_small_limit_from_both_sides() {
    const MAX: usize = 100_000;
    let mut world = World::with(Options {
        buffer_bytes_max: Some(MAX as u64),
        plugin: json!({"max_request_bytes": MAX}),
        ..Options::default()
    })
    .await;
    small_limit(&mut world, MAX, &[400, 413]).await;
    // Envoy's limit below the filter's.
    let mut world = World::with(Options {
        buffer_bytes_max: Some(MAX as u64),
        ..Options::default()
    })
    .await;
    small_limit(&mut world, MAX, &[413]).await;
}

async fn small_limit(world: &mut World, max: usize, statuses: &[u16]) {
    let address = world.envoy.listener();
    let sized = |bytes: usize, stream: bool| {
        let mut body = marked_stream(&long_prefix("small limit"));
        body["stream"] = stream.into();
        body["user"] = "".into();
        let missing = bytes - body.to_string().len();
        body["user"] = "x".repeat(missing).into();
        chat("a", &body)
    };
    for (bytes, stream) in [(max, false), (max, true), (max - 1, true)] {
        let request = sized(bytes, stream);
        let upload = Upload::start(address, &request).await;
        let (response, seen) = exchange(world, upload.end_with(&request.body)).await;
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(seen.json()["user"], request.json()["user"]);
    }
    for bytes in [max + 1, max + 500, max * 2] {
        for stream in [false, true] {
            let request = sized(bytes, stream);
            let upload = Upload::start(address, &request).await;
            let response = upload.end_with(&request.body).await;
            assert!(statuses.contains(&response.status), "{}", response.text());
            let mut upload = Upload::start(address, &request).await;
            upload.data(&request.body).await;
            let response = upload.end_with_trailers(&[("x-checksum", "1")]).await;
            assert!(statuses.contains(&response.status), "{}", response.text());
        }
    }
    world.upstream.assert_untouched();
    world.await_idle().await;
    // Nothing of it broke the VM.
    let request = sized(max, false);
    let upload = Upload::start(address, &request).await;
    let (response, _) = exchange(world, upload.end_with(&request.body)).await;
    assert!(cache_of(&response.usage()).total() > 1024);
}

/// The stream is taken back, then the connection breaks; what follows is as good as ever.
#[tokio::test]
async fn a_client_that_goes_away_mid_upload() {
    let mut world = World::start().await;
    let request = chat("a", &marked(&long_prefix("http2 gone")));
    for by_reset in [true, false] {
        let mut upload = Upload::start(world.envoy.listener(), &request).await;
        assert!(upload.data(&request.body[..request.body.len() / 2]).await);
        world
            .await_counter(
                "envoy_http_downstream_rq_total",
                &[("envoy_http_conn_manager_prefix", "llm")],
                if by_reset { 1 } else { 2 },
            )
            .await;
        if by_reset {
            upload.cancel();
        } else {
            upload.leave();
        }
        world.await_idle().await;
    }
    let stats = world.stats().await;
    for name in [
        "envoy_cluster_upstream_rq_total",
        "envoy_cluster_upstream_cx_total",
    ] {
        assert_eq!(
            stats.counter(name, &[("envoy_cluster_name", "upstream")]),
            0
        );
    }
    for name in [
        "promptcache_requests_total",
        "promptcache_marker_requests_total",
    ] {
        assert_eq!(stats.counter(name, &[]), 0, "{name}");
    }
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    assert!(cache_of(&response.usage()).five_minutes > 1024);
}
