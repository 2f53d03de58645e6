//! The answers of the LLM, ready to be written.

use prompt_cache_core::api::Api;
use serde_json::{Value, json};

use super::llm::{Script, Then};

/// More than any split: nothing is capped.
const PROMPT_TOKENS: u64 = 1_000_000;
/// What every stream begins to say.
pub const FIRST_WORD: &str = "Once";
const WORDS: [&str; 4] = [FIRST_WORD, " upon", " a", " time"];

/// A whole answer of `api`.
pub fn json(api: Api) -> Script {
    status(200, &completion(api))
}

/// An answer that is no success, or is no answer of an API.
pub fn status(status: u16, body: &Value) -> Script {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    Script::new(vec![(head + &body).into_bytes()], Then::Next)
}

/// A streamed answer of `api`: the first event in a write of its own.
pub fn stream(api: Api) -> Script {
    let events = events(api);
    let (first, rest) = events.split_at(2.min(events.len()));
    let rest = rest.concat() + "0\r\n\r\n";
    Script::new(
        vec![(head() + &first.concat()).into_bytes(), rest.into_bytes()],
        Then::Next,
    )
}

/// A stream that begins and does not go on: the client leaves it.
pub fn endless(api: Api) -> Script {
    Script::new(vec![beginning(api)], Then::Wait)
}

/// A stream that breaks off.
pub fn broken(api: Api) -> Script {
    Script::new(vec![beginning(api)], Then::Close)
}

/// A stream that ends with an error.
pub fn error_frame(api: Api) -> Script {
    let mut bytes = beginning(api);
    let error = json!({"type": "error", "error": {"type": "server_error", "message": "no"}});
    bytes.extend(chunk("error", &error).into_bytes());
    bytes.extend(b"0\r\n\r\n");
    Script::new(vec![bytes], Then::Next)
}

/// Head and events up to the first word.
fn beginning(api: Api) -> Vec<u8> {
    let events = events(api);
    let word = events
        .iter()
        .position(|event| event.contains(FIRST_WORD))
        .unwrap_or_default();
    (head() + &events[..=word].concat()).into_bytes()
}

fn head() -> String {
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        .to_owned()
}

/// One event as one chunk; only two of the APIs name their events.
fn chunk(name: &str, data: &Value) -> String {
    let event = match name {
        "" => format!("data: {data}\n\n"),
        name => format!("event: {name}\ndata: {data}\n\n"),
    };
    format!("{:x}\r\n{event}\r\n", event.len())
}

fn named(data: &Value) -> String {
    chunk(data["type"].as_str().unwrap_or_default(), data)
}

fn usage(api: Api) -> Value {
    match api {
        Api::Chat | Api::Completions => json!({
            "prompt_tokens": PROMPT_TOKENS, "completion_tokens": 4, "total_tokens": PROMPT_TOKENS + 4,
        }),
        Api::Messages => json!({
            "input_tokens": PROMPT_TOKENS, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0, "output_tokens": 4,
        }),
        Api::Responses => json!({
            "input_tokens": PROMPT_TOKENS, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": PROMPT_TOKENS + 4,
        }),
    }
}

fn completion(api: Api) -> Value {
    let words = WORDS.concat();
    match api {
        Api::Chat => json!({
            "id": "c1", "object": "chat.completion", "created": 1, "model": "M0",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": "stop"}],
            "usage": usage(api),
        }),
        Api::Completions => json!({
            "id": "c1", "object": "text_completion", "created": 1, "model": "M0",
            "choices": [{"index": 0, "text": words, "finish_reason": "stop"}],
            "usage": usage(api),
        }),
        Api::Messages => json!({
            "id": "m1", "type": "message", "role": "assistant", "model": "M0",
            "content": [{"type": "text", "text": words}], "stop_reason": "end_turn",
            "usage": usage(api),
        }),
        Api::Responses => response("completed", &usage(api)),
    }
}

fn response(status: &str, usage: &Value) -> Value {
    json!({
        "id": "r1", "object": "response", "status": status, "error": null, "model": "M0",
        "output": [{"type": "message", "id": "i1", "role": "assistant", "status": status, "content": [
            {"type": "output_text", "text": WORDS.concat(), "annotations": []},
        ]}],
        "usage": usage,
    })
}

/// The chunks of a stream without its last one.
fn events(api: Api) -> Vec<String> {
    match api {
        Api::Chat => openai(
            "chat.completion.chunk",
            api,
            |word| json!({"index": 0, "delta": {"content": word}, "finish_reason": null}),
        ),
        Api::Completions => openai(
            "text_completion",
            api,
            |word| json!({"index": 0, "text": word, "finish_reason": null}),
        ),
        Api::Messages => {
            let mut start = completion(api);
            start["content"] = json!([]);
            start["stop_reason"] = Value::Null;
            let delta = |word: &&str| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}});
            let mut events = vec![
                json!({"type": "message_start", "message": start}),
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            ];
            events.extend(WORDS.iter().map(delta));
            events.extend([
                json!({"type": "content_block_stop", "index": 0}),
                json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}}),
                json!({"type": "message_stop"}),
            ]);
            events.iter().map(named).collect()
        }
        Api::Responses => {
            let delta = |word: &&str| json!({"type": "response.output_text.delta", "delta": word});
            let mut begun = response("in_progress", &Value::Null);
            begun["output"] = json!([]);
            let mut events = vec![json!({"type": "response.created", "response": begun})];
            events.extend(WORDS.iter().map(delta));
            let completed = response("completed", &usage(api));
            events.push(json!({"type": "response.completed", "response": completed}));
            events.iter().map(named).collect()
        }
    }
}

fn openai(object: &str, api: Api, choice: impl Fn(&str) -> Value) -> Vec<String> {
    let event = |choices: Value| json!({"id": "c1", "object": object, "created": 1, "model": "M0", "choices": choices});
    let mut events: Vec<String> = WORDS
        .iter()
        .map(|word| chunk("", &event(json!([choice(word)]))))
        .collect();
    let mut last = choice("");
    last["finish_reason"] = json!("stop");
    events.push(chunk("", &event(json!([last]))));
    let mut with_usage = event(json!([]));
    with_usage["usage"] = usage(api);
    events.push(chunk("", &with_usage));
    let done = "data: [DONE]\n\n";
    events.push(format!("{:x}\r\n{done}\r\n", done.len()));
    events
}
