//! A marked prefix is written once and then read, and the usage says so.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use prompt_cache_e2e::{
    faults::Route,
    http::Request,
    world::{
        Options, World, cache_of, chat, completion, completion_events, long_prefix, marked,
        marked_stream,
    },
};
use serde_json::{Value, json};

/// Every read is the service's.
fn without_leases() -> Options {
    Options {
        plugin: json!({"lease_bytes_max": 0, "text_at_once_bytes_max": 0}),
        ..Options::default()
    }
}

#[tokio::test]
async fn buffered() {
    let mut world = World::start().await;
    let request = chat("alice", &marked(&long_prefix("json")));
    let upstream_says = completion(5000);

    let (response, seen) = world.exchange(&request, &upstream_says).await;
    let written = cache_of(&response.usage());
    assert!(written.five_minutes > 1024, "{written:?}");
    assert_eq!((written.read, written.one_hour), (0, 0));
    assert_eq!(response.usage()["prompt_tokens"], 5000);
    assert_eq!(response.usage()["completion_tokens"], 2);
    assert!(!String::from_utf8_lossy(&seen.body).contains("cache_control"));
    if let Some(length) = response.headers.get("content-length") {
        assert_eq!(length, response.body.len().to_string());
    }
    // Outside the usage object the answer is what the upstream said.
    let mut without_usage = response.json();
    without_usage["usage"] = upstream_says["usage"].clone();
    assert_eq!(without_usage, upstream_says);

    world.await_commits(1).await;
    let (response, _) = world.exchange(&request, &upstream_says).await;
    let read = cache_of(&response.usage());
    assert_eq!((read.read, read.creation()), (written.five_minutes, 0));

    // The decision is in the access log, for billing.
    let line = world
        .await_access_log(|line| line["prompt_cache"]["outcome"] == "read")
        .await;
    assert_eq!(line["prompt_cache"]["read"], read.read);
    assert_eq!(line["prompt_cache"]["5m"], 0);
    assert_eq!(line["status"], 200);
}

#[tokio::test]
async fn streamed() {
    let mut world = World::start().await;
    let request = chat("alice", &marked_stream(&long_prefix("sse")));
    let events = completion_events(5000);
    let events: Vec<_> = events.iter().map(String::as_str).collect();

    let (response, _) = world.stream(&request, &events).await;
    let written = cache_of(&response.usage());
    assert!(
        written.five_minutes > 1024 && written.read == 0,
        "{written:?}"
    );
    world.await_commits(1).await;
    let (response, _) = world.stream(&request, &events).await;
    let read = cache_of(&response.usage());
    assert_eq!((read.read, read.creation()), (written.five_minutes, 0));

    // Every event but the one with the usage is byte for byte what the upstream sent.
    let lines: Vec<_> = response.text().split("\n\n").map(str::to_owned).collect();
    assert_eq!(lines.len(), events.len() + 1, "{lines:?}");
    for (index, event) in events.iter().enumerate().filter(|(index, _)| *index != 3) {
        assert_eq!(lines[index], format!("data: {event}"));
    }
    // The two forms of the answer agree: the buffered one reads the same prefix.
    let (response, _) = world
        .exchange(
            &chat("alice", &marked(&long_prefix("sse"))),
            &completion(5000),
        )
        .await;
    assert_eq!(cache_of(&response.usage()).read, written.five_minutes);
}

#[tokio::test]
async fn a_usage_frame_that_the_client_did_not_ask_for_is_not_delivered() {
    let mut world = World::start().await;
    let mut body = marked(&long_prefix("unasked"));
    body["stream"] = json!(true);
    let events = completion_events(5000);
    let events: Vec<_> = events.iter().map(String::as_str).collect();

    let (response, seen) = world.stream(&chat("alice", &body), &events).await;
    assert_eq!(seen.json()["stream_options"]["include_usage"], true);
    let delivered = response.events();
    assert_eq!(delivered.len(), 3, "{delivered:?}");
    assert!(
        delivered
            .iter()
            .all(|event| !event["choices"].as_array().unwrap().is_empty())
    );
    assert!(response.text().ends_with("data: [DONE]\n\n"));
    // It was seen all the same: the prefix is written.
    world.await_commits(1).await;
    let (response, _) = world
        .stream(
            &chat("alice", &marked_stream(&long_prefix("unasked"))),
            &events,
        )
        .await;
    assert!(cache_of(&response.usage()).read > 1024);
}

#[tokio::test]
async fn two_keys_never_share_and_credentials_and_prompts_stay_here() {
    let mut world = World::with(without_leases()).await;
    let body = marked(&long_prefix("shared"));
    let (response, _) = world
        .exchange(&chat("secret-of-alice", &body), &completion(5000))
        .await;
    let written = cache_of(&response.usage());
    world.await_commits(1).await;
    let (response, _) = world
        .exchange(&chat("secret-of-bob", &body), &completion(5000))
        .await;
    assert_eq!(
        cache_of(&response.usage()),
        written,
        "bob must write his own"
    );
    world.await_commits(2).await;
    let (response, _) = world
        .exchange(&chat("secret-of-alice", &body), &completion(5000))
        .await;
    assert_eq!(cache_of(&response.usage()).read, written.five_minutes);
    // Without a credential there is nobody to cache for: the answer is the upstream's.
    let mut anonymous = chat("x", &body);
    anonymous
        .headers
        .0
        .retain(|(name, _)| name != "authorization");
    let (response, _) = world.exchange(&anonymous, &completion(5000)).await;
    assert_eq!(response.json(), completion(5000));

    let classifies = world.faults.seen(Route::Classify);
    for call in [classifies.clone(), world.faults.seen(Route::Commit)].concat() {
        let head = format!("{:?}", call.headers);
        let text = String::from_utf8_lossy(&call.body);
        assert!(
            !head.contains("secret-of") && !text.contains("secret-of"),
            "{head} {text}"
        );
    }
    // The reading request was answered by its hashes alone.
    let last = classifies.last().unwrap();
    assert!(!String::from_utf8_lossy(&last.body).contains("Fact 1"));
    assert!(last.body.len() < 16 * 1024);
}

#[tokio::test]
async fn entries_survive_a_restart_of_the_service() {
    let mut world = World::with(without_leases()).await;
    let request = chat("alice", &marked(&long_prefix("restart")));
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    let written = cache_of(&response.usage());
    world.await_commits(1).await;
    world.restart_index().await;
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    assert_eq!(cache_of(&response.usage()).read, written.five_minutes);
}

#[tokio::test]
async fn tiers_the_floor_the_cap_and_unmarked_requests() {
    let mut world = World::start().await;
    // Below the floor nothing is written.
    let (response, _) = world
        .exchange(&chat("a", &marked("short")), &completion(50))
        .await;
    assert_eq!(cache_of(&response.usage()).total(), 0);

    // Two breakpoints, two tiers: each tier gets the tokens up to its own.
    let mut body = marked(&long_prefix("tiers"));
    body["messages"][0]["content"][0]["cache_control"]["ttl"] = json!("1h");
    body["messages"][1]["cache_control"] = json!({"type": "ephemeral", "ttl": "5m"});
    body["messages"][1]["content"] = json!(long_prefix("more"));
    let (response, _) = world.exchange(&chat("a", &body), &completion(9000)).await;
    let written = cache_of(&response.usage());
    assert!(
        written.one_hour > 1024 && written.five_minutes > 1024,
        "{written:?}"
    );
    world.await_commits(1).await;
    let (response, _) = world.exchange(&chat("a", &body), &completion(9000)).await;
    assert_eq!(cache_of(&response.usage()).read, written.creation());

    // What is shown never exceeds the upstream's own count.
    let capped = chat("a", &marked(&long_prefix("capped")));
    let (response, _) = world.exchange(&capped, &completion(100)).await;
    assert_eq!(cache_of(&response.usage()).total(), 0);
    world
        .await_counter("promptcache_split_capped_total", &[], 1)
        .await;

    // An unmarked request to an active model: zeros, and no call to the service.
    let calls = world.faults.seen(Route::Classify).len();
    let unmarked = json!({"model": "demo", "messages": [{"role": "user", "content": "hi"}]});
    let (response, _) = world.exchange(&chat("a", &unmarked), &completion(50)).await;
    assert_eq!(cache_of(&response.usage()).total(), 0);
    assert_eq!(world.faults.seen(Route::Classify).len(), calls);
}

#[tokio::test]
async fn metrics_carry_labels() {
    let mut world = World::start().await;
    let request = chat("a", &marked(&long_prefix("metrics")));
    for commits in 1..=2 {
        let (_, _) = world.exchange(&request, &completion(5000)).await;
        // The second request reads; its commit counter stays.
        world.await_commits(commits.min(1)).await;
    }
    world
        .await_counter("promptcache_requests_total", &[("outcome", "read")], 1)
        .await;
    // Envoy merges its workers' histograms every few seconds.
    world
        .await_counter("promptcache_classify_duration_ms_count", &[], 2)
        .await;
    let stats = world.stats().await;
    for (name, labels, value) in [
        (
            "promptcache_requests_total",
            vec![("outcome", "create_only")],
            1,
        ),
        (
            "promptcache_marker_requests_total",
            vec![("marked", "true")],
            2,
        ),
        ("promptcache_classify_total", vec![("outcome", "ok")], 2),
        ("promptcache_commit_total", vec![("result", "ok")], 1),
        (
            "promptcache_classify_duration_ms_bucket",
            vec![("le", "10000")],
            2,
        ),
    ] {
        assert_eq!(stats.counter(name, &labels), value, "{name} {labels:?}");
    }
    assert!(stats.counter("promptcache_creation_input_tokens_total", &[("tier", "5m")]) > 1024);
    assert!(stats.counter("promptcache_read_input_tokens_total", &[]) > 1024);
    // Every label is one of the five: a name that still holds a `=` escaped the tag rules.
    for name in stats
        .names()
        .filter(|name| name.starts_with("promptcache_"))
    {
        let bare = name.split('{').next().unwrap();
        assert!(!bare.contains(['=', ';']) && !bare.ends_with('_'), "{name}");
    }
}

/// A request of the Messages API, its system prompt marked for an hour.
fn message(prefix: &str, stream: bool) -> Request {
    let body = json!({
        "model": "demo", "max_tokens": 16, "stream": stream,
        "system": [{"type": "text", "text": prefix, "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [{"role": "user", "content": "And now?"}],
    });
    Request::post("/v1/messages", body.to_string()).header("x-api-key", "anna")
}

/// The usage of a Messages answer whose prompt has 5000 tokens: read, created for an hour.
fn disjoint(usage: &Value) -> (u64, u64) {
    let number = |name: &str| usage[name].as_u64().unwrap_or_else(|| panic!("{usage}"));
    let (read, created) = (
        number("cache_read_input_tokens"),
        number("cache_creation_input_tokens"),
    );
    assert_eq!(number("input_tokens") + read + created, 5000, "{usage}");
    let tiers = &usage["cache_creation"];
    assert_eq!(tiers["ephemeral_1h_input_tokens"], created, "{usage}");
    assert_eq!(tiers["ephemeral_5m_input_tokens"], 0, "{usage}");
    assert_eq!(usage.get("prompt_tokens_details"), None, "{usage}");
    (read, created)
}

#[tokio::test]
async fn messages_buffered() {
    let mut world = World::start().await;
    let request = message(&long_prefix("messages"), false);
    let upstream_says = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "demo",
        "content": [{"type": "text", "text": "Yes."}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 5000, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 2},
    });
    let (response, seen) = world.exchange(&request, &upstream_says).await;
    let (read, written) = disjoint(&response.usage());
    assert!(read == 0 && written > 1024, "{}", response.text());
    assert_eq!(response.usage()["output_tokens"], 2);
    let seen = String::from_utf8_lossy(&seen.body).into_owned();
    assert!(
        !seen.contains("cache_control") && !seen.contains("stream_options"),
        "{seen}"
    );
    let mut without_usage = response.json();
    without_usage["usage"] = upstream_says["usage"].clone();
    assert_eq!(without_usage, upstream_says);

    world.await_commits(1).await;
    let (response, _) = world.exchange(&request, &upstream_says).await;
    assert_eq!(disjoint(&response.usage()), (written, 0));
}

#[tokio::test]
async fn messages_streamed() {
    let mut world = World::start().await;
    let request = message(&long_prefix("messages, streamed"), true);
    let start = json!({"type": "message_start", "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "demo", "content": [],
        "usage": {"input_tokens": 5000, "output_tokens": 1},
    }});
    let delta = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}});
    let events = [start, delta, json!({"type": "message_stop"})].map(|event| event.to_string());
    let events: Vec<_> = events.iter().map(String::as_str).collect();

    // The start may be too early for the classification; the end is not.
    let (response, _) = world.stream(&request, &events).await;
    let (read, written) = disjoint(&response.usage());
    assert!(read == 0 && written > 1024, "{}", response.text());
    world.await_commits(1).await;

    let (response, _) = world.stream(&request, &events).await;
    assert_eq!(disjoint(&response.usage()), (written, 0));
    // From a lease: known when the response begins.
    let start = &response.events()[0];
    assert_eq!(disjoint(&start["message"]["usage"]), (written, 0));

    // An error in the middle commits nothing: the prefix is new the next time.
    let other = message(&long_prefix("messages, failed"), true);
    let failed = [
        events[0],
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
    ];
    world.stream(&other, &failed).await;
    let (response, _) = world.stream(&other, &events).await;
    assert_eq!(disjoint(&response.usage()).0, 0);
}
