//! A request that did not succeed commits nothing.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use prompt_cache_e2e::{
    faults::Route,
    world::{
        World, cache_of, chat, completion, completion_events, long_prefix, marked, marked_stream,
    },
};
use serde_json::{Value, json};

async fn assert_vetoed(world: &World, reason: &str) {
    world
        .await_counter("promptcache_commit_vetoed_total", &[("reason", reason)], 1)
        .await;
}

/// A request that succeeds writes its prefix: it read nothing that a vetoed one might have left.
async fn assert_nothing_committed(world: &mut World, body: &Value) {
    let (response, _) = world.exchange(&chat("a", body), &completion(5000)).await;
    let cached = cache_of(&response.usage());
    assert!(cached.read == 0 && cached.five_minutes > 1024, "{cached:?}");
    world.await_commits(1).await;
    assert_eq!(world.faults.seen(Route::Commit).len(), 1);
}

#[tokio::test]
async fn statuses_other_than_2xx() {
    let mut world = World::start().await;
    let body = marked(&long_prefix("non-2xx"));
    let sent = world.client.send(&chat("a", &body)).await;
    world
        .upstream
        .next()
        .await
        .json(500, completion(5000).to_string())
        .await;
    let response = sent.finish().await;
    assert_eq!(response.status, 500);
    assert_vetoed(&world, "non_2xx").await;
    assert_nothing_committed(&mut world, &body).await;
}

#[tokio::test]
async fn answers_without_a_usage() {
    let mut world = World::start().await;
    let body = marked(&long_prefix("no usage"));
    for usage in [None, Some(json!(null)), Some(json!([1]))] {
        let mut answer = completion(0);
        answer.as_object_mut().unwrap().remove("usage");
        if let Some(usage) = usage {
            answer["usage"] = usage;
        }
        let (response, _) = world.exchange(&chat("a", &body), &answer).await;
        assert_eq!(response.text(), answer.to_string());
    }
    world
        .await_counter(
            "promptcache_commit_vetoed_total",
            &[("reason", "no_usage")],
            3,
        )
        .await;
    assert_nothing_committed(&mut world, &body).await;
}

#[tokio::test]
async fn error_frames() {
    let mut world = World::start().await;
    let events = completion_events(5000);
    let prefix = long_prefix("error frame");
    let error = json!({"error": {"message": "out of memory", "code": 500}}).to_string();
    let (response, _) = world
        .stream(
            &chat("a", &marked_stream(&prefix)),
            &[&events[0], &error, &events[2], &events[3], &events[4]],
        )
        .await;
    assert!(response.text().contains(&format!("data: {error}\n\n")));
    assert_vetoed(&world, "error_frame").await;
    assert_nothing_committed(&mut world, &marked(&prefix)).await;
}

#[tokio::test]
async fn clients_that_leave() {
    let mut world = World::start().await;
    let events = completion_events(5000);
    let prefix = long_prefix("gone");
    let sent = world.client.send(&chat("a", &marked_stream(&prefix))).await;
    let mut call = world.upstream.next().await;
    call.stream_head().await;
    call.chunk(format!("data: {}\n\n", events[0])).await;
    let mut incoming = sent.head().await;
    incoming.read_until("\"Ye\"").await;
    drop(incoming);
    call.gone().await;
    assert_vetoed(&world, "disconnect").await;
    assert_nothing_committed(&mut world, &marked(&prefix)).await;
}

#[tokio::test]
async fn upstreams_that_break_off() {
    let mut world = World::start().await;
    let events = completion_events(5000);
    let prefix = long_prefix("reset");
    let sent = world.client.send(&chat("a", &marked_stream(&prefix))).await;
    let mut call = world.upstream.next().await;
    call.stream_head().await;
    call.chunk(format!("data: {}\n\n", events[0])).await;
    let mut incoming = sent.head().await;
    incoming.read_until("\"Ye\"").await;
    call.reset();
    assert!(
        incoming.try_finish().await.is_err(),
        "the client must see the break"
    );
    let vetoed =
        prompt_cache_e2e::deadline::poll(prompt_cache_e2e::deadline::PATIENCE, async || {
            let stats = world.envoy.stats().await?;
            (stats.counter("promptcache_commit_vetoed_total", &[]) == 1).then_some(())
        });
    vetoed.await.expect("a veto");
    assert_nothing_committed(&mut world, &marked(&prefix)).await;
}

#[tokio::test]
async fn trailers_and_streams_without_done_are_complete_answers() {
    let mut world = World::start().await;
    let events = completion_events(5000);
    for (commits, trailers) in [(1, &[][..]), (2, &[("x-checksum", "1")][..])] {
        let prefix = long_prefix(&format!("ending {commits}"));
        let request = chat("a", &marked_stream(&prefix));
        let sent = world.client.send(&request).await;
        let mut call = world.upstream.next().await;
        call.stream_head().await;
        for event in &events[..4] {
            call.chunk(format!("data: {event}\n\n")).await;
        }
        call.end_with_trailers(trailers).await;
        let response = sent.finish().await;
        assert!(cache_of(&response.usage()).five_minutes > 1024);
        world.await_commits(commits).await;
    }
}
