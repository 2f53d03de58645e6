//! Programs of two releases together: the older ones are those that `UPGRADE_FROM` names
//! (`./just test-upgrade` builds them from older commits), or this checkout's own.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod ledgers;

use prompt_cache_e2e::{
    envoy::Stats,
    http::Request,
    layout::Layout,
    world::{
        Options, World, cache_of, chat, completion, completion_events, long_prefix, marked,
        marked_stream,
    },
};
use serde_json::json;

/// The other APIs, which one of the two programs may not know.
const OTHER_APIS: [&str; 3] = ["/v1/messages", "/v1/responses", "/v1/completions"];

/// Writes, reads, grows, streams and refuses, and asks for what may not be known; returns the
/// counters after it.
async fn converse(layout: Layout) -> Stats {
    let mut world = World::with(Options {
        // The breaker would open at once.
        plugin: json!({"breaker_failures": 2}),
        concurrency: Some(1),
        layout: Some(layout),
        ..Options::default()
    })
    .await;
    let request = chat("tenant", &marked(&long_prefix("old and new")));
    let (response, seen) = world.exchange(&request, &completion(5000)).await;
    let tokens = cache_of(&response.usage()).five_minutes;
    assert!(tokens > 1024);
    assert!(!String::from_utf8_lossy(&seen.body).contains("cache_control"));
    world.await_commits(1).await;

    let events = completion_events(5000);
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let streamed = chat("tenant", &marked_stream(&long_prefix("old and new")));
    for _ in 0..3 {
        let (response, _) = world.stream(&streamed, &events).await;
        let cached = cache_of(&response.usage());
        assert_eq!((cached.read, cached.creation()), (tokens, 0));
    }

    let mut grown = marked(&long_prefix("old and new"));
    grown["messages"][1]["content"] = json!([
        {"type": "text", "text": long_prefix("what came later"), "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]);
    let grown = chat("tenant", &grown);
    let (response, _) = world.exchange(&grown, &completion(9000)).await;
    let cached = cache_of(&response.usage());
    assert_eq!((cached.read, cached.five_minutes), (tokens, 0));
    assert!(cached.one_hour > 1024);
    let all = cached.total();
    world.await_commits(2).await;
    let (response, _) = world.exchange(&grown, &completion(9000)).await;
    assert_eq!(cache_of(&response.usage()).read, all);

    let other = chat("another tenant", &marked(&long_prefix("old and new")));
    let (response, _) = world.exchange(&other, &completion(5000)).await;
    let cached = cache_of(&response.usage());
    assert_eq!((cached.read, cached.five_minutes), (0, tokens));

    let mut body = marked("short");
    let (response, _) = world
        .exchange(&chat("tenant", &body), &completion(50))
        .await;
    assert_eq!(cache_of(&response.usage()).total(), 0);
    body["messages"][0]["content"][0]["cache_control"]["ttl"] = json!("2h");
    let response = world.client.call(&chat("tenant", &body)).await;
    assert_eq!(response.status, 400);

    // Whoever does not know an API leaves its answers alone, and goes on with the others.
    let body = json!({"model": "demo", "max_tokens": 5, "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": long_prefix("elsewhere"), "cache_control": {"type": "ephemeral"}},
        ]},
    ], "input": [
        {"role": "user", "content": [
            {"type": "input_text", "text": long_prefix("elsewhere"), "prompt_cache_breakpoint": {"mode": "explicit"}},
        ]},
    ]});
    for path in OTHER_APIS.iter().cycle().take(9) {
        let request =
            Request::post(path, body.to_string()).header("authorization", "Bearer tenant");
        let (response, _) = world.exchange(&request, &completion(5000)).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.json()["choices"], completion(5000)["choices"]);
    }
    let fresh = chat("tenant", &marked(&long_prefix("and then")));
    let (response, _) = world.exchange(&fresh, &completion(5000)).await;
    let cached = response.usage().get("cache_creation_input_tokens").cloned();
    world.assert_no_vm_lost().await;
    let stats = world.stats().await;
    println!(
        "{}",
        stats
            .lines("promptcache_")
            .join("\n")
            .replace("promptcache_", "")
    );
    assert_eq!(
        cached.and_then(|tokens| tokens.as_u64()).is_some(),
        opened(&stats) == 0
    );
    for result in ["error", "timeout", "dropped"] {
        let count = stats.counter("promptcache_commit_total", &[("result", result)]);
        assert_eq!(count, 0, "commits: {result}");
    }
    stats
}

fn opened(stats: &Stats) -> u64 {
    stats.counter("promptcache_breaker_opened_total", &[])
}

/// Classifications that brought nothing, beside those of APIs that an older service does not know:
/// it refuses the question, which counts as an error.
fn failed(stats: &Stats) -> u64 {
    let count = |outcome| stats.counter("promptcache_classify_total", &[("outcome", outcome)]);
    let refused = [("reason", "classify_refused")];
    let refused = stats.counter("promptcache_bypass_total", &refused);
    count("error") + count("deadline_exceeded") + count("breaker_open") - refused
}

/// The order that docs/operations.md gives: the service first.
#[tokio::test]
async fn an_older_filter_with_this_service() {
    let layout = Layout::of_older_release().with_index_of(&Layout::of_tests());
    let stats = converse(layout).await;
    assert_eq!((failed(&stats), opened(&stats)), (0, 0));
}

/// The other order, and the way back.
#[tokio::test]
async fn this_filter_with_an_older_service() {
    let layout = Layout::of_tests().with_index_of(&Layout::of_older_release());
    let stats = converse(layout).await;
    assert_eq!((failed(&stats), opened(&stats)), (0, 0));
}
