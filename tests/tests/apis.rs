//! The other APIs, and marking without markers, through Envoy.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use prompt_cache_e2e::{
    http::Request,
    world::{Options, World, chat, completion, long_prefix, marked},
};
use serde_json::{Value, json};

const EPHEMERAL: &str = "ephemeral";

fn post(path: &str, body: &Value) -> Request {
    Request::post(path, body.to_string()).header("authorization", "Bearer alice")
}

/// What a `usage` of the Responses API says was read and created.
fn read_and_created(usage: &Value) -> (u64, u64) {
    let details = &usage["input_tokens_details"];
    let read = details["cached_tokens"].as_u64().unwrap();
    let created = details["cache_write_tokens"].as_u64().unwrap();
    assert_eq!(usage["cache_read_input_tokens"], read);
    assert_eq!(usage["cache_creation_input_tokens"], created);
    (read, created)
}

fn response(status: &str, usage: &Value) -> Value {
    json!({
        "id": "resp_1", "object": "response", "status": status, "error": null, "model": "demo",
        "output": [{"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": [
            {"type": "output_text", "text": "Yes.", "annotations": []},
        ]}],
        "usage": usage,
    })
}

fn input_usage() -> Value {
    json!({
        "input_tokens": 5000, "input_tokens_details": {"cached_tokens": 48},
        "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 5002,
    })
}

fn responses_body(topic: &str) -> Value {
    json!({
        "model": "demo", "instructions": "Be brief.",
        "tools": [{"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object"}}],
        "input": [
            {"role": "user", "content": [
                {"type": "input_text", "text": long_prefix(topic), "prompt_cache_breakpoint": {"mode": "explicit"}},
                {"type": "input_text", "text": "And now?"},
            ]},
        ],
    })
}

#[tokio::test]
async fn responses_are_written_and_read_buffered_and_streamed() {
    let mut world = World::start().await;
    let body = responses_body("responses");
    let whole = response("completed", &input_usage());
    let (first, seen) = world.exchange(&post("/v1/responses", &body), &whole).await;
    let mut unmarked = body.clone();
    let part = &mut unmarked["input"][0]["content"][0];
    part.as_object_mut()
        .unwrap()
        .remove("prompt_cache_breakpoint");
    assert_eq!(seen.json(), unmarked);
    let (read, created) = read_and_created(&first.usage());
    assert!(read == 0 && created > 1024, "{read}, {created}");
    assert_eq!(first.usage()["input_tokens"], 5000);

    world.await_commits(1).await;
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let started = json!({"type": "response.created", "sequence_number": 0, "response": response("in_progress", &Value::Null)});
    let delta =
        json!({"type": "response.output_text.delta", "sequence_number": 1, "delta": "Yes."});
    let completed = json!({"type": "response.completed", "sequence_number": 2, "response": response("completed", &input_usage())});
    let events = [started, delta, completed].map(|event| event.to_string());
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let (second, seen) = world
        .stream(&post("/v1/responses/", &streamed), &events)
        .await;
    assert_eq!(seen.json()["stream_options"], Value::Null);
    let mut got = second.events();
    let last = got.pop().unwrap();
    assert_eq!(read_and_created(&last["response"]["usage"]), (created, 0));
    assert_eq!(got.len(), 2);
    assert_eq!(got[0]["response"]["usage"], Value::Null);

    // What the engine itself said stands beside what was shown.
    world
        .await_counter("promptcache_engine_cached_input_tokens_total", &[], 2 * 48)
        .await;
    world
        .await_counter(
            "promptcache_engine_compared_read_input_tokens_total",
            &[],
            created,
        )
        .await;
}

#[tokio::test]
async fn a_failed_response_earns_nothing_and_what_begins_elsewhere_is_unmarked() {
    let mut world = World::start().await;
    let body = responses_body("failed");
    let failed = json!({"type": "response.failed", "response": {
        "status": "failed", "error": {"code": "server_error", "message": "no"}, "usage": input_usage(),
    }});
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    world
        .stream(&post("/v1/responses", &streamed), &[&failed.to_string()])
        .await;
    let veto = [("reason", "error_frame")];
    world
        .await_counter("promptcache_commit_vetoed_total", &veto, 1)
        .await;

    let mut going_on = body;
    going_on["previous_response_id"] = json!("resp_0");
    let whole = response("completed", &input_usage());
    let (answer, seen) = world
        .exchange(&post("/v1/responses", &going_on), &whole)
        .await;
    assert_eq!(read_and_created(&answer.usage()), (0, 0));
    assert_eq!(seen.json()["previous_response_id"], "resp_0");
    assert!(!String::from_utf8_lossy(&seen.body).contains("prompt_cache_breakpoint"));

    going_on["input"][0]["content"][0]["prompt_cache_breakpoint"] = json!({"mode": "sometimes"});
    let refused = world
        .client
        .send(&post("/v1/responses", &going_on))
        .await
        .finish()
        .await;
    assert_eq!(refused.status, 400);
    let param = "input[0].content[0].prompt_cache_breakpoint";
    assert_eq!(refused.json()["error"]["param"], param);
}

#[tokio::test]
async fn completions_are_written_and_read() {
    let mut world = World::start().await;
    let body = |stream| {
        json!({
            "model": "demo", "prompt": long_prefix("completions"), "stream": stream,
            "cache_control": {"type": EPHEMERAL, "ttl": "1h"},
        })
    };
    let answer = json!({
        "id": "cmpl-1", "object": "text_completion", "model": "demo",
        "choices": [{"index": 0, "text": "Yes.", "logprobs": null, "finish_reason": "stop"}],
        "usage": completion(5000)["usage"],
    });
    let (first, seen) = world
        .exchange(&post("/v1/completions", &body(false)), &answer)
        .await;
    assert_eq!(seen.json()["cache_control"], Value::Null);
    let created = &first.usage()["cache_creation"]["ephemeral_1h_input_tokens"];
    assert!(created.as_u64() > Some(1024), "{}", first.usage());

    world.await_commits(1).await;
    let mut usage_only = answer.clone();
    usage_only["choices"] = json!([]);
    let mut text = answer;
    text.as_object_mut().unwrap().remove("usage");
    let events = [text.to_string(), usage_only.to_string(), "[DONE]".into()];
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let (second, seen) = world
        .stream(&post("/v1/completions", &body(true)), &events)
        .await;
    assert_eq!(seen.json()["stream_options"]["include_usage"], true);
    // The client did not ask for the frame: what it says is in the log.
    assert_eq!(second.events().len(), 1);
    let line = world
        .await_access_log(|line| line["prompt_cache"]["outcome"] == "read")
        .await;
    assert_eq!(&line["prompt_cache"]["read"], created);
}

/// As a coding agent sends it: a nonce, then a marked prompt.
fn agent_body(nonce: &str, topic: &str) -> Value {
    json!({
        "model": "demo", "max_tokens": 8,
        "system": [
            {"type": "text", "text": format!("x-anthropic-billing-header: cc_version=2; cch={nonce};")},
            {"type": "text", "text": long_prefix(topic), "cache_control": {"type": EPHEMERAL}},
        ],
        "messages": [{"role": "user", "content": "And now?"}],
    })
}

fn message() -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "demo",
        "content": [{"type": "text", "text": "Yes."}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 5000, "output_tokens": 2},
    })
}

#[tokio::test]
async fn a_nonce_in_front_makes_no_prefix_new() {
    for forward in [false, true] {
        let mut world = World::with(Options {
            plugin: json!({"forward_volatile_blocks": forward}),
            ..Options::default()
        })
        .await;
        let (first, seen) = world
            .exchange(&post("/v1/messages", &agent_body("1", "agent")), &message())
            .await;
        let system = seen.json()["system"].clone();
        assert_eq!(system.as_array().unwrap().len(), 1 + usize::from(forward));
        let created = first.usage()["cache_creation_input_tokens"]
            .as_u64()
            .unwrap();
        assert!(created > 1024, "{created}");
        world.await_commits(1).await;
        let (second, _) = world
            .exchange(&post("/v1/messages", &agent_body("2", "agent")), &message())
            .await;
        assert_eq!(second.usage()["cache_read_input_tokens"], created);
        world
            .await_counter("promptcache_volatile_blocks_total", &[], 2)
            .await;
    }
}

#[tokio::test]
async fn a_query_marks_the_last_user_message() {
    let mut world = World::start().await;
    let body = json!({"model": "demo", "messages": [
        {"role": "user", "content": long_prefix("query")},
    ]});
    let path = "/v1/chat/completions?a=b&cacheBreakpoint=lastUserMessage";
    let (first, seen) = world.exchange(&post(path, &body), &completion(5000)).await;
    assert_eq!(seen.target, "/v1/chat/completions?a=b");
    assert_eq!(seen.json(), body);
    let created = first.usage()["cache_creation_input_tokens"].clone();
    assert!(created.as_u64() > Some(1024), "{}", first.usage());
    world.await_commits(1).await;
    let (second, _) = world.exchange(&post(path, &body), &completion(5000)).await;
    assert_eq!(second.usage()["cache_read_input_tokens"], created);

    let wrong = "/v1/chat/completions?cacheBreakpoint=everything";
    let refused = world.client.send(&post(wrong, &body)).await.finish().await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["error"]["param"], "cacheBreakpoint");
}

#[tokio::test]
async fn a_policy_marks_conversations_without_markers() {
    let config = "models: [{model: demo, encoding: o200k_base, auto: 1h}]";
    let mut world = World::with(Options {
        index_config: Some(config.to_owned()),
        ..Options::default()
    })
    .await;
    let mut messages = vec![json!({"role": "user", "content": long_prefix("auto")})];
    let body = |messages: &[Value]| json!({"model": "demo", "messages": messages});
    let (first, _) = world
        .exchange(&chat("alice", &body(&messages)), &completion(5000))
        .await;
    let created = |usage: &Value| {
        let created = &usage["cache_creation"]["ephemeral_1h_input_tokens"];
        created.as_u64().unwrap()
    };
    let written = created(&first.usage());
    assert!(written > 1024);
    world.await_commits(1).await;
    // Far more blocks than a look-back covers.
    let parts: Vec<Value> = (0..40)
        .map(|n| json!({"type": "text", "text": format!("{n} more.")}))
        .collect();
    messages.push(json!({"role": "assistant", "content": "Yes."}));
    messages.push(json!({"role": "user", "content": parts}));
    let (second, _) = world
        .exchange(&chat("alice", &body(&messages)), &completion(5000))
        .await;
    assert_eq!(second.usage()["cache_read_input_tokens"], written);
    assert!(created(&second.usage()) > 0);
    let auto = [("marked", "auto")];
    world
        .await_counter("promptcache_marker_requests_total", &auto, 2)
        .await;

    // Who marks gets what was marked.
    let (marked, _) = world
        .exchange(
            &chat("alice", &marked(&long_prefix("own"))),
            &completion(5000),
        )
        .await;
    assert_eq!(created(&marked.usage()), 0);
    assert!(marked.usage()["cache_creation"]["ephemeral_5m_input_tokens"].as_u64() > Some(1024));
}

#[tokio::test]
async fn a_routing_header_is_never_the_client_s() {
    let mut world = World::with(Options {
        plugin: json!({"prefix_hash_header": "x-prefix-hash"}),
        ..Options::default()
    })
    .await;
    let forged = |request: Request| request.header("x-prefix-hash", "forged");
    let unmarked = json!({"model": "demo", "messages": [{"role": "user", "content": "x"}]});
    let requests = [
        (chat("alice", &marked(&long_prefix("routed"))), true),
        (chat("alice", &unmarked), false),
        (post("/v1/embeddings", &unmarked), false),
        (Request::get("/v1/models"), false),
    ];
    for (request, routed) in requests {
        let (_, seen) = world.exchange(&forged(request), &completion(5000)).await;
        let header = seen.headers.get("x-prefix-hash");
        match header {
            Some(hash) => assert!(routed && hash.len() == 64, "{hash}"),
            None => assert!(!routed),
        }
    }
}
