//! The stand-in's answers: the same sentence, whole or word by word.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    body::{Body, Bytes},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::{Value, json};

const ID: &str = "chatcmpl-stand-in";
pub const WORDS: [&str; 8] = [
    "I",
    " am",
    " a",
    " stand-in",
    ";",
    " nobody",
    " thought",
    ".",
];

/// One answer.
pub struct Answer {
    model: String,
    prompt_tokens: u64,
}

impl Answer {
    /// The answer to a prompt of `prompt_tokens`.
    pub fn new(model: &str, prompt_tokens: u64) -> Self {
        Self {
            model: model.to_owned(),
            prompt_tokens,
        }
    }

    fn usage(&self) -> Value {
        let completion_tokens = WORDS.len() as u64;
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
        })
    }

    /// As one JSON object.
    pub fn json(&self) -> Response {
        Json(json!({
            "id": ID, "object": "chat.completion", "created": 0, "model": self.model,
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": WORDS.concat()},
                "finish_reason": "stop",
            }],
            "usage": self.usage(),
        }))
        .into_response()
    }

    /// As an event stream, pausing before each chunk.
    pub fn stream(&self, include_usage: bool, delay: Duration) -> Response {
        let events = self.events(include_usage);
        let body = stream::unfold(events.into_iter(), move |mut events| async move {
            let event = events.next()?;
            tokio::time::sleep(delay).await;
            Some((
                Ok::<_, Infallible>(Bytes::from(format!("data: {event}\n\n"))),
                events,
            ))
        });
        (
            [(CONTENT_TYPE, "text/event-stream")],
            Body::from_stream(body),
        )
            .into_response()
    }

    fn events(&self, include_usage: bool) -> Vec<String> {
        let mut choices: Vec<Value> = vec![json!({"role": "assistant", "content": ""})];
        choices.extend(WORDS.iter().map(|word| json!({"content": word})));
        let mut events: Vec<String> = choices
            .into_iter()
            .map(|delta| json!([{"index": 0, "delta": delta, "finish_reason": null}]))
            .chain([json!([{"index": 0, "delta": {}, "finish_reason": "stop"}])])
            .map(|choices| self.event(choices, include_usage.then_some(Value::Null)))
            .collect();
        if include_usage {
            events.push(self.event(json!([]), Some(self.usage())));
        }
        events.push("[DONE]".to_owned());
        events
    }

    fn event(&self, choices: Value, usage: Option<Value>) -> String {
        let mut event = json!({
            "id": ID, "object": "chat.completion.chunk", "created": 0, "model": self.model,
            "choices": choices,
        });
        if let Some(usage) = usage {
            event["usage"] = usage;
        }
        event.to_string()
    }
}
