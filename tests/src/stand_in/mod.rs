//! The stand-in LLM: a server without a model that answers as the four APIs do, for the demo, for
//! `./just up` and for tests of clients. It counts prompt tokens, streams with a delay, calls tools,
//! satisfies schemas, fails on demand, and refuses cache markers, which a strict backend would do too.

mod chat;
mod completions;
mod failures;
mod marker;
mod messages;
mod prompt;
mod refusal;
mod reply;
mod responses;
mod schema;
mod sse;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::HeaderMap,
    response::Response,
    routing::{MethodRouter, get, post},
};
use failures::Failures;
use refusal::{Envelope, Refusal};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Largest request body.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Overrides the delay for one request, in milliseconds.
pub const DELAY_HEADER: &str = "x-stand-in-delay-ms";
/// Longest delay between two chunks.
const DELAY_MS_MAX: u64 = 60_000;

/// What all requests share.
#[derive(Clone)]
struct Service {
    delay: Duration,
    failures: Arc<Failures>,
}

/// One of the APIs.
#[derive(Clone, Copy)]
struct Api {
    envelope: Envelope,
    answer: fn(&Value, Duration) -> Result<Response, Refusal>,
}

/// Serves until the process ends. `delay` is the pause before each streamed event.
pub async fn serve(listener: TcpListener, delay: Duration) -> std::io::Result<()> {
    let service = Service {
        delay,
        failures: Arc::default(),
    };
    let app = Router::new()
        .route(
            "/v1/chat/completions",
            route(Envelope::OpenAi, chat::answer),
        )
        .route("/v1/messages", route(Envelope::Anthropic, messages::answer))
        .route("/v1/responses", route(Envelope::OpenAi, responses::answer))
        .route(
            "/v1/completions",
            route(Envelope::OpenAi, completions::answer),
        )
        .route("/v1/models", get(models))
        .route("/healthz", get(|| async { "ok\n" }))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(service);
    axum::serve(listener, app).await
}

fn route(
    envelope: Envelope,
    answer: fn(&Value, Duration) -> Result<Response, Refusal>,
) -> MethodRouter<Service> {
    let api = Api { envelope, answer };
    post(
        move |State(service): State<Service>, headers: HeaderMap, body: Bytes| async move {
            let answered = handle(api, &service, &headers, &body);
            answered.unwrap_or_else(|refusal| refusal.response(api.envelope))
        },
    )
}

fn handle(
    api: Api,
    service: &Service,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, Refusal> {
    service.failures.next(headers)?;
    let request: Value = serde_json::from_slice(body)
        .map_err(|e| Refusal::invalid(format!("the body is not JSON: {e}")))?;
    if let Some(path) = marker::find(&request) {
        return Err(Refusal::unknown(api.envelope, &path));
    }
    (api.answer)(&request, delay_of(headers, service.delay))
}

async fn models() -> Json<Value> {
    Json(json!({
        "object": "list",
        "data": [{"id": "demo", "object": "model", "created": 0, "owned_by": "stand-in"}],
    }))
}

fn delay_of(headers: &HeaderMap, delay: Duration) -> Duration {
    headers
        .get(DELAY_HEADER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map_or(delay, |ms: u64| Duration::from_millis(ms.min(DELAY_MS_MAX)))
}

/// The members of an array; none of anything else.
fn items(value: &Value) -> impl DoubleEndedIterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
