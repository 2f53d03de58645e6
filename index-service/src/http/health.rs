//! Probes and metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Failure;
use crate::metrics::METRICS_CONTENT_TYPE;
use crate::readiness::readiness;
use crate::state::Service;

/// `GET /healthz`: the process answers.
pub async fn live() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: tokenizers are loaded, accounts are known and the store answers.
pub async fn ready(State(service): State<Arc<Service>>) -> Response {
    match readiness(&service).await {
        Ok(()) => "ready\n".into_response(),
        Err(missing) => Failure::unavailable(missing.code(), missing.to_string()).into_response(),
    }
}

/// `GET /metrics`: OpenMetrics text.
pub async fn metrics(State(service): State<Arc<Service>>) -> Response {
    if let Ok(stats) = service.store.stats().await {
        service.metrics.entries.set(stats.entries);
        service.metrics.store_bytes.set(stats.disk_bytes);
        service.metrics.store_retries.set(stats.retries);
    }
    match service.metrics.render() {
        Ok(text) => {
            let kind = HeaderValue::from_static(METRICS_CONTENT_TYPE);
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
