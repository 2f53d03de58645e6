//! The index service fails, is slow, or talks nonsense: requests and streams go on unharmed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use prompt_cache_e2e::{
    faults::{Fault, Route},
    world::{
        Options, World, cache_of, chat, completion, completion_events, long_prefix, marked,
        marked_stream,
    },
};
use serde_json::{Value, json};

const CLASSIFY: &str = "promptcache_classify_total";

fn with_plugin(plugin: Value) -> Options {
    Options {
        plugin,
        ..Options::default()
    }
}

fn stream_of(events: &[String]) -> String {
    events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect()
}

#[tokio::test]
async fn the_first_token_does_not_wait_and_the_last_frame_does() {
    let mut world = World::start().await;
    let gate = world.faults.hold(Route::Classify);
    let events = completion_events(5000);
    let sent = world
        .client
        .send(&chat("a", &marked_stream(&long_prefix("slow"))))
        .await;
    let mut call = world.upstream.next().await;
    call.stream_head().await;
    call.chunk(format!("data: {}\n\n", events[0])).await;
    let mut incoming = sent.head().await;
    incoming.read_until("\"Ye\"").await;
    for event in &events[1..] {
        call.chunk(format!("data: {event}\n\n")).await;
    }
    call.end().await;
    incoming.read_until("\"stop\"").await;
    assert!(
        !incoming.text().contains("prompt_tokens"),
        "the usage must wait"
    );
    gate.open();
    let response = incoming.finish().await;
    assert!(cache_of(&response.usage()).five_minutes > 1024);
    assert!(response.text().ends_with("data: [DONE]\n\n"));
    world.await_commits(1).await;
}

#[tokio::test]
async fn the_last_frame_waits_no_longer_than_the_deadline() {
    // Envoy's clock counts whole milliseconds, and the wait begins with the request's departure.
    const WAIT_AT_LEAST: Duration = Duration::from_millis(390);
    let mut world = World::with(with_plugin(
        json!({"classify_deadline_ms": 400, "breaker_failures": 100}),
    ))
    .await;
    world.faults.set(Route::Classify, Fault::Hang);
    let events = completion_events(5000);
    let slices: Vec<_> = events.iter().map(String::as_str).collect();
    let begin = Instant::now();
    let (response, _) = world
        .stream(&chat("a", &marked_stream(&long_prefix("late"))), &slices)
        .await;
    assert!(
        begin.elapsed() >= WAIT_AT_LEAST,
        "{:?}: nobody waited",
        begin.elapsed()
    );
    assert_eq!(response.text(), stream_of(&events));
    let late = [("outcome", "deadline_exceeded")];
    world.await_counter(CLASSIFY, &late, 1).await;

    let (response, _) = world
        .exchange(&chat("a", &marked(&long_prefix("late"))), &completion(5000))
        .await;
    assert_eq!(response.text(), completion(5000).to_string());
    world.await_counter(CLASSIFY, &late, 2).await;
    assert!(world.faults.seen(Route::Commit).is_empty());
}

#[tokio::test]
async fn nonsense_from_the_service_changes_nothing() {
    let mut world = World::with(with_plugin(json!({"breaker_failures": 1000}))).await;
    let unknown_status = json!({"status": "perhaps"}).to_string();
    let huge = json!({"status": "ok", "tokenizer_version": "x", "split": {"read": -1}}).to_string();
    let faults = [
        Fault::Answer(200, b"<html>".to_vec()),
        Fault::Answer(200, vec![0xff; 1000]),
        Fault::Answer(200, vec![]),
        Fault::Answer(200, unknown_status.into_bytes()),
        Fault::Answer(200, huge.into_bytes()),
        Fault::Answer(500, b"{\"status\":\"ok\"}".to_vec()),
        Fault::Answer(302, vec![]),
        Fault::Close,
        Fault::Truncate,
    ];
    let events = completion_events(5000);
    let slices: Vec<_> = events.iter().map(String::as_str).collect();
    for (round, fault) in (1..).zip(faults) {
        world.faults.set(Route::Classify, fault.clone());
        let (response, _) = world
            .stream(
                &chat("a", &marked_stream(&long_prefix("nonsense"))),
                &slices,
            )
            .await;
        assert_eq!(response.text(), stream_of(&events), "{fault:?}");
        world
            .await_counter(CLASSIFY, &[("outcome", "error")], round)
            .await;
    }
    world.faults.set(Route::Classify, Fault::None);
    let (response, _) = world
        .exchange(
            &chat("a", &marked(&long_prefix("nonsense"))),
            &completion(5000),
        )
        .await;
    assert_eq!(
        cache_of(&response.usage()).read,
        0,
        "nothing was committed meanwhile"
    );
}

#[tokio::test]
async fn the_breaker_opens_probes_and_closes() {
    let plugin = json!({"breaker_failures": 2, "breaker_open_ms": 200});
    // Each worker has a breaker of its own: with one, every failure counts for the same.
    let options = Options {
        concurrency: Some(1),
        ..with_plugin(plugin)
    };
    let mut world = World::with(options).await;
    let request = chat("a", &marked(&long_prefix("down")));
    world.faults.down().await;
    for _ in 0..2 {
        let (response, _) = world.exchange(&request, &completion(5000)).await;
        assert_eq!(response.text(), completion(5000).to_string());
    }
    world
        .await_counter(CLASSIFY, &[("outcome", "error")], 2)
        .await;
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    assert_eq!(response.text(), completion(5000).to_string());
    world
        .await_counter(CLASSIFY, &[("outcome", "breaker_open")], 1)
        .await;

    world.faults.up().await;
    let end = Instant::now() + prompt_cache_e2e::deadline::PATIENCE;
    loop {
        let (response, _) = world.exchange(&request, &completion(5000)).await;
        if response.json()["usage"]
            .get("cache_read_input_tokens")
            .is_some()
        {
            assert!(cache_of(&response.usage()).five_minutes > 1024);
            break;
        }
        assert!(Instant::now() < end, "the breaker does not close");
    }
    world.await_commits(1).await;
}

/// A service whose probes succeed and whose classifications fail, and one that comes and goes. A
/// probe is never a client's request: each time the breaker closes, it takes as many failures as
/// configured to open it.
#[tokio::test]
async fn a_service_that_flaps() {
    const FAILURES: u64 = 3;
    let options = Options {
        concurrency: Some(1),
        ..with_plugin(
            json!({"breaker_failures": FAILURES, "breaker_open_ms": 50, "lease_bytes_max": 0}),
        )
    };
    let mut world = World::with(options).await;
    let request = chat("a", &marked(&long_prefix("flaps")));
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    let tokens = cache_of(&response.usage()).creation();
    assert!(tokens > 1024);
    world.await_commits(1).await;

    let asked = |world: &World| world.faults.seen(Route::Classify).len() as u64;
    let before = asked(&world);
    world
        .faults
        .set(Route::Classify, Fault::Answer(503, b"{}".to_vec()));
    let end = Instant::now() + prompt_cache_e2e::deadline::PATIENCE;
    let mut sent = 0;
    let opened = loop {
        let (response, _) = world.exchange(&request, &completion(5000)).await;
        assert_eq!(response.text(), completion(5000).to_string());
        sent += 1;
        let opened = world
            .stats()
            .await
            .counter("promptcache_breaker_opened_total", &[]);
        if opened >= 4 {
            break opened;
        }
        assert!(Instant::now() < end, "opened {opened} times");
    };
    let failed = asked(&world) - before;
    assert!(
        (opened * FAILURES..(opened + 1) * FAILURES).contains(&failed),
        "{failed} of {sent} asked, opened {opened} times"
    );
    // What closed it between two openings was a health request.
    let probes = world.faults.seen(Route::Ready).len() as u64;
    assert!(
        (opened - 1..=opened).contains(&probes),
        "{probes} probes, opened {opened} times"
    );
    world.faults.set(Route::Classify, Fault::None);

    for round in 0..3 {
        if round > 0 {
            world.faults.up().await;
        }
        loop {
            let (response, _) = world.exchange(&request, &completion(5000)).await;
            let usage = response.usage();
            if usage.get("cache_read_input_tokens").is_some() {
                assert_eq!(cache_of(&usage).read, tokens);
                break;
            }
            assert!(Instant::now() < end, "the breaker does not close");
        }
        world.faults.down().await;
        let skipped = [("outcome", "breaker_open")];
        let before = world.stats().await.counter(CLASSIFY, &skipped);
        while world.stats().await.counter(CLASSIFY, &skipped) == before {
            let (response, _) = world.exchange(&request, &completion(5000)).await;
            assert_eq!(response.text(), completion(5000).to_string());
            assert!(Instant::now() < end, "the breaker does not open");
        }
    }
    world.assert_no_vm_lost().await;
}

#[tokio::test]
async fn a_service_that_was_never_there() {
    let mut world = World::start().await;
    world.faults.down().await;
    // A second Envoy that has seen no policy.
    let mut blind = World::with(Options {
        without_policy: true,
        ..with_plugin(json!({"index_cluster": "prompt_cache_index"}))
    })
    .await;
    blind.faults.down().await;
    for world in [&mut world, &mut blind] {
        let mut body = marked("prompt");
        let (response, seen) = world.exchange(&chat("a", &body), &completion(50)).await;
        assert_eq!(response.text(), completion(50).to_string());
        body["messages"][0]["content"][0]
            .as_object_mut()
            .unwrap()
            .remove("cache_control");
        assert_eq!(seen.json(), body);
        body["messages"][0]["cache_control"] = json!("wrong");
        let response = world.client.call(&chat("a", &body)).await;
        assert_eq!(response.status, 400, "refusals need no service");
    }
}

#[tokio::test]
async fn commits_are_retried() {
    let mut world = World::start().await;
    world.faults.set(Route::Commit, Fault::Answer(503, vec![]));
    let request = chat("a", &marked(&long_prefix("retry")));
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    let written = cache_of(&response.usage());
    let tried =
        prompt_cache_e2e::deadline::poll(prompt_cache_e2e::deadline::PATIENCE, async || {
            (!world.faults.seen(Route::Commit).is_empty()).then_some(())
        });
    tried.await.expect("a first try");
    world.faults.set(Route::Commit, Fault::None);
    world.await_commits(1).await;
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    assert_eq!(cache_of(&response.usage()).read, written.five_minutes);
}

#[tokio::test]
async fn a_count_that_fails_keeps_the_read() {
    let mut world = World::with(with_plugin(json!({"text_at_once_bytes_max": 0}))).await;
    let prefix = long_prefix("known");
    let (response, _) = world
        .exchange(&chat("k", &marked(&prefix)), &completion(9000))
        .await;
    let written = cache_of(&response.usage()).creation();
    world.await_commits(1).await;

    let mut grown = marked(&prefix);
    grown["messages"][1]["content"] = json!([
        {"type": "text", "text": long_prefix("new"), "cache_control": {"type": "ephemeral"}},
    ]);
    world
        .faults
        .set(Route::Text, Fault::Answer(503, b"{}".to_vec()));
    let (response, _) = world.exchange(&chat("k", &grown), &completion(9000)).await;
    let cached = cache_of(&response.usage());
    assert_eq!((cached.read, cached.creation()), (written, 0));

    // Nothing of it was committed: the new part is still to be written.
    world.faults.set(Route::Text, Fault::None);
    let (response, _) = world.exchange(&chat("k", &grown), &completion(9000)).await;
    let cached = cache_of(&response.usage());
    assert_eq!(cached.read, written);
    assert!(cached.creation() > 1024);
}
