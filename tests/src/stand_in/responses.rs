//! The Responses API. Nothing is stored: a request that continues an earlier response is refused,
//! as the API does with one it does not know.

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    chat::{choice, format, texts},
    items, prompt,
    refusal::{Envelope, Refusal},
    reply::{Ask, Reply},
    sse,
};

const CALL_ID: &str = "call_stand-in";

/// Answers a request for a response.
pub fn answer(request: &Value, delay: Duration) -> Result<Response, Refusal> {
    let (Some(model), Value::String(_) | Value::Array(_)) =
        (request["model"].as_str(), &request["input"])
    else {
        return Err(Refusal::invalid("model and input are required"));
    };
    if let Some(id) = request["previous_response_id"].as_str() {
        return Err(Refusal::invalid(format!(
            "Previous response with id '{id}' not found."
        )));
    }
    // Usage comes without being asked for.
    if request["stream_options"].get("include_usage").is_some() {
        return Err(Refusal::unknown(
            Envelope::OpenAi,
            "stream_options.include_usage",
        ));
    }
    let answer = Answer {
        request,
        model,
        input_tokens: prompt::count_tokens(request),
        reply: Reply::to(&ask(request))?,
    };
    Ok(if request["stream"] == true {
        sse::response(answer.events(), delay)
    } else {
        Json(answer.response(Stage::Completed)).into_response()
    })
}

fn ask(request: &Value) -> Ask<'_> {
    let tools = items(&request["tools"])
        .filter_map(|tool| Some((tool["name"].as_str()?, &tool["parameters"])));
    let input = &request["input"];
    Ask {
        tools: tools.collect(),
        choice: choice(&request["tool_choice"], "/name"),
        format: format(&request["text"]["format"], "/schema"),
        last_texts: match items(input).next_back() {
            None => texts(input),
            Some(last) if last["role"] == "user" => texts(&last["content"]),
            Some(_) => Vec::new(),
        },
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    InProgress,
    Completed,
}

impl Stage {
    fn status(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        }
    }
}

struct Answer<'r> {
    request: &'r Value,
    model: &'r str,
    input_tokens: u64,
    reply: Reply,
}

impl Answer<'_> {
    /// The response object at that stage.
    fn response(&self, stage: Stage) -> Value {
        let asked = |name: &str, otherwise: Value| match &self.request[name] {
            Value::Null => otherwise,
            value => value.clone(),
        };
        let (output, usage) = match stage {
            Stage::InProgress => (json!([]), Value::Null),
            Stage::Completed => (json!([self.item(stage)]), self.usage()),
        };
        json!({
            "id": "resp_stand-in", "object": "response", "created_at": 0,
            "status": stage.status(),
            "background": false, "error": null, "incomplete_details": null,
            "instructions": self.request["instructions"], "max_output_tokens": null,
            "metadata": asked("metadata", json!({})), "model": self.model, "output": output,
            "parallel_tool_calls": true, "previous_response_id": null,
            "reasoning": {"effort": null, "summary": null}, "store": false, "temperature": 1.0,
            "text": asked("text", json!({"format": {"type": "text"}})),
            "tool_choice": asked("tool_choice", json!("auto")), "tools": asked("tools", json!([])),
            "top_p": 1.0, "truncation": "disabled", "usage": usage, "user": null,
        })
    }

    fn usage(&self) -> Value {
        let output_tokens = self.reply.tokens();
        json!({
            "input_tokens": self.input_tokens, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": output_tokens, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.input_tokens + output_tokens,
        })
    }

    /// The only output item at that stage.
    fn item(&self, stage: Stage) -> Value {
        // Until it is complete it is empty.
        let said = |pieces: &[String]| match stage {
            Stage::InProgress => None,
            Stage::Completed => Some(pieces.concat()),
        };
        match &self.reply {
            Reply::Text(words) => json!({
                "id": self.item_id(), "type": "message", "role": "assistant",
                "status": stage.status(),
                "content": Vec::from_iter(said(words).map(|text| part(&text))),
            }),
            Reply::Call { name, arguments } => json!({
                "id": self.item_id(), "type": "function_call", "status": stage.status(),
                "call_id": CALL_ID, "name": name,
                "arguments": said(arguments).unwrap_or_default(),
            }),
        }
    }

    fn item_id(&self) -> &'static str {
        match self.reply {
            Reply::Text(_) => "msg_stand-in",
            Reply::Call { .. } => "fc_stand-in",
        }
    }

    fn events(&self) -> Vec<String> {
        let in_progress = self.response(Stage::InProgress);
        let mut events = vec![
            json!({"type": "response.created", "response": in_progress}),
            json!({"type": "response.in_progress", "response": in_progress}),
            json!({
                "type": "response.output_item.added", "output_index": 0,
                "item": self.item(Stage::InProgress),
            }),
        ];
        match &self.reply {
            Reply::Text(words) => events.extend(self.text_events(words)),
            Reply::Call { name, arguments } => events.extend(self.call_events(name, arguments)),
        }
        events.extend([
            json!({
                "type": "response.output_item.done", "output_index": 0,
                "item": self.item(Stage::Completed),
            }),
            json!({"type": "response.completed", "response": self.response(Stage::Completed)}),
        ]);
        let numbered = events.into_iter().enumerate().map(|(number, mut event)| {
            event["sequence_number"] = number.into();
            sse::named(&event)
        });
        numbered.collect()
    }

    fn text_events(&self, words: &[String]) -> Vec<Value> {
        let event = |kind: &str, member: &str, value: Value| {
            let mut event = json!({
                "type": kind, "item_id": self.item_id(), "output_index": 0, "content_index": 0,
            });
            event[member] = value;
            if member != "part" {
                event["logprobs"] = json!([]);
            }
            event
        };
        let text = words.concat();
        let mut events = vec![event("response.content_part.added", "part", part(""))];
        events.extend(
            words
                .iter()
                .map(|word| event("response.output_text.delta", "delta", json!(word))),
        );
        events.extend([
            event("response.output_text.done", "text", json!(text)),
            event("response.content_part.done", "part", part(&text)),
        ]);
        events
    }

    fn call_events(&self, name: &str, arguments: &[String]) -> Vec<Value> {
        let mut events: Vec<Value> = arguments
            .iter()
            .map(|piece| {
                json!({
                    "type": "response.function_call_arguments.delta", "item_id": self.item_id(),
                    "output_index": 0, "delta": piece,
                })
            })
            .collect();
        events.push(json!({
            "type": "response.function_call_arguments.done", "item_id": self.item_id(),
            "output_index": 0, "name": name, "arguments": arguments.concat(),
        }));
        events
    }
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}
