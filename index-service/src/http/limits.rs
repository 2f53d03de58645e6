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
use crate::tokens::pool::LARGE_TEXT_BYTES;

/// Longest name of a model.
pub const MODEL_NAME_BYTES_MAX: usize = 256;
/// Prompt bytes one permit of the text gate stands for.
const TEXT_PERMIT_BYTES: usize = 1024;

/// Counts what is in flight.
pub struct Gates {
    requests: Arc<Semaphore>,
    text: Arc<Semaphore>,
    /// Large prompts take three quarters of the room at most: a few of them could fill it.
    large_text: Arc<Semaphore>,
}

/// Room for one prompt, given back when it is dropped.
pub struct TextRoom {
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

impl Gates {
    /// Gates of the configured widths.
    pub fn new(limits: &Limits) -> Self {
        let text = limits
            .text_bytes_in_flight_max
            .div_ceil(TEXT_PERMIT_BYTES)
            .min(Semaphore::MAX_PERMITS);
        // Never so few that the largest prompt does not fit.
        let largest = limits.text_body_bytes_max.div_ceil(TEXT_PERMIT_BYTES);
        let large_text = (text / 4 * 3).max(largest).min(text);
        Self {
            requests: Arc::new(Semaphore::new(limits.concurrency_max)),
            text: Arc::new(Semaphore::new(text)),
            large_text: Arc::new(Semaphore::new(large_text)),
        }
    }

    /// Room for a prompt of `text_bytes`, if there is any.
    pub fn admit_text(&self, text_bytes: usize) -> Option<TextRoom> {
        let permits = u32::try_from(text_bytes.div_ceil(TEXT_PERMIT_BYTES)).ok()?;
        let take = |from: &Arc<Semaphore>| Arc::clone(from).try_acquire_many_owned(permits).ok();
        let large = if text_bytes < LARGE_TEXT_BYTES {
            None
        } else {
            Some(take(&self.large_text)?)
        };
        Some(TextRoom {
            _permits: (take(&self.text)?, large),
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn large_prompts_leave_room_for_small_ones() {
        let mut limits = Config::builtin().unwrap().limits;
        limits.text_body_bytes_max = 1 << 20;
        limits.text_bytes_in_flight_max = 8 << 20;
        let gates = Gates::new(&limits);
        let large: Vec<TextRoom> =
            std::iter::from_fn(|| gates.admit_text(LARGE_TEXT_BYTES)).collect();
        assert_eq!(large.len() * LARGE_TEXT_BYTES, 6 << 20);
        let small = gates.admit_text(2 << 10);
        assert!(small.is_some());
        drop(large);
        assert!(gates.admit_text(1 << 20).is_some());
    }

    #[test]
    fn the_largest_prompt_fits_alone() {
        let mut limits = Config::builtin().unwrap().limits;
        limits.text_bytes_in_flight_max = limits.text_body_bytes_max;
        let gates = Gates::new(&limits);
        assert!(gates.admit_text(limits.text_body_bytes_max).is_some());
    }
}
