//! Caps on what is in flight: requests, prompt bytes, body sizes, time.
//!
//! Nothing waits for room: what does not fit is refused at once, so that the filter degrades
//! within its own deadline instead of queueing here.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Failure;
use crate::config::Limits;
use crate::metrics::{Shed, Tally};
use crate::state::Service;

/// Longest name of a model.
pub const MODEL_NAME_BYTES_MAX: usize = 256;
/// Prompt bytes one permit of the text gate stands for.
const TEXT_PERMIT_BYTES: usize = 1024;

/// Counts what is in flight.
pub struct Gates {
    requests: Arc<Semaphore>,
    text: Arc<Semaphore>,
}

impl Gates {
    /// Gates of the configured widths.
    pub fn new(limits: &Limits) -> Self {
        let text = limits.text_bytes_in_flight_max.div_ceil(TEXT_PERMIT_BYTES);
        Self {
            requests: Arc::new(Semaphore::new(limits.concurrency_max)),
            text: Arc::new(Semaphore::new(text.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Room for a prompt of `text_bytes`, if there is any.
    pub fn admit_text(&self, text_bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(text_bytes.div_ceil(TEXT_PERMIT_BYTES)).ok()?;
        Arc::clone(&self.text).try_acquire_many_owned(permits).ok()
    }
}

/// Refuses what exceeds `concurrency_max` and ends what exceeds `request_timeout_ms`.
pub async fn limit(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let Ok(_permit) = service.gates.requests.try_acquire() else {
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
