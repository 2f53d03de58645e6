//! The HTTP API: routes, and the one shape of error answers.

mod auth;
mod checks;
mod classify;
mod commit;
mod health;
mod limits;
mod policy;
mod purge;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use prompt_cache_core::wire::{CLASSIFY_PATH, COMMIT_PATH, POLICY_PATH, READY_PATH};
use serde::Serialize;

use crate::state::Service;
use crate::traces;
use crate::version::Build;

/// Path of the liveness probe.
pub const HEALTH_PATH: &str = "/healthz";
/// Path of the purge.
pub const PURGE_PATH: &str = "/v1/purge";
/// Path of the metrics.
pub const METRICS_PATH: &str = "/metrics";
/// Path of what the status page shows.
pub const STATUS_PATH: &str = "/v1/status";

/// Path of the version.
pub const VERSION_PATH: &str = "/version";

/// All routes. `/v1/*` asks for the bearer token, if one is configured, and is limited; probes
/// and metrics are neither, so that they answer when the service is full. The status page's own
/// files are open, too: they hold no data. The purge has a token
/// of its own and takes as long as it takes.
pub fn router(service: Arc<Service>) -> Router {
    let v1 = Router::new()
        .route(CLASSIFY_PATH, post(classify::classify))
        .route(COMMIT_PATH, post(commit::commit))
        .route(POLICY_PATH, get(policy::policy))
        .route(STATUS_PATH, get(status::report))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&service),
            limits::limit,
        ))
        .layer(middleware::from_fn(traces::trace))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&service),
            auth::require_bearer,
        ));
    Router::new()
        .merge(v1)
        .merge(status::page())
        .route(PURGE_PATH, post(purge::purge_entries))
        .route(HEALTH_PATH, get(health::live))
        .route(READY_PATH, get(health::ready))
        .route(METRICS_PATH, get(health::metrics))
        .fallback(|| async { Failure::new(StatusCode::NOT_FOUND, "not_found", "no such path") })
        .with_state(service)
}

/// The route that says what is running. Open, like the metrics.
pub fn version(build: Build) -> Router {
    Router::new().route(VERSION_PATH, get(move || async move { json(&build) }))
}

/// An error answer: `{"error":{"code":…,"message":…}}`.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Failure {
    /// An answer with `status`; `code` is for programs, `message` for people.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// What it says to programs.
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// 400: the caller's mistake.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// 413: over `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the body is over {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    /// 503: try again later.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Shape<'a> {
            error: Inner<'a>,
        }
        #[derive(Serialize)]
        struct Inner<'a> {
            code: &'a str,
            message: &'a str,
        }
        let error = Inner {
            code: self.code,
            message: &self.message,
        };
        (self.status, json(&Shape { error })).into_response()
    }
}

/// A JSON answer.
pub fn json(body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => {
            let json = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, json)], body).into_response()
        }
        Err(_) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}
