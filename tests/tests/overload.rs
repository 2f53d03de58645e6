//! A service that has no room sheds at once; requests go on, the breaker opens, and once there is
//! room reads come back.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use prompt_cache_core::wire::CLASSIFY_PATH;
use prompt_cache_e2e::{
    client::Client,
    deadline::PATIENCE,
    http::Request,
    world::{Options, World, cache_of, chat, completion, long_prefix, marked},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Requests the service takes at once: enough for all that the filter's contexts ask by themselves.
const ROOM: usize = 8;
/// Failures that open the breaker.
const FAILURES: u64 = 3;
/// A 503 does not wait for anything. Generous, for slow machines: what waits does so for seconds.
const SHED_MAX: Duration = Duration::from_secs(1);

/// A request to the service whose body never comes, once it is inside: only then the service asks
/// for the body.
async fn unfinished(world: &World) -> TcpStream {
    let mut stream = TcpStream::connect(world.index.address()).await.unwrap();
    let head = format!(
        "POST {CLASSIFY_PATH} HTTP/1.1\r\nhost: index\r\ncontent-type: application/json\r\n\
         expect: 100-continue\r\ncontent-length: 5\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 12];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100");
    stream
}

#[tokio::test]
async fn a_full_service_costs_reads_and_nothing_else() {
    let options = Options {
        // Each worker has a breaker of its own: with one, every failure counts for the same.
        concurrency: Some(1),
        plugin: json!({
            "breaker_failures": FAILURES, "breaker_open_ms": 300, "lease_bytes_max": 0,
        }),
        index_config: Some(format!(
            "{{models: [{{model: demo, encoding: o200k_base}}], limits: {{concurrency_max: {ROOM}}}}}"
        )),
        ..Options::default()
    };
    let mut world = World::with(options).await;
    let request = chat("a", &marked(&long_prefix("room")));
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    let written = cache_of(&response.usage()).creation();
    assert!(written > 1024);
    world.await_commits(1).await;

    let mut held = vec![];
    for _ in 0..ROOM {
        held.push(unfinished(&world).await);
    }
    let begin = Instant::now();
    let shed = Client::new(world.index.address());
    let shed = shed.call(&Request::post(CLASSIFY_PATH, "{}")).await;
    assert_eq!(shed.status, 503);
    assert_eq!(shed.json()["error"]["code"], "overloaded");
    assert!(begin.elapsed() < SHED_MAX, "{:?}", begin.elapsed());

    // Unharmed, and after so many the service is not even asked.
    for _ in 0..FAILURES {
        let (response, _) = world.exchange(&request, &completion(5000)).await;
        assert_eq!(response.text(), completion(5000).to_string());
    }
    let classify = "promptcache_classify_total";
    world
        .await_counter(classify, &[("outcome", "error")], FAILURES)
        .await;
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    assert_eq!(response.text(), completion(5000).to_string());
    world
        .await_counter(classify, &[("outcome", "breaker_open")], 1)
        .await;
    let opened = world.stats().await;
    assert_eq!(opened.counter("promptcache_breaker_opened_total", &[]), 1);
    let metrics = world.index.stats().await.unwrap();
    let reason = [("reason", "concurrency")];
    let counted = metrics.counter("prompt_cache_index_shed_total", &reason);
    assert!(counted > FAILURES, "{counted} shed");

    // Room again: a probe of the service's health closes the breaker, and what was written lives.
    drop(held);
    let end = Instant::now() + PATIENCE;
    loop {
        let (response, _) = world.exchange(&request, &completion(5000)).await;
        let usage = response.usage();
        if usage.get("cache_read_input_tokens").is_some() {
            assert_eq!(cache_of(&usage).read, written);
            break;
        }
        assert!(Instant::now() < end, "reads do not come back");
    }
    world.assert_no_vm_lost().await;
}
