//! The prepared answers of the upstream, and reading what arrives at the client.

use serde_json::{Value, json};

/// Delta events of a long stream.
pub const EVENTS: usize = 1000;
/// More than any split: nothing is capped.
const PROMPT_TOKENS: u64 = 1_000_000;

/// Bytes as they go on the wire.
pub struct Answers {
    /// A whole JSON completion.
    pub json: Vec<u8>,
    /// Head and first delta of any stream.
    pub first_event: Vec<u8>,
    /// Each further delta of a long stream.
    pub events: Vec<Vec<u8>>,
    /// The finish, the usage, `[DONE]` and the last chunk.
    pub end: Vec<u8>,
    /// What follows the first event of a short stream.
    pub short_rest: Vec<u8>,
    /// A long stream in one piece.
    pub long: Vec<u8>,
}

impl Answers {
    pub fn new() -> Self {
        let completion = completion().to_string();
        let json = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{completion}",
            completion.len()
        )
        .into_bytes();
        let mut first_event =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_vec();
        first_event.extend(event(&delta(0)));
        let events: Vec<_> = (1..EVENTS).map(|n| event(&delta(n))).collect();
        let mut usage = chunk(json!([]));
        usage["usage"] = usage_object();
        let mut end = event(&usage.to_string());
        end.extend(event("[DONE]"));
        end.extend(b"0\r\n\r\n");
        let short_rest = [&events[..4].concat()[..], &end].concat();
        let long = [&first_event[..], &events.concat(), &end].concat();
        Self {
            json,
            first_event,
            events,
            end,
            short_rest,
            long,
        }
    }
}

fn usage_object() -> Value {
    json!({"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 1000, "total_tokens": PROMPT_TOKENS + 1000})
}

fn completion() -> Value {
    json!({
        "id": "chatcmpl-8f1c", "object": "chat.completion", "created": 1_720_000_000, "model": "demo",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "A sentence or two of an answer. ".repeat(16)}, "finish_reason": "stop"}],
        "usage": usage_object(),
    })
}

fn chunk(choices: Value) -> Value {
    json!({"id": "chatcmpl-8f1c", "object": "chat.completion.chunk", "created": 1_720_000_000, "model": "demo", "choices": choices})
}

fn delta(n: usize) -> String {
    chunk(json!([{"index": 0, "delta": {"content": format!(" token{n}")}, "logprobs": null, "finish_reason": null}]))
        .to_string()
}

/// One event as one chunk.
fn event(data: &str) -> Vec<u8> {
    let event = format!("data: {data}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

/// What a response's head says about the end of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(usize),
    Chunked,
}

impl Framing {
    /// `Err`: not a 200, or no framing.
    pub fn of(head: &[u8]) -> Result<Self, String> {
        if !head.starts_with(b"HTTP/1.1 200") {
            return Err(String::from_utf8_lossy(head).into_owned());
        }
        match content_length(head) {
            Some(length) => Ok(Self::Length(length)),
            None if find(head, b"transfer-encoding: chunked\r\n").is_some() => Ok(Self::Chunked),
            None => Err(String::from_utf8_lossy(head).into_owned()),
        }
    }

    /// Whether `body` is whole. No body here contains the last chunk's bytes.
    pub fn complete(self, body: &[u8]) -> bool {
        match self {
            Self::Length(length) => body.len() >= length,
            Self::Chunked => body.ends_with(b"\r\n0\r\n\r\n"),
        }
    }
}

/// The value of `content-length`, spelled as Envoy and we spell it.
pub fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length: ";
    let value = &head[find(head, NAME)? + NAME.len()..];
    let end = find(value, b"\r\n")?;
    std::str::from_utf8(&value[..end]).ok()?.parse().ok()
}

/// Where `needle` starts.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

/// The payload of a chunked body.
pub fn dechunked(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut payload = Vec::with_capacity(body.len());
    loop {
        let line = find(body, b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&body[..line]).ok()?, 16).ok()?;
        if size == 0 {
            return Some(payload);
        }
        payload.extend_from_slice(body.get(line + 2..line + 2 + size)?);
        body = body.get(line + 4 + size..)?;
    }
}
