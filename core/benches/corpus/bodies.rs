//! Requests and answers of a given kind and size.

use serde_json::{Value, json};

/// What a body is mostly made of.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A conversation in English with line breaks and some quotes.
    Chat,
    /// A conversation outside ASCII, not escaped.
    Chinese,
    /// The same, every character escaped.
    Escaped,
    /// Source code: an escape every few characters.
    Code,
    /// Tool definitions: short tokens.
    Tools,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Chat,
        Self::Chinese,
        Self::Escaped,
        Self::Code,
        Self::Tools,
    ];
}

const PROSE: &str = "The quick brown fox jumps over the lazy dog while the \"committee\" is still \
    discussing whether foxes ought to be allowed to jump at all.\n";
const CHINESE: &str = "敏捷的棕色狐狸跳过了懒狗，而委员会还在讨论是否应该允许狐狸跳跃。\n";
const CODE: &str = "    if (a[\"x\"] == \"\\n\") {\n\t\treturn f(\"%s\");\n    }\n";

/// A streamed chat request of about `bytes` with two markers, at its first and its last block.
pub fn body(kind: Kind, bytes: usize) -> Vec<u8> {
    let sentence = match kind {
        Kind::Chat | Kind::Tools => PROSE,
        Kind::Chinese | Kind::Escaped => CHINESE,
        Kind::Code => CODE,
    };
    let mut tools = Vec::new();
    if matches!(kind, Kind::Tools) {
        for i in 0..bytes / 330 {
            tools.push(json!({"type": "function", "function": {
                "name": format!("tool_{i}"), "description": "Looks something up.",
                "parameters": {"type": "object", "required": ["a"], "properties": {
                    "a": {"type": "string", "enum": ["x", "y", "z"]},
                    "b": {"type": "integer", "minimum": 0, "maximum": 100},
                    "c": {"type": "array", "items": {"type": "number"}}}}}}));
        }
    }
    let long = sentence.repeat(2_000 / sentence.len());
    let mut messages = vec![
        json!({"role": "system", "content": long, "cache_control": {"type": "ephemeral", "ttl": "1h"}}),
    ];
    let mut made = 2_000 + tools.len() * 330;
    while made < bytes {
        messages.push(json!({"role": "user", "content": [{"type": "text", "text": long}]}));
        messages
            .push(json!({"role": "assistant", "content": sentence.repeat(500 / sentence.len())}));
        made += if matches!(kind, Kind::Escaped) {
            5_200
        } else {
            2_700
        };
    }
    messages.push(json!({"role": "user", "content": [{"type": "text", "text": "go", "cache_control": {"type": "ephemeral"}}]}));
    let mut request =
        json!({"model": "m", "messages": messages, "stream": true, "temperature": 0.7});
    if !tools.is_empty() {
        request["tools"] = Value::Array(tools);
    }
    let text = request.to_string();
    if matches!(kind, Kind::Escaped) {
        let mut escaped = String::new();
        for c in text.chars() {
            if c.is_ascii() {
                escaped.push(c)
            } else {
                escaped += &format!("\\u{:04x}", c as u32)
            }
        }
        return escaped.into_bytes();
    }
    text.into_bytes()
}

/// Delta events, at least `bytes` of them; `usage` is written as the backend would.
pub fn deltas(bytes: usize, usage: &str) -> Vec<u8> {
    let mut chunk = String::new();
    while chunk.len() < bytes {
        chunk += &format!(
            "data: {{\"id\":\"chatcmpl-8f1c\",\"object\":\"chat.completion.chunk\",\"created\":1720000000,\"model\":\"llama\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" token{}\"}},\"logprobs\":null,\"finish_reason\":null}}]{usage}}}\n\n",
            chunk.len()
        );
    }
    chunk.into_bytes()
}
