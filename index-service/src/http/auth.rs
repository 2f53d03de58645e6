//! Refuses callers of `/v1` that do not bring the token.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Failure;
use crate::state::Service;

/// Answers 401 unless the request brings the token.
pub async fn require_bearer(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Response {
    if service
        .bearer
        .admits(request.headers().get(header::AUTHORIZATION))
    {
        return next.run(request).await;
    }
    let failure = Failure::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "a valid bearer token is needed",
    );
    let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
    (challenge, failure).into_response()
}
