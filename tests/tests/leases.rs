//! A prefix the edge knows to be live is read without a callout.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use prompt_cache_e2e::{
    client::Client,
    deadline::{PATIENCE, poll},
    faults::Route,
    http::Request,
    world::{Cached, Options, World, cache_of, chat, completion, long_prefix, marked},
};
use serde_json::{Value, json};

const HITS: &str = "promptcache_lease_hits_total";

/// One worker: what one has leased, another has not.
fn options(plugin: Value) -> Options {
    Options {
        plugin,
        concurrency: Some(1),
        ..Options::default()
    }
}

async fn usage(world: &mut World, request: &Request) -> Cached {
    let (response, _) = world.exchange(request, &completion(5000)).await;
    cache_of(&response.usage())
}

/// Writes a prefix and waits until the filter knows that it is live.
async fn write(world: &mut World, request: &Request) -> u64 {
    let written = usage(world, request).await;
    assert!(written.creation() > 1024, "{written:?}");
    world.await_commits(1).await;
    written.creation()
}

#[tokio::test]
async fn a_hot_prefix_makes_no_callout_and_its_reads_are_reported() {
    let mut world = World::with(options(json!({}))).await;
    let request = chat("a", &marked(&long_prefix("hot")));
    let tokens = write(&mut world, &request).await;
    let classified = world.faults.seen(Route::Classify).len();
    for _ in 0..5 {
        let read = usage(&mut world, &request).await;
        assert_eq!((read.read, read.creation()), (tokens, 0));
    }
    assert_eq!(world.faults.seen(Route::Classify).len(), classified);
    world.await_counter(HITS, &[], 5).await;
    // Each is a classification like any other.
    let ok = [("outcome", "ok")];
    world
        .await_counter("promptcache_classify_total", &ok, 6)
        .await;
    // Another key, another scope: nothing of it is known.
    assert_eq!(
        usage(&mut world, &chat("b", &marked(&long_prefix("hot"))))
            .await
            .read,
        0
    );

    // Read on until a read gains enough to be worth a refresh.
    let mut reads = 5;
    let reported = loop {
        let commits = world.faults.seen(Route::Commit);
        let reported = commits.iter().find_map(|call| {
            let reads = call.json()["reads"].as_array()?.clone();
            reads.into_iter().next()
        });
        if let Some(reported) = reported {
            break reported;
        }
        assert_eq!(usage(&mut world, &request).await.read, tokens);
        reads += 1;
    };
    let counted = reported["read_tokens"].as_u64().unwrap();
    assert_eq!(counted % tokens, 0);
    assert!(counted <= reads * tokens && counted > 5 * tokens);
    assert_eq!(reported["hashes"].as_array().unwrap().len(), 1);
}

/// Whoever tries it out sends a request a few times and looks at the status page.
#[tokio::test]
async fn reads_that_renew_nothing_are_counted_soon_all_the_same() {
    let mut world = World::with(options(json!({}))).await;
    let request = chat("a", &marked(&long_prefix("burst")));
    let tokens = write(&mut world, &request).await;
    for _ in 0..3 {
        assert_eq!(usage(&mut world, &request).await.read, tokens);
    }
    world.await_counter(HITS, &[], 3).await;
    let report = Client::new(world.index.address());
    let report = &report;
    let counted = poll(PATIENCE, async || {
        let answer = report.call(&Request::get("/v1/status")).await;
        let totals = answer.json()["totals"].clone();
        (totals["hits"] == 3 && totals["read"] == 3 * tokens).then_some(())
    });
    counted.await.unwrap();
}

#[tokio::test]
async fn without_memory_for_leases_every_request_asks() {
    let mut world = World::with(options(json!({"lease_bytes_max": 0}))).await;
    let request = chat("a", &marked(&long_prefix("cold")));
    write(&mut world, &request).await;
    let classified = world.faults.seen(Route::Classify).len();
    assert!(usage(&mut world, &request).await.read > 1024);
    assert_eq!(world.faults.seen(Route::Classify).len(), classified + 1);
}

#[tokio::test]
async fn a_prompt_below_the_floor_is_asked_once() {
    let mut world = World::with(options(json!({}))).await;
    let request = chat("a", &marked("short"));
    for _ in 0..3 {
        let (response, _) = world.exchange(&request, &completion(50)).await;
        assert_eq!(cache_of(&response.usage()).total(), 0);
    }
    assert_eq!(world.faults.seen(Route::Classify).len(), 1);
    world.await_counter(HITS, &[], 2).await;
}

#[tokio::test]
async fn a_small_prompt_goes_along_with_the_first_callout() {
    let mut world = World::with(options(json!({"text_at_once_bytes_max": 16_384}))).await;
    let small = chat("a", &marked(&long_prefix("small")));
    let large = chat("a", &marked(&long_prefix("large").repeat(3)));
    assert!(small.body.len() < 16_384 && large.body.len() > 16_384);
    for (request, with_prompt) in [(small, vec![true]), (large, vec![false, true])] {
        let before = world.faults.seen(Route::Classify).len();
        let (response, _) = world.exchange(&request, &completion(50_000)).await;
        assert!(cache_of(&response.usage()).creation() > 1024);
        let calls = world.faults.seen(Route::Classify).split_off(before);
        let with: Vec<bool> = calls
            .iter()
            .map(|call| String::from_utf8_lossy(&call.body).contains("Fact 7"))
            .collect();
        assert_eq!(with, with_prompt);
    }
}

#[tokio::test]
async fn a_purge_is_seen_with_the_next_policy() {
    let index = "models: [{model: demo, encoding: o200k_base}]\nadmin_token: admin\n";
    let options = Options {
        index_config: Some(index.to_owned()),
        ..options(json!({"policy_refresh_ms": 200}))
    };
    let mut world = World::with(options).await;
    let request = chat("a", &marked(&long_prefix("purged")));
    let tokens = write(&mut world, &request).await;
    assert_eq!(usage(&mut world, &request).await.read, tokens);

    let purge = Request::post("/v1/purge", r#"{"v":1,"model":"demo"}"#)
        .header("authorization", "Bearer admin")
        .header("content-type", "application/json");
    let answer = Client::new(world.index.address()).call(&purge).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while usage(&mut world, &request).await.read > 0 {
        assert!(tokio::time::Instant::now() < deadline, "still read");
    }
}

#[tokio::test]
async fn a_lease_outlives_the_service_by_its_trust_and_no_longer() {
    const TRUST: Duration = Duration::from_secs(3);
    let mut world = World::with(options(json!({
        "policy_refresh_ms": 100,
        "lease_trust_ms": 3_000,
        "classify_deadline_ms": 200,
    })))
    .await;
    let request = chat("a", &marked(&long_prefix("away")));
    let tokens = write(&mut world, &request).await;
    world.faults.down().await;
    let begin = tokio::time::Instant::now();
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    assert_eq!(cache_of(&response.usage()).read, tokens);
    let ended = loop {
        let (response, _) = world.exchange(&request, &completion(5000)).await;
        let usage = response.usage();
        if usage.get("cache_read_input_tokens").is_none() {
            break begin.elapsed();
        }
        assert_eq!(cache_of(&usage).read, tokens);
        assert!(begin.elapsed() < TRUST * 3, "still trusted");
    };
    // The last confirmation may be as old as one refresh.
    assert!(ended > TRUST / 2, "{ended:?}");
    world.faults.up().await;
    let again = poll(PATIENCE, async || {
        let refreshed = [("result", "ok")];
        let stats = world.envoy.stats().await?;
        let failed = stats.counter("promptcache_policy_refresh_total", &[("result", "error")]);
        let answered = stats.counter("promptcache_policy_refresh_total", &refreshed);
        (failed > 0 && answered > 2).then_some(())
    });
    again.await.unwrap();
    world.assert_no_vm_lost().await;
}
