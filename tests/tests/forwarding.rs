//! What reaches the upstream, and what is none of the filter's business.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use prompt_cache_e2e::{
    faults::Route,
    http::{Request, encode_chunk},
    world::{
        CHAT, Options, World, cache_of, chat, completion, completion_events, long_prefix, marked,
        marked_stream,
    },
};
use serde_json::json;

const MARKER: &str = r#","cache_control":{"type":"ephemeral","ttl":"1h"}"#;
/// Spellings that a parser would lose: numbers, escapes, white space, repeated and unusual keys.
const ODD: &str = "\u{20}{ \"model\" : \"demo\",\"temperature\":1.0e0 ,\t\"seed\":12345678901234567890123,\
    \"x\":0.10,\"x\":-0,\r\n \"metadata\":{\"cache_control\":{\"type\":\"ephemeral\"}},\
    \"messages\":[{\"role\":\"user\",\"content\":[{\"text\":\"\\u0041\\/ é\\ud83d\\ude00\",\"type\":\"text\"@}]},\
    {\"content\":\"caf\u{e9}\"@,\"role\":\"user\"}] ,\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\
    \"parameters\":{\"properties\":{\"cache_control\":{\"type\":\"string\"}}}}@}]}\n";

#[tokio::test]
async fn everything_but_the_marker_is_byte_exact() {
    let mut world = World::start().await;
    let marked = ODD.replace('@', MARKER);
    let expected = ODD.replace('@', "");
    let request = Request::post(&format!("{CHAT}/?api-version=1"), marked)
        .header("authorization", "Bearer alice")
        .header("accept-encoding", "gzip")
        .header("x-custom", "kept");
    let (response, seen) = world.exchange(&request, &completion(50)).await;
    assert_eq!(response.status, 200);
    assert_eq!(String::from_utf8_lossy(&seen.body), expected);
    assert_eq!(seen.target, request.target);
    assert_eq!(
        seen.headers.get("content-length"),
        Some(&*expected.len().to_string())
    );
    assert_eq!(seen.headers.get("transfer-encoding"), None);
    assert_eq!(seen.headers.get("accept-encoding"), None);
    assert_eq!(seen.headers.get("authorization"), Some("Bearer alice"));
    assert_eq!(seen.headers.get("x-custom"), Some("kept"));

    // The same over a chunked upload.
    let body = ODD.replace('@', MARKER);
    let mut chunked = Request::post(CHAT, "").header("authorization", "Bearer alice");
    chunked = chunked.header("transfer-encoding", "chunked");
    let (head, tail) = body.as_bytes().split_at(body.find("ephemeral").unwrap());
    for piece in [head, tail] {
        chunked.body.extend_from_slice(&encode_chunk(piece));
    }
    chunked.body.extend_from_slice(b"0\r\n\r\n");
    let (_, seen) = world.exchange(&chunked, &completion(50)).await;
    assert_eq!(String::from_utf8_lossy(&seen.body), expected);

    // What is no JSON object is the upstream's to judge.
    for body in ["", "{", "[1,2]", "\"cache_control\"", "\u{0}\u{1}", "{} x"] {
        let request = Request::post(CHAT, body).header("authorization", "Bearer alice");
        let (_, seen) = world.exchange(&request, &json!({"error": "?"})).await;
        assert_eq!(String::from_utf8_lossy(&seen.body), body);
    }
}

#[tokio::test]
async fn include_usage_is_ensured_by_splice() {
    let mut world = World::start().await;
    for (sent, options) in [
        (r#""stream":true"#, json!({"include_usage": true})),
        (
            r#""stream":true,"stream_options":null"#,
            json!({"include_usage": true}),
        ),
        (
            r#""stream":true,"stream_options":{}"#,
            json!({"include_usage": true}),
        ),
        (
            r#""stream":true,"stream_options":{"include_usage":false,"x":1}"#,
            json!({"include_usage": true, "x": 1}),
        ),
        (r#""stream":false"#, json!(null)),
    ] {
        let body = format!(r#"{{"model":"demo","messages":[],{sent}}}"#);
        let request = Request::post(CHAT, body).header("authorization", "Bearer a");
        let (_, seen) = world.exchange(&request, &json!({})).await;
        assert_eq!(seen.json()["stream_options"], options, "{sent}");
    }
    let body =
        r#"{"model":"demo","stream":true,"stream_options":{"include_usage":true} ,"messages":[]}"#;
    let request = Request::post(CHAT, body).header("authorization", "Bearer a");
    let (_, seen) = world.exchange(&request, &json!({})).await;
    assert_eq!(String::from_utf8_lossy(&seen.body), body);
}

#[tokio::test]
async fn other_paths_and_methods_pass_untouched() {
    // A limit that buffering would hit.
    let options = Options {
        buffer_bytes_max: Some(64 * 1024),
        ..Options::default()
    };
    let mut world = World::with(options).await;
    let filler = "x".repeat(1024 * 1024);
    let body = json!({"cache_control": {"type": "wrong"}, "stream": true, "input": filler});
    let answer = json!({"usage": {"prompt_tokens": 9}, "data": filler});
    for target in [
        "/v1/embeddings",
        "/v1/chat/completions/x",
        "/chat/completionsx",
        "/",
    ] {
        let request = Request::post(target, body.to_string())
            .header("authorization", "Bearer a")
            .header("accept-encoding", "gzip");
        let (response, seen) = world.exchange(&request, &answer).await;
        assert_eq!(seen.body, request.body, "{target}");
        assert_eq!(seen.headers.get("accept-encoding"), Some("gzip"));
        assert_eq!(response.text(), answer.to_string());
        assert_eq!(
            response.headers.get("content-length"),
            Some(&*response.body.len().to_string())
        );
    }
    let mut get = Request::get(CHAT);
    get.headers = Request::post("", "")
        .header("accept-encoding", "gzip")
        .headers;
    let (response, seen) = world.exchange(&get, &answer).await;
    assert_eq!(seen.headers.get("accept-encoding"), Some("gzip"));
    assert_eq!(response.text(), answer.to_string());
    let mut put = Request::post(CHAT, body.to_string());
    put.method = "PUT".into();
    let (_, seen) = world.exchange(&put, &answer).await;
    assert_eq!(seen.body, put.body);
    assert!(world.faults.seen(Route::Classify).is_empty());
}

#[tokio::test]
async fn a_model_without_a_policy_only_loses_its_markers() {
    let mut world = World::start().await;
    let mut body = marked_stream("prompt");
    body["model"] = json!("somebody-else's");
    body.as_object_mut().unwrap().remove("stream_options");
    let events = completion_events(5000);
    let events: Vec<_> = events.iter().map(String::as_str).collect();
    let (response, seen) = world.stream(&chat("a", &body), &events).await;
    let mut expected = body.clone();
    expected["messages"][0]["content"][0]
        .as_object_mut()
        .unwrap()
        .remove("cache_control");
    assert_eq!(seen.json(), expected, "no include_usage either");
    let sent: String = events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    assert_eq!(response.text(), sent);
    assert!(world.faults.seen(Route::Classify).is_empty());
}

#[tokio::test]
async fn a_body_of_five_mebibytes() {
    let mut world = World::start().await;
    let text = "All work and no play makes a dull prompt. ".repeat(5 * 1024 * 1024 / 42);
    let body = |marker: &str| {
        format!(
            r#"{{"model":"demo","messages":[{{"role":"user","content":[{{"type":"text","text":"{text}"{marker}}}]}}]}}"#
        )
    };
    let request = Request::post(CHAT, body(MARKER)).header("authorization", "Bearer a");
    let answer = completion(10_000_000);
    let (response, seen) = world.exchange(&request, &answer).await;
    assert!(
        seen.body == body("").as_bytes(),
        "{} bytes arrived",
        seen.body.len()
    );
    let written = cache_of(&response.usage());
    assert!(written.one_hour > 1_000_000, "{written:?}");
    world.await_commits(1).await;
    let (response, _) = world.exchange(&request, &answer).await;
    assert_eq!(cache_of(&response.usage()).read, written.one_hour);
}

#[tokio::test]
async fn a_classification_carries_the_client_s_trace() {
    let trace = [
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("tracestate", "vendor=1"),
    ];
    // By hashes, then with the prompt.
    let mut world = World::with(Options {
        plugin: json!({"text_at_once_bytes_max": 0}),
        ..Options::default()
    })
    .await;
    let mut request = chat("alice", &marked(&long_prefix("traced")));
    for (name, value) in trace {
        request = request.header(name, value);
    }
    world.exchange(&request, &completion(5000)).await;
    world.await_commits(1).await;
    let classified = world.faults.seen(Route::Classify);
    assert_eq!(classified.len(), 2);
    for call in classified {
        for (name, value) in trace {
            assert_eq!(call.headers.get(name), Some(value), "{name}");
        }
    }
    // A batch is of several requests.
    for call in world.faults.seen(Route::Commit) {
        assert_eq!(call.headers.get("traceparent"), None);
    }
}
