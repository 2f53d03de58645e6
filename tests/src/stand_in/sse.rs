//! Event streams.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::Value;

/// The end of an OpenAI stream of choices.
pub const DONE: &str = "data: [DONE]\n\n";

/// An event without a name.
pub fn plain(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// An event named by its own `type`.
pub fn named(data: &Value) -> String {
    let name = data["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n")
}

/// These events, with a pause before each.
pub fn response(events: Vec<String>, delay: Duration) -> Response {
    let body = stream::unfold(events.into_iter(), move |mut events| async move {
        let event = events.next()?;
        tokio::time::sleep(delay).await;
        Some((Ok::<_, Infallible>(Bytes::from(event)), events))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream")];
    (headers, Body::from_stream(body)).into_response()
}
