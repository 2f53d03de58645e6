//! Markers that cannot be honoured are refused before the upstream sees anything.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use prompt_cache_e2e::{
    http::Request,
    world::{Options, World, chat},
};
use serde_json::{Value, json};

const SHAPE: &str = r#"cache_control must be an object with a string "type": "ephemeral" (and an optional string "ttl")"#;

/// A request whose only message has these parts, all marked as given.
fn parts(markers: &[Value]) -> Value {
    let parts: Vec<_> = markers
        .iter()
        .map(|marker| json!({"type": "text", "text": "x", "cache_control": marker}))
        .collect();
    json!({"model": "demo", "messages": [{"role": "user", "content": parts}]})
}

fn ephemeral(ttl: &str) -> Value {
    json!({"type": "ephemeral", "ttl": ttl})
}

async fn assert_refused(world: &mut World, body: &Value, message: Option<&str>, param: &str) {
    let response = world.client.call(&chat("a", body)).await;
    assert_eq!(response.status, 400, "{body}: {}", response.text());
    assert_eq!(
        response.headers.get("content-type"),
        Some("application/json")
    );
    let answer = response.json();
    let error = &answer["error"];
    assert_eq!(error["type"], "invalid_request_error");
    assert_eq!(error["code"], "invalid_cache_control");
    assert_eq!(error["param"], param, "{body}");
    match message {
        Some(message) => assert_eq!(error["message"], message),
        None => assert!(!error["message"].as_str().unwrap().is_empty()),
    }
}

#[tokio::test]
async fn every_row_of_the_table() {
    let mut world = World::start().await;
    let first = "messages[0].content[0].cache_control";
    let plain = json!({"type": "ephemeral"});
    let mut conflict = parts(&[ephemeral("5m")]);
    conflict["cache_control"] = ephemeral("1h");
    let mut full = parts(&[&plain, &plain, &plain, &plain].map(Clone::clone));
    full["messages"][0]["content"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "text", "text": "x"}));
    full["cache_control"] = plain.clone();
    let tier_off =
        "cache_control ttl tier '24h' is not currently available; available tiers: 5m, 1h";
    let cases = [
        (
            "too_many_breakpoints",
            parts(&vec![plain.clone(); 5]),
            Some("too many cache_control breakpoints (max 4)"),
            "messages[0].content[4].cache_control",
        ),
        (
            "invalid_ttl",
            parts(&[plain.clone(), ephemeral("2h")]),
            Some(r#"invalid cache_control ttl: "2h""#),
            "messages[0].content[1].cache_control",
        ),
        (
            "unsupported_type",
            parts(&[json!({"type": "persistent"})]),
            Some(r#"unsupported cache_control type: "persistent" (only "ephemeral")"#),
            first,
        ),
        (
            "tier_disabled",
            parts(&[ephemeral("24h")]),
            Some(tier_off),
            first,
        ),
        (
            "malformed_cache_control",
            parts(&[json!("ephemeral")]),
            Some(SHAPE),
            first,
        ),
        (
            "malformed_cache_control",
            parts(&[json!({})]),
            Some(SHAPE),
            first,
        ),
        (
            "malformed_cache_control",
            parts(&[json!({"type": "ephemeral", "ttl": null})]),
            Some(SHAPE),
            first,
        ),
        ("automatic_conflict", conflict, None, "cache_control"),
        ("automatic_conflict", full, None, "cache_control"),
    ];
    let mut reasons = std::collections::BTreeMap::<_, u64>::new();
    for (reason, body, message, param) in cases {
        assert_refused(&mut world, &body, message, param).await;
        *reasons.entry(reason).or_default() += 1;
        let counter = "promptcache_markers_rejected_total";
        world
            .await_counter(counter, &[("reason", reason)], reasons[reason])
            .await;
    }

    // For a model nobody knows the client learns it as well.
    let mut unknown = parts(&[ephemeral("2h")]);
    unknown["model"] = json!("nobody's");
    assert_refused(&mut world, &unknown, None, first).await;

    // The next thing that the upstream sees is this request: it saw none of the others.
    let probe = json!({"model": "demo", "messages": [{"role": "user", "content": "probe"}]});
    let (_, seen) = world.exchange(&chat("a", &probe), &json!({})).await;
    assert_eq!(seen.json(), probe);
    world.upstream.assert_untouched();
}

#[tokio::test]
async fn an_order_of_tiers_can_be_asked_for() {
    let options = Options {
        plugin: json!({"mixed_ttl_order": "longest_first"}),
        ..Options::default()
    };
    let mut world = World::with(options).await;
    let rising = parts(&[ephemeral("5m"), ephemeral("1h")]);
    let param = "messages[0].content[1].cache_control";
    assert_refused(&mut world, &rising, None, param).await;
    let reason = [("reason", "ttl_order")];
    world
        .await_counter("promptcache_markers_rejected_total", &reason, 1)
        .await;

    let falling = parts(&[ephemeral("1h"), ephemeral("5m")]);
    let (response, seen) = world.exchange(&chat("a", &falling), &json!({})).await;
    assert_eq!(response.status, 200);
    assert!(!String::from_utf8_lossy(&seen.body).contains("cache_control"));
}

#[tokio::test]
async fn the_messages_api_has_its_own_words() {
    let world = World::start().await;
    let marked = |kind: &str, ttl: &str| json!({"type": kind, "cache_control": ephemeral(ttl)});
    let table = [
        (
            json!([marked("thinking", "5m")]),
            "messages.0.content.0.cache_control: cache_control is not allowed on a thinking block",
        ),
        (
            json!([marked("text", "2h")]),
            "messages.0.content.0.cache_control.ephemeral.ttl: Input should be '5m' or '1h' (invalid cache_control ttl: \"2h\")",
        ),
        (
            vec![marked("text", "5m"); 5].into(),
            "A maximum of 4 blocks with cache_control may be provided. Found 5.",
        ),
        (
            json!([marked("text", "5m"), marked("text", "1h")]),
            "messages.0.content.1.cache_control.ttl: a longer ttl must not come after a shorter one. Blocks are processed in the following order: `tools`, `system`, `messages` (cache_control ttl 1h at messages[0].content[1].cache_control follows the shorter ttl 5m at messages[0].content[0].cache_control; longer ttls must come first)",
        ),
    ];
    for (content, message) in table {
        let body = json!({"model": "demo", "max_tokens": 1, "messages": [{"role": "user", "content": content}]});
        let request = Request::post("/v1/messages", body.to_string()).header("x-api-key", "a");
        let response = world.client.call(&request).await;
        assert_eq!(response.status, 400, "{}", response.text());
        let error = json!({"type": "invalid_request_error", "message": message});
        assert_eq!(response.json(), json!({"type": "error", "error": error}));
    }
}
