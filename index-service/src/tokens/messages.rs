//! A Messages request as the chat request that engines make of it before they render it.
//!
//! Each of its blocks becomes blocks of the chat form, in the same order: `system` is the first
//! message, a tool's result is a message of its own, thinking is the reasoning of what follows
//! it, and text after a tool's use starts another message.

use serde_json::{Map, Value, json};

/// The chat form, and for each block of the request how many blocks of the chat form end with it.
pub(super) struct ChatForm {
    pub body: Vec<u8>,
    pub ends: Vec<u32>,
}

/// Converts a body; `None` when it is no JSON object.
pub(super) fn chat_form(body: &[u8]) -> Option<ChatForm> {
    let mut request: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let mut form = Form::default();
    if let Some(Value::Array(tools)) = request.get_mut("tools") {
        for tool in tools {
            *tool = function(tool.take());
            form.add(1);
        }
    }
    match request.remove("system") {
        Some(Value::String(text)) => {
            form.messages
                .push(json!({"role": "system", "content": text}));
            form.add(1);
        }
        Some(Value::Array(parts)) if !parts.is_empty() => {
            let parts = parts.into_iter().map(|block| {
                form.add(1);
                part(block)
            });
            let content: Vec<Value> = parts.collect();
            form.messages
                .push(json!({"role": "system", "content": content}));
        }
        _ => {}
    }
    if let Some(Value::Array(messages)) = request.remove("messages") {
        for message in messages {
            form.message(message);
        }
    }
    request.insert("messages".to_owned(), form.messages.into());
    Some(ChatForm {
        body: serde_json::to_vec(&request).ok()?,
        ends: form.ends,
    })
}

#[derive(Default)]
struct Form {
    messages: Vec<Value>,
    /// Blocks of the chat form so far.
    blocks: u32,
    ends: Vec<u32>,
    /// The message that is being put together.
    open: Open,
}

#[derive(Default)]
struct Open {
    reasoning: String,
    parts: Vec<Value>,
    calls: Vec<Value>,
}

impl Form {
    /// A block of the request, which is `blocks` of the chat form.
    fn add(&mut self, blocks: usize) {
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        self.blocks = self.blocks.saturating_add(blocks);
        self.ends.push(self.blocks);
    }

    fn message(&mut self, message: Value) {
        let role = message.get("role").cloned().unwrap_or_default();
        let blocks = match message.get("content") {
            Some(Value::Array(blocks)) if !blocks.is_empty() => blocks.clone(),
            content => {
                let content = content.filter(|content| content.is_string());
                self.messages.push(if message.is_object() {
                    json!({"role": role, "content": content})
                } else {
                    message
                });
                self.add(1);
                return;
            }
        };
        for block in blocks {
            self.block(&role, block);
        }
        self.close(&role);
    }

    fn block(&mut self, role: &Value, block: Value) {
        match kind(&block) {
            "tool_use" => {
                let input = block.get("input").cloned().unwrap_or_default();
                self.open.calls.push(json!({
                    "id": block.get("id"), "type": "function",
                    "function": {"name": block.get("name"), "arguments": input},
                }));
                self.add(1);
            }
            "tool_result" => {
                self.close(role);
                let (content, blocks) = match block.get("content") {
                    Some(Value::Array(parts)) if !parts.is_empty() => {
                        let parts: Vec<Value> = parts.iter().cloned().map(part).collect();
                        let count = parts.len();
                        (parts.into(), count)
                    }
                    Some(Value::String(text)) => (text.as_str().into(), 1),
                    _ => ("".into(), 1),
                };
                let content: Value = content;
                self.messages.push(json!({
                    "role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content,
                }));
                self.add(blocks);
            }
            "thinking" => {
                if !self.open.parts.is_empty() || !self.open.calls.is_empty() {
                    self.close(role);
                }
                self.open.reasoning += text_of(block.get("thinking"));
                self.add(0);
            }
            "redacted_thinking" => self.add(0),
            _ => {
                if !self.open.calls.is_empty() {
                    self.close(role);
                }
                self.open.parts.push(part(block));
                self.add(1);
            }
        }
    }

    fn close(&mut self, role: &Value) {
        let open = std::mem::take(&mut self.open);
        let empty = open.parts.is_empty() && open.calls.is_empty();
        if empty && open.reasoning.is_empty() {
            return;
        }
        let mut message = Map::new();
        message.insert("role".to_owned(), role.clone());
        if !open.reasoning.is_empty() {
            message.insert("reasoning_content".to_owned(), open.reasoning.into());
        }
        if !open.parts.is_empty() {
            message.insert("content".to_owned(), open.parts.into());
        }
        if !open.calls.is_empty() {
            message.insert("tool_calls".to_owned(), open.calls.into());
        }
        self.messages.push(message.into());
        if empty {
            // A message of nothing but reasoning is a block of the chat form.
            self.blocks = self.blocks.saturating_add(1);
            if let Some(end) = self.ends.last_mut() {
                *end = self.blocks;
            }
        }
    }
}

pub(super) fn kind(block: &Value) -> &str {
    text_of(block.get("type"))
}

pub(super) fn text_of(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}

/// A tool with a schema as a function.
fn function(mut tool: Value) -> Value {
    let Some(schema) = tool.get_mut("input_schema").map(Value::take) else {
        return tool;
    };
    let mut function = Map::new();
    for name in ["name", "description"] {
        if let Some(value) = tool.get_mut(name) {
            function.insert(name.to_owned(), value.take());
        }
    }
    function.insert("parameters".to_owned(), schema);
    json!({"type": "function", "function": function})
}

/// A content block as a content part: text where it has any.
fn part(mut block: Value) -> Value {
    match kind(&block) {
        "text" => json!({"type": "text", "text": block.get_mut("text").map(Value::take)}),
        "image" => {
            let source = block.get("source");
            let of = |name| text_of(source.and_then(|source| source.get(name)));
            let url = match of("url") {
                "" => format!("data:{};base64,{}", of("media_type"), of("data")),
                url => url.to_owned(),
            };
            json!({"type": "image_url", "image_url": {"url": url}})
        }
        "document" | "search_result" => {
            let source = block.get("source");
            let plain = source.filter(|source| text_of(source.get("type")) == "text");
            let mut text = text_of(plain.and_then(|source| source.get("data"))).to_owned();
            let inner = source.and_then(|source| source.get("content"));
            for content in [inner, block.get("content")].into_iter().flatten() {
                text += text_of(Some(content));
                for item in content.as_array().into_iter().flatten() {
                    text += text_of(item.get("text"));
                }
            }
            json!({"type": "text", "text": text})
        }
        _ => block,
    }
}

#[cfg(test)]
mod tests {
    use prompt_cache_core::{
        api::Api,
        request::{scan, scan_as},
    };

    use super::*;

    #[test]
    fn every_block_has_its_place_in_the_chat_form() {
        let body = json!({
            "model": "m",
            "tools": [
                {"name": "look", "description": "d", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}},
                {"type": "web_search_20250305", "name": "web_search"},
            ],
            "system": [{"type": "text", "text": "s"}, {"type": "text", "text": "t", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "x"},
                    {"type": "text", "text": "a"},
                    {"type": "tool_use", "id": "1", "name": "look", "input": {"b": 1, "a": 2}},
                    {"type": "tool_use", "id": "2", "name": "look", "input": {}},
                    {"type": "text", "text": "after"},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "1", "content": "one"},
                    {"type": "tool_result", "tool_use_id": "2", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]},
                    {"type": "tool_result", "tool_use_id": "3"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "doc"}},
                ]},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "only"}]},
                {"role": "user", "content": []},
            ],
        });
        let body = serde_json::to_vec(&body).unwrap();
        let form = chat_form(&body).unwrap();
        let blocks = scan_as(Api::Messages, &body).unwrap().block_count();
        assert_eq!(blocks, form.ends.len());
        assert_eq!(
            form.ends,
            [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17]
        );
        assert_eq!(scan(&form.body).unwrap().block_count(), 17);
        let chat: Value = serde_json::from_slice(&form.body).unwrap();
        assert_eq!(
            chat,
            json!({
                "model": "m",
                "tools": [
                    {"type": "function", "function": {"name": "look", "description": "d", "parameters": {"type": "object"}}},
                    {"type": "web_search_20250305", "name": "web_search"},
                ],
                "messages": [
                    {"role": "system", "content": [{"type": "text", "text": "s"}, {"type": "text", "text": "t"}]},
                    {"role": "user", "content": "hi"},
                    {"role": "assistant", "reasoning_content": "hm", "content": [{"type": "text", "text": "a"}], "tool_calls": [
                        {"id": "1", "type": "function", "function": {"name": "look", "arguments": {"b": 1, "a": 2}}},
                        {"id": "2", "type": "function", "function": {"name": "look", "arguments": {}}},
                    ]},
                    {"role": "assistant", "content": [{"type": "text", "text": "after"}]},
                    {"role": "tool", "tool_call_id": "1", "content": "one"},
                    {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]},
                    {"role": "tool", "tool_call_id": "3", "content": ""},
                    {"role": "user", "content": [
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                        {"type": "text", "text": "doc"},
                    ]},
                    {"role": "assistant", "reasoning_content": "only"},
                    {"role": "user", "content": null},
                ],
            })
        );
    }
}
