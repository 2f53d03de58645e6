//! `POST /v1/classify`: the JSON form, and the form that brings the prompt.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::Bytes;
use prompt_cache_core::wire::{ClassifyRequest, TEXT_CONTENT_TYPE};

use super::limits::{announced_bytes, read_body};
use super::{Failure, checks, json};
use crate::classify::ClassifyError;
use crate::metrics::{ClassifyOutcome, Shed, Tally};
use crate::state::Service;

/// Handles both forms.
pub async fn classify(
    State(service): State<Arc<Service>>,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let limits = &service.limits;
    if brings_text(&parts.headers) {
        // A body of unknown length may become as long as the limit.
        let announced = announced_bytes(&parts.headers).unwrap_or(limits.text_body_bytes_max);
        let room = announced.min(limits.text_body_bytes_max);
        let Some(_room) = service.gates.admit_text(room) else {
            service.metrics.shed.count(Shed::TextBytes);
            return Err(Failure::unavailable(
                "overloaded",
                "too many prompts in flight",
            ));
        };
        let bytes = read_body(&parts.headers, body, limits.text_body_bytes_max).await?;
        let head_bytes = head_bytes(&bytes, limits.classify_body_bytes_max)?;
        let text = bytes.slice(head_bytes.saturating_add(1)..);
        run(&service, &bytes.slice(..head_bytes), Some(text)).await
    } else {
        let bytes = read_body(&parts.headers, body, limits.classify_body_bytes_max).await?;
        run(&service, &bytes, None).await
    }
}

async fn run(service: &Service, head: &[u8], text: Option<Bytes>) -> Result<Response, Failure> {
    let request: ClassifyRequest = checks::parse(head)
        .and_then(|request| checks::classify(&request).map(|()| request))
        .inspect_err(|_| {
            service.metrics.classify.count(ClassifyOutcome::Invalid);
        })?;
    let answer = crate::classify::classify(service, &request, text).await?;
    Ok(json(&answer))
}

fn brings_text(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            let base = value.split(';').next().unwrap_or_default().trim();
            base.eq_ignore_ascii_case(TEXT_CONTENT_TYPE)
        })
}

/// Length of the first line, without its end.
fn head_bytes(bytes: &[u8], limit: usize) -> Result<usize, Failure> {
    match bytes
        .iter()
        .take(limit.saturating_add(1))
        .position(|byte| *byte == b'\n')
    {
        Some(end) => Ok(end),
        None if bytes.len() > limit => Err(Failure::too_large(limit)),
        None => Err(Failure::invalid("the line with the request has no end")),
    }
}

impl From<ClassifyError> for Failure {
    fn from(error: ClassifyError) -> Self {
        match error {
            ClassifyError::Invalid(why) => Self::invalid(why),
            ClassifyError::Store(_) => Self::unavailable("store_unavailable", error.to_string()),
            ClassifyError::Busy => Self::unavailable("overloaded", error.to_string()),
        }
    }
}
