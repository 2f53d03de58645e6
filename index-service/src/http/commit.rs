//! `POST /v1/commit`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use prompt_cache_core::wire::CommitBatch;

use super::limits::read_body;
use super::{Failure, checks, json};
use crate::state::Service;

/// Writes a batch and answers once it is durable.
pub async fn commit(
    State(service): State<Arc<Service>>,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let bytes = read_body(&parts.headers, body, service.limits.commit_body_bytes_max).await?;
    let batch: CommitBatch = checks::parse(&bytes)?;
    checks::commit(&batch)?;
    match crate::commit::commit(&service, &batch).await {
        Ok(answer) => Ok(json(&answer)),
        Err(_) => Err(Failure::unavailable(
            "store_unavailable",
            "the store did not answer",
        )),
    }
}
