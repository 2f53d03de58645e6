//! The stand-in's answers in the shape of the Messages API.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    body::{Body, Bytes},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::{Value, json};

use super::chat::WORDS;

/// The answer to a prompt of `input_tokens`, whole.
pub fn whole(model: &str, input_tokens: u64) -> Response {
    let mut message = start(model, input_tokens);
    message["content"] = json!([{"type": "text", "text": WORDS.concat()}]);
    message["stop_reason"] = "end_turn".into();
    message["usage"]["output_tokens"] = WORDS.len().into();
    Json(message).into_response()
}

/// The same as an event stream, pausing before each event.
pub fn streamed(model: &str, input_tokens: u64, delay: Duration) -> Response {
    let text = |text: &str| json!({"type": "text_delta", "text": text});
    let mut events = vec![
        json!({"type": "message_start", "message": start(model, input_tokens)}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    ];
    events.extend(
        WORDS
            .iter()
            .map(|word| json!({"type": "content_block_delta", "index": 0, "delta": text(word)})),
    );
    events.extend([
        json!({"type": "content_block_stop", "index": 0}),
        json!({
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": {"output_tokens": WORDS.len()},
        }),
        json!({"type": "message_stop"}),
    ]);
    let body = stream::unfold(events.into_iter(), move |mut events| async move {
        let event = events.next()?;
        tokio::time::sleep(delay).await;
        let name = event["type"].as_str().unwrap_or_default();
        let bytes = Bytes::from(format!("event: {name}\ndata: {event}\n\n"));
        Some((Ok::<_, Infallible>(bytes), events))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream")];
    (headers, Body::from_stream(body)).into_response()
}

/// A request that is refused.
pub fn refuse(message: &str) -> Response {
    let error =
        json!({"type": "error", "error": {"type": "invalid_request_error", "message": message}});
    (StatusCode::BAD_REQUEST, Json(error)).into_response()
}

fn start(model: &str, input_tokens: u64) -> Value {
    json!({
        "id": "msg_stand-in", "type": "message", "role": "assistant", "model": model,
        "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {
            "input_tokens": input_tokens, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0, "output_tokens": 1,
        },
    })
}
