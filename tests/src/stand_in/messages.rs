//! The Messages API.

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    chat::texts,
    items, prompt,
    refusal::{Envelope, Refusal},
    reply::{Ask, Choice, Reply},
    sse,
};

const CALL_ID: &str = "toolu_stand-in";

/// Answers a message.
pub fn answer(request: &Value, delay: Duration) -> Result<Response, Refusal> {
    let (Some(model), Some(_), Some(_)) = (
        request["model"].as_str(),
        request["messages"].as_array(),
        request["max_tokens"].as_u64(),
    ) else {
        return Err(Refusal::invalid(
            "model, messages and max_tokens are required",
        ));
    };
    if !request["stream_options"].is_null() {
        return Err(Refusal::unknown(Envelope::Anthropic, "stream_options"));
    }
    let answer = Answer {
        model,
        input_tokens: prompt::count_tokens(request),
        reply: Reply::to(&ask(request))?,
    };
    Ok(if request["stream"] == true {
        sse::response(answer.events(), delay)
    } else {
        answer.whole()
    })
}

fn ask(request: &Value) -> Ask<'_> {
    let tools = items(&request["tools"])
        .filter_map(|tool| Some((tool["name"].as_str()?, &tool["input_schema"])));
    // As it is spelled now, and in the beta.
    let formats = [
        &request["output_config"]["format"],
        &request["output_format"],
    ];
    let format = formats
        .into_iter()
        .find(|format| format["type"] == "json_schema");
    let choice = &request["tool_choice"];
    Ask {
        tools: tools.collect(),
        choice: match (choice["type"].as_str(), choice["name"].as_str()) {
            (Some("any"), _) => Choice::Any,
            (Some("none"), _) => Choice::None,
            (Some("tool"), Some(name)) => Choice::Named(name),
            _ => Choice::Free,
        },
        format: format.map(|format| format["schema"].clone()),
        last_texts: match items(&request["messages"]).next_back() {
            Some(last) if last["role"] == "user" && !has_result(last) => texts(&last["content"]),
            _ => Vec::new(),
        },
    }
}

fn has_result(message: &Value) -> bool {
    items(&message["content"]).any(|block| block["type"] == "tool_result")
}

struct Answer<'r> {
    model: &'r str,
    input_tokens: u64,
    reply: Reply,
}

impl Answer<'_> {
    fn stop_reason(&self) -> &'static str {
        match self.reply {
            Reply::Text(_) => "end_turn",
            Reply::Call { .. } => "tool_use",
        }
    }

    fn whole(&self) -> Response {
        let mut message = self.start();
        message["content"] = match &self.reply {
            Reply::Text(words) => json!([{"type": "text", "text": words.concat()}]),
            Reply::Call { name, arguments } => {
                let input: Value = serde_json::from_str(&arguments.concat()).unwrap_or_default();
                json!([{"type": "tool_use", "id": CALL_ID, "name": name, "input": input}])
            }
        };
        message["stop_reason"] = self.stop_reason().into();
        message["usage"]["output_tokens"] = self.reply.tokens().into();
        Json(message).into_response()
    }

    fn events(&self) -> Vec<String> {
        let (block, deltas): (Value, Vec<Value>) = match &self.reply {
            Reply::Text(words) => (
                json!({"type": "text", "text": ""}),
                words
                    .iter()
                    .map(|word| json!({"type": "text_delta", "text": word}))
                    .collect(),
            ),
            Reply::Call { name, arguments } => (
                json!({"type": "tool_use", "id": CALL_ID, "name": name, "input": {}}),
                arguments
                    .iter()
                    .map(|piece| json!({"type": "input_json_delta", "partial_json": piece}))
                    .collect(),
            ),
        };
        let mut events = vec![
            json!({"type": "message_start", "message": self.start()}),
            json!({"type": "content_block_start", "index": 0, "content_block": block}),
        ];
        events.extend(
            deltas
                .into_iter()
                .map(|delta| json!({"type": "content_block_delta", "index": 0, "delta": delta})),
        );
        events.extend([
            json!({"type": "content_block_stop", "index": 0}),
            json!({
                "type": "message_delta",
                "delta": {"stop_reason": self.stop_reason(), "stop_sequence": null},
                "usage": {"output_tokens": self.reply.tokens()},
            }),
            json!({"type": "message_stop"}),
        ]);
        events.iter().map(sse::named).collect()
    }

    fn start(&self) -> Value {
        json!({
            "id": "msg_stand-in", "type": "message", "role": "assistant", "model": self.model,
            "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": {
                "input_tokens": self.input_tokens, "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0, "output_tokens": 1,
            },
        })
    }
}
