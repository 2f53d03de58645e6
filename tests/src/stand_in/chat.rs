//! Chat completions.

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    items, prompt,
    refusal::{self, Refusal},
    reply::{Ask, Choice, Reply},
    sse,
};

const ID: &str = "chatcmpl-stand-in";
const CALL_ID: &str = "call_stand-in";

/// Answers a chat completion.
pub fn answer(request: &Value, delay: Duration) -> Result<Response, Refusal> {
    let (Some(model), Some(_)) = (request["model"].as_str(), request["messages"].as_array()) else {
        return Err(Refusal::invalid("model and messages are required"));
    };
    let streams = refusal::streams(request)?;
    let answer = Answer {
        model,
        prompt_tokens: prompt::count_tokens(request),
        reply: Reply::to(&ask(request))?,
    };
    Ok(if streams {
        let include_usage = request["stream_options"]["include_usage"] == true;
        sse::response(answer.events(include_usage), delay)
    } else {
        answer.whole()
    })
}

fn ask(request: &Value) -> Ask<'_> {
    let tools = items(&request["tools"]).filter_map(|tool| {
        let function = &tool["function"];
        Some((function["name"].as_str()?, &function["parameters"]))
    });
    Ask {
        tools: tools.collect(),
        choice: choice(&request["tool_choice"], "/function/name"),
        format: format(&request["response_format"], "/json_schema/schema"),
        last_texts: match items(&request["messages"]).next_back() {
            Some(last) if last["role"] == "user" => texts(&last["content"]),
            _ => Vec::new(),
        },
    }
}

/// A `tool_choice`; a named one has its name at `name`.
pub fn choice<'r>(choice: &'r Value, name: &str) -> Choice<'r> {
    match (choice.as_str(), choice.pointer(name)) {
        (Some("required"), _) => Choice::Any,
        (Some("none"), _) => Choice::None,
        (_, Some(Value::String(name))) => Choice::Named(name),
        _ => Choice::Free,
    }
}

/// The schema of a format that asks for JSON; a given one is at `schema`.
pub fn format(format: &Value, schema: &str) -> Option<Value> {
    match format["type"].as_str()? {
        "json_schema" => Some(format.pointer(schema).cloned().unwrap_or(json!({}))),
        "json_object" => Some(json!({"type": "object"})),
        _ => None,
    }
}

/// The texts of a content.
pub fn texts(content: &Value) -> Vec<&str> {
    let parts = items(content).filter_map(|part| part["text"].as_str());
    content.as_str().into_iter().chain(parts).collect()
}

struct Answer<'r> {
    model: &'r str,
    prompt_tokens: u64,
    reply: Reply,
}

impl Answer<'_> {
    fn usage(&self) -> Value {
        let completion_tokens = self.reply.tokens();
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
        })
    }

    fn finish_reason(&self) -> &'static str {
        match self.reply {
            Reply::Text(_) => "stop",
            Reply::Call { .. } => "tool_calls",
        }
    }

    fn whole(&self) -> Response {
        let message = match &self.reply {
            Reply::Text(words) => json!({"role": "assistant", "content": words.concat()}),
            Reply::Call { name, arguments } => json!({
                "role": "assistant", "content": null,
                "tool_calls": [{
                    "id": CALL_ID, "type": "function",
                    "function": {"name": name, "arguments": arguments.concat()},
                }],
            }),
        };
        Json(json!({
            "id": ID, "object": "chat.completion", "created": 0, "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish_reason()}],
            "usage": self.usage(),
        }))
        .into_response()
    }

    fn deltas(&self) -> Vec<Value> {
        let mut deltas = Vec::new();
        match &self.reply {
            Reply::Text(words) => {
                deltas.push(json!({"role": "assistant", "content": ""}));
                deltas.extend(words.iter().map(|word| json!({"content": word})));
            }
            Reply::Call { name, arguments } => {
                deltas.push(json!({
                    "role": "assistant", "content": null,
                    "tool_calls": [{
                        "index": 0, "id": CALL_ID, "type": "function",
                        "function": {"name": name, "arguments": ""},
                    }],
                }));
                deltas.extend(arguments.iter().map(
                    |piece| json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}),
                ));
            }
        }
        deltas
    }

    fn events(&self, include_usage: bool) -> Vec<String> {
        let mut events: Vec<String> = self
            .deltas()
            .into_iter()
            .map(|delta| json!([{"index": 0, "delta": delta, "finish_reason": null}]))
            .chain([json!([{"index": 0, "delta": {}, "finish_reason": self.finish_reason()}])])
            .map(|choices| self.event(&choices, include_usage.then_some(Value::Null)))
            .collect();
        if include_usage {
            events.push(self.event(&json!([]), Some(self.usage())));
        }
        events.push(sse::DONE.to_owned());
        events
    }

    fn event(&self, choices: &Value, usage: Option<Value>) -> String {
        let mut event = json!({
            "id": ID, "object": "chat.completion.chunk", "created": 0, "model": self.model,
            "choices": choices,
        });
        if let Some(usage) = usage {
            event["usage"] = usage;
        }
        sse::plain(&event)
    }
}
