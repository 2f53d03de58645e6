//! What one request may take: a place, a time, so many bytes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::Failure;
use crate::metrics::{Shed, Tally};
use crate::state::Service;

/// Refuses what exceeds `concurrency_max` and ends what exceeds `request_timeout_ms`.
pub async fn limit(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let Some(_place) = service.gates.admit_request() else {
        service.metrics.shed.count(Shed::Concurrency);
        return Failure::unavailable("overloaded", "too many requests").into_response();
    };
    let deadline = Duration::from_millis(service.limits.request_timeout_ms);
    match tokio::time::timeout(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            service.metrics.shed.count(Shed::Timeout);
            Failure::new(
                StatusCode::GATEWAY_TIMEOUT,
                "timeout",
                "the request took too long",
            )
            .into_response()
        }
    }
}

/// The body's announced length.
pub fn announced_bytes(headers: &HeaderMap) -> Option<usize> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// 413 over the limit (without reading, when the length was announced), 400 for a broken body.
pub async fn read_body(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Failure> {
    if announced_bytes(headers).is_some_and(|length| length > limit) {
        return Err(Failure::too_large(limit));
    }
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Failure::too_large(limit)),
        Err(_) => Err(Failure::invalid("the body broke off")),
    }
}
