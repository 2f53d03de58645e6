//! Probes and metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Failure;
use crate::metrics::{METRICS_CONTENT_TYPE, StoreOperation, Tally};
use crate::state::Service;

/// Longest wait for the store's answer to a probe.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// `GET /healthz`: the process answers.
pub async fn live() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: tokenizers are loaded, accounts are known and the store answers.
pub async fn ready(State(service): State<Arc<Service>>) -> Response {
    match readiness(&service).await {
        Ok(()) => "ready\n".into_response(),
        Err(failure) => failure.into_response(),
    }
}

/// Whether requests can be served.
///
/// # Errors
/// With what is missing.
pub async fn readiness(service: &Service) -> Result<(), Failure> {
    if !service.is_warm() {
        return Err(Failure::unavailable("starting", "the service is starting"));
    }
    if let Some(model) = service.models.pending() {
        let reason = format!("the tokenizer of {model:?} is not loaded yet");
        return Err(Failure::unavailable("model_loading", reason));
    }
    if let Err(error) = service.principals.check_loaded() {
        return Err(Failure::unavailable("store_unavailable", error.to_string()));
    }
    match tokio::time::timeout(PING_TIMEOUT, service.store.ping()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => {
            service.metrics.store_errors.count(StoreOperation::Ping);
            let reason = "the store does not answer";
            Err(Failure::unavailable("store_unavailable", reason))
        }
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
