//! Identical requests in flight on one worker share a callout, and nobody depends on another.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use prompt_cache_e2e::{
    client::Sent,
    deadline::{PATIENCE, poll},
    faults::Route,
    http::Request,
    upstream::Call,
    world::{Options, World, cache_of, chat, completion, long_prefix, marked},
};
use serde_json::json;

/// One worker: those of another share nothing.
async fn world() -> World {
    World::with(Options {
        plugin: json!({"classify_deadline_ms": 10_000, "text_at_once_bytes_max": 0}),
        concurrency: Some(1),
        ..Options::default()
    })
    .await
}

/// Sends a request; it has passed the filter when the upstream has it.
async fn forwarded(world: &mut World, request: &Request) -> (Sent, Call) {
    let sent = world.client.send(request).await;
    (sent, world.upstream.next().await)
}

async fn await_asked(world: &World, count: usize) {
    let asked = poll(PATIENCE, async || {
        (world.faults.seen(Route::Classify).len() >= count).then_some(())
    });
    asked.await.expect("the filter asks");
    assert_eq!(world.faults.seen(Route::Classify).len(), count);
}

#[tokio::test]
async fn identical_cold_requests_share_a_callout() {
    let mut world = world().await;
    let gate = world.faults.hold(Route::Classify);
    let request = chat("a", &marked(&long_prefix("together")));
    let mut together = vec![];
    for _ in 0..5 {
        together.push(forwarded(&mut world, &request).await);
    }
    // The same prompt for another key is another question.
    let other = chat("b", &marked(&long_prefix("together")));
    together.push(forwarded(&mut world, &other).await);
    await_asked(&world, 2).await;
    gate.open();
    // By hashes and with the prompt, once for each key.
    await_asked(&world, 4).await;
    let ok = [("outcome", "ok")];
    world
        .await_counter("promptcache_classify_total", &ok, 2)
        .await;

    let mut written = vec![];
    for (sent, call) in together {
        call.json(200, completion(5000).to_string()).await;
        written.push(cache_of(&sent.finish().await.usage()));
    }
    assert!(written[0].creation() > 1024, "{written:?}");
    assert!(written.iter().all(|w| *w == written[0]), "{written:?}");
    assert_eq!(world.faults.seen(Route::Classify).len(), 4);
    world
        .await_counter("promptcache_classify_total", &ok, 6)
        .await;
    world.await_commits(6).await;
}

#[tokio::test]
async fn who_follows_asks_when_its_leader_is_gone_or_too_slow() {
    let mut world = world().await;
    for topic in ["gone", "slow"] {
        let gate = world.faults.hold(Route::Classify);
        let before = world.faults.seen(Route::Classify).len();
        let request = chat("a", &marked(&long_prefix(topic)));
        let leader = forwarded(&mut world, &request).await;
        let (sent, call) = forwarded(&mut world, &request).await;
        await_asked(&world, before + 1).await;
        if topic == "gone" {
            drop(leader);
            let abandoned = [("outcome", "abandoned")];
            world
                .await_counter("promptcache_classify_total", &abandoned, 1)
                .await;
        }
        call.json(200, completion(5000).to_string()).await;
        await_asked(&world, before + 2).await;
        gate.open();
        let written = cache_of(&sent.finish().await.usage());
        assert!(written.creation() > 1024, "{topic}: {written:?}");
    }
    world.assert_no_vm_lost().await;
}

/// Rounds, each a herd of identical cold requests that the upstream keeps waiting.
const ROUNDS: usize = 6;
const HERD: usize = 5;
const BODY_BYTES: usize = 1 << 20;
const VM_PAGE_BYTES: usize = 1 << 16;

#[tokio::test]
async fn a_herd_leaves_no_bodies_behind_once_it_is_classified() {
    let mut world = World::with(Options {
        plugin: json!({"classify_deadline_ms": 10_000}),
        concurrency: Some(1),
        trapping: true,
        ..Options::default()
    })
    .await;
    let mut in_flight = vec![];
    let mut pages = vec![];
    for round in 1..=ROUNDS {
        let gate = world.faults.hold(Route::Classify);
        let topic = long_prefix(&format!("round {round}"));
        let padding = " x".repeat((BODY_BYTES - topic.len()) / 2);
        let request = chat("a", &marked(&(topic + &padding)));
        for _ in 0..HERD {
            in_flight.push(forwarded(&mut world, &request).await);
        }
        gate.open();
        world
            .await_counter(
                "promptcache_classify_total",
                &[("outcome", "ok")],
                round as u64,
            )
            .await;
        // The gauge shows what the last stream that ended left.
        let (sent, call) = forwarded(&mut world, &chat("a", &json!({"messages": []}))).await;
        call.json(200, "{}").await;
        sent.finish().await;
        let stats = world.stats().await;
        pages.push(stats.counter("promptcache_vm_memory_pages", &[]));
    }
    // The first rounds find the size that one herd in the air needs. Kept bodies would add a
    // herd's, less its leader's, in each of the others.
    let grown = pages[ROUNDS - 1] - pages[1];
    assert!(grown < (BODY_BYTES / VM_PAGE_BYTES) as u64, "{pages:?}");
    for (sent, call) in in_flight {
        call.json(200, completion(600_000).to_string()).await;
        let written = cache_of(&sent.finish().await.usage());
        assert!(written.creation() > 1024, "{written:?}");
    }
    world.assert_no_vm_lost().await;
}
