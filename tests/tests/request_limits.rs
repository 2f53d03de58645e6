//! Bodies around the limits, Envoy's and the filter's, and what large ones cost the VM.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use prompt_cache_e2e::{
    client::Response,
    deadline::within,
    http::{Request, encode_chunk},
    world::{CHAT, Options, World, chat, completion, long_prefix, marked, sized},
};
use serde_json::{Value, json};

const MIB: usize = 1024 * 1024;
/// The limit of tests that set one, Envoy's and the filter's alike.
const MAX: usize = 100_000;
/// What `include_usage` adds to a streamed body.
const GROWTH: usize = r#","stream_options":{"include_usage":true}"#.len();

async fn limited() -> World {
    World::with(Options {
        plugin: json!({"max_request_bytes": MAX}),
        buffer_bytes_max: Some(MAX as u64),
        ..Options::default()
    })
    .await
}

fn post(body: String) -> Request {
    Request::post(CHAT, body).header("authorization", "Bearer a")
}

/// The same request without `content-length`, in chunks of `bytes_max`.
fn chunked(request: &Request, bytes_max: usize) -> Request {
    let mut chunked = request.clone().header("transfer-encoding", "chunked");
    let chunks = request.body.chunks(bytes_max).map(encode_chunk);
    chunked.body = chunks.chain([b"0\r\n\r\n".to_vec()]).flatten().collect();
    chunked
}

fn assert_too_large(response: &Response, how: &str) {
    assert_eq!(response.status, 400, "{how}: {}", response.text());
    let error = &response.json()["error"];
    assert_eq!(error["code"], "body_read_failed", "{how}");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.starts_with("failed to read request body: "),
        "{how}: {message}"
    );
}

#[tokio::test]
async fn bodies_around_envoys_default_limit() {
    let mut world = World::start().await;
    for size in [MIB - 1, MIB, MIB + 1] {
        let request = post(sized(size, false));
        for sent in [request.clone(), chunked(&request, 16 * 1024)] {
            let (response, seen) = world.exchange(&sent, &completion(5000)).await;
            assert_eq!(response.status, 200);
            assert!(seen.body == request.body, "{size}: {}", seen.body.len());
        }
    }
}

#[tokio::test]
async fn the_shipped_limit_from_both_sides() {
    const SHIPPED: usize = 32 * MIB;
    let mut world = World::start().await;
    let request = post(sized(SHIPPED, true));
    let (response, seen) = world.exchange(&request, &completion(5000)).await;
    assert_eq!(response.status, 200);
    assert!(seen.body == request.body, "{}", seen.body.len());
    let response = world.client.call(&post(sized(SHIPPED + 1, true))).await;
    assert_too_large(&response, "one byte more");
    world.upstream.assert_untouched();
}

#[tokio::test]
async fn the_limit_from_both_sides() {
    let mut world = limited().await;
    let exact = post(sized(MAX, false));
    for sent in [
        exact.clone(),
        chunked(&exact, MAX),
        chunked(&exact, 1000),
        chunked(&exact, 7),
    ] {
        let (response, seen) = world.exchange(&sent, &completion(5000)).await;
        assert_eq!(response.status, 200);
        assert!(seen.body == exact.body, "{}", seen.body.len());
    }

    let over = post(sized(MAX + 1, false));
    let far_over = post(sized(16 * MIB, false));
    let mut refused = 0;
    for (how, request) in [
        ("declared", over.clone()),
        ("one chunk", chunked(&over, MAX + 1)),
        ("small chunks", chunked(&over, 1000)),
        ("tiny chunks", chunked(&over, 7)),
        ("far over, declared", far_over.clone()),
        ("far over, chunked", chunked(&far_over, 64 * 1024)),
    ] {
        // A client that looks for an answer while it sends, and one that first sends it all: the
        // latter notices that nobody reads, and finds the answer waiting.
        let patient = world.client.send_beside(&request).await.finish().await;
        let blunt = world.client.call(&request).await;
        for response in [patient, blunt] {
            // Without a length the filter's 400 stands when the first bytes that Envoy reads are too
            // many; later Envoy's 413 does, and the filter only counts.
            if response.status != 413 || how.contains("declared") {
                assert_too_large(&response, how);
            }
            refused += 1;
        }
    }
    let stats = world.await_idle().await;
    let counted = stats.counter("promptcache_body_read_failed_total", &[]);
    assert_eq!(counted, refused);
    let upstream = [("envoy_cluster_name", "upstream")];
    let calls = stats.counter("envoy_cluster_upstream_rq_total", &upstream);
    assert_eq!(calls, 4, "only those within the limit went on");
}

/// The byte too many, alone, after Envoy has buffered all the others.
#[tokio::test]
async fn one_byte_over_that_comes_late_is_envoys_413() {
    let mut world = limited().await;
    let request = post(sized(MAX + 1, false)).header("transfer-encoding", "chunked");
    let mut bytes = request.encode(&world.client.address().to_string());
    let last = bytes.pop().unwrap();
    let head_bytes = bytes.len() - MAX;
    let body = bytes.split_off(head_bytes);
    bytes.extend(encode_chunk(&body));
    let mut connection = world.client.connect().await;
    connection.write(&bytes).await.unwrap();
    world.await_received(bytes.len() as u64).await;
    connection.write(&encode_chunk(&[last])).await.unwrap();
    let head = within("an answer", connection.read_head()).await;
    assert_eq!(head.unwrap().unwrap().status, 413);
    world.upstream.assert_untouched();
    let stats = world.await_idle().await;
    assert_eq!(stats.counter("promptcache_body_read_failed_total", &[]), 1);
}

#[tokio::test]
async fn what_the_filter_adds_never_takes_a_body_over_the_limit() {
    let mut world = limited().await;
    let growth = r#","stream_options":{"include_usage":true}"#;
    assert_eq!(growth.len(), GROWTH);
    for (size, grows) in [
        (MAX - GROWTH - 1, true),
        (MAX - GROWTH, true),
        (MAX - GROWTH + 1, false),
        (MAX, false),
    ] {
        let request = post(sized(size, true));
        for sent in [request.clone(), chunked(&request, 1000)] {
            let (response, seen) = world.exchange(&sent, &completion(5000)).await;
            assert_eq!(response.status, 200, "{size}: {}", response.text());
            let added = if grows { GROWTH } else { 0 };
            assert_eq!(seen.body.len(), size + added);
            let asked = seen.json()["stream_options"]["include_usage"] == json!(true);
            assert_eq!(asked, grows, "{size}");
        }
    }
}

/// A proxy whose own limit is below the filter's: Envoy answers, and the filter stands by.
#[tokio::test]
async fn envoys_lower_limit_is_a_413() {
    let mut world = World::with(Options {
        buffer_bytes_max: Some(MAX as u64),
        ..Options::default()
    })
    .await;
    let far_over = post(sized(MAX * 2, false));
    // Too large only with its last byte, when the filter already acts on the whole.
    let mut padded = marked(&long_prefix("413"));
    let missing = MAX + 1 - padded.to_string().len();
    padded["user"] = json!("");
    let missing = missing - (padded.to_string().len() - (MAX + 1 - missing));
    padded["user"] = json!("x".repeat(missing));
    let just_over = chat("a", &padded);
    assert_eq!(just_over.body.len(), MAX + 1);
    for sent in [
        chunked(&far_over, 1000),
        far_over,
        chunked(&just_over, MAX + 1),
        just_over,
        // Within the limit until the filter asks for the usage.
        post(sized(MAX, true)),
    ] {
        let response = world.client.send_beside(&sent).await.finish().await;
        assert_eq!(response.status, 413, "{}", response.text());
    }
    // What does not grow over Envoy's limit is none of its business.
    let (response, _) = world
        .exchange(&post(sized(MAX / 2, false)), &completion(5000))
        .await;
    assert_eq!(response.status, 200);
    // Counted when the stream has ended, which may be after its last byte was read.
    let outcome = [("outcome", "zero_active")];
    world
        .await_counter("promptcache_requests_total", &outcome, 1)
        .await;
    let stats = world.stats().await;
    assert_eq!(stats.counter("promptcache_requests_total", &outcome), 1);
    assert_eq!(stats.counter("promptcache_body_read_failed_total", &[]), 0);
}

/// How a large upload ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Answered,
    Unmarked,
    Refused,
    TooLarge,
    UpstreamGone,
    ClientGone,
}

/// Linear memory never shrinks, so that a page more after the first rounds is a leak, or a buffer
/// that lives longer than it did at first.
#[tokio::test]
async fn a_thousand_large_uploads_leave_the_memory_at_its_level() {
    const UPLOADS: usize = 1000;
    const WARM_UP: usize = 50;
    let mut world = World::with(Options {
        trapping: true,
        plugin: json!({"max_request_bytes": MIB + 4096}),
        ..Options::default()
    })
    .await;
    let filler = json!({"role": "user", "content": "x".repeat(MIB)});
    let with_filler = |mut body: Value| {
        body["messages"]
            .as_array_mut()
            .unwrap()
            .push(filler.clone());
        body
    };
    let good = with_filler(marked("a prefix that is known at once"));
    let mut bad = good.clone();
    bad["messages"][1]["cache_control"] = json!(1);
    let mut unmarked = good.clone();
    unmarked["messages"][0]["content"] = json!("no marker");
    let good = chat("a", &good);
    let bad = chat("a", &bad);
    let unmarked = chat("a", &unmarked);
    let too_large = chunked(&post(sized(MIB + 4097, false)), 64 * 1024);
    let mut partial = good.clone();
    let whole = partial.body.len().to_string();
    partial = partial.header("content-length", &whole);
    partial.body.truncate(MIB - 5);

    let answer = completion(300_000);
    let mut level = None;
    for (upload, end) in (0..UPLOADS).zip(
        [
            End::Answered,
            End::Unmarked,
            End::Refused,
            End::TooLarge,
            End::UpstreamGone,
            End::ClientGone,
        ]
        .into_iter()
        .cycle(),
    ) {
        match end {
            End::Answered => {
                let (response, _) = world.exchange(&good, &answer).await;
                assert_eq!(response.status, 200);
            }
            End::Unmarked => {
                let (response, _) = world.exchange(&unmarked, &answer).await;
                assert_eq!(response.status, 200);
            }
            End::Refused => assert_eq!(world.client.call(&bad).await.status, 400),
            End::TooLarge => {
                let response = world.client.send_beside(&too_large).await.finish().await;
                assert!([400, 413].contains(&response.status));
            }
            End::UpstreamGone => {
                let sent = world.client.send(&good).await;
                world.upstream.next().await.reset();
                assert_eq!(sent.finish().await.status, 503);
            }
            End::ClientGone => drop(world.client.send(&partial).await),
        }
        if upload == WARM_UP {
            level = Some(pages(&world).await);
        }
    }
    let level = level.unwrap();
    let after = pages(&world).await;
    assert!(
        after <= level,
        "{level} pages after {WARM_UP} uploads, {after} after {UPLOADS}"
    );
}

/// Pages of linear memory, once no stream is left.
async fn pages(world: &World) -> u64 {
    let pages = world
        .await_idle()
        .await
        .counter("promptcache_vm_memory_pages", &[]);
    assert!(pages > 0, "no gauge");
    pages
}
