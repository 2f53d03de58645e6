//! The stand-in LLM: an OpenAI-shaped server without a model, for the demo, for `./just up` and
//! for tests of clients. It counts prompt tokens, streams with a delay, and refuses cache markers,
//! which a strict backend would do too.

mod chat;
mod messages;
mod prompt;

use std::time::Duration;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Largest request body.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Overrides the delay for one request, in milliseconds.
pub const DELAY_HEADER: &str = "x-stand-in-delay-ms";
/// Longest delay between two chunks.
const DELAY_MS_MAX: u64 = 60_000;

/// Serves until the process ends. `delay` is the pause before each streamed chunk.
pub async fn serve(listener: TcpListener, delay: Duration) -> std::io::Result<()> {
    let app = Router::new()
        .route("/v1/chat/completions", post(completions))
        .route("/v1/messages", post(message))
        .route("/v1/models", get(models))
        .route("/healthz", get(|| async { "ok\n" }))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(delay);
    axum::serve(listener, app).await
}

async fn models() -> Json<Value> {
    Json(json!({
        "object": "list",
        "data": [{"id": "demo", "object": "model", "created": 0, "owned_by": "stand-in"}],
    }))
}

async fn completions(State(delay): State<Duration>, headers: HeaderMap, body: Bytes) -> Response {
    let delay = delay_of(&headers, delay);
    let request: Value = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(e) => return refuse(&format!("the body is not JSON: {e}")),
    };
    if let Some(path) = prompt::marker(&request) {
        return refuse(&format!("Unrecognized request argument supplied: {path}"));
    }
    let (Some(model), Some(_)) = (request["model"].as_str(), request["messages"].as_array()) else {
        return refuse("model and messages are required");
    };
    let asked_usage = request["stream_options"]["include_usage"] == true;
    let streams = request["stream"] == true;
    if !streams && !request["stream_options"].is_null() {
        return refuse("stream_options is only allowed when stream is enabled");
    }
    let answer = chat::Answer::new(model, prompt::count_tokens(&request));
    if streams {
        answer.stream(asked_usage, delay)
    } else {
        answer.json()
    }
}

async fn message(State(delay): State<Duration>, headers: HeaderMap, body: Bytes) -> Response {
    let delay = delay_of(&headers, delay);
    let request: Value = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(e) => return messages::refuse(&format!("the body is not JSON: {e}")),
    };
    if let Some(path) = prompt::marker(&request) {
        return messages::refuse(&format!("{path}: Extra inputs are not permitted"));
    }
    let (Some(model), Some(_), Some(_)) = (
        request["model"].as_str(),
        request["messages"].as_array(),
        request["max_tokens"].as_u64(),
    ) else {
        return messages::refuse("model, messages and max_tokens are required");
    };
    if !request["stream_options"].is_null() {
        return messages::refuse("stream_options: Extra inputs are not permitted");
    }
    let tokens = prompt::count_tokens(&request);
    if request["stream"] == true {
        messages::streamed(model, tokens, delay)
    } else {
        messages::whole(model, tokens)
    }
}

fn delay_of(headers: &HeaderMap, delay: Duration) -> Duration {
    headers
        .get(DELAY_HEADER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map_or(delay, |ms: u64| Duration::from_millis(ms.min(DELAY_MS_MAX)))
}

fn refuse(message: &str) -> Response {
    let error = json!({"error": {"message": message, "type": "invalid_request_error", "code": null, "param": null}});
    (StatusCode::BAD_REQUEST, Json(error)).into_response()
}
