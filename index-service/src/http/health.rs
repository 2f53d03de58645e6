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
    if !service.is_warm() {
        return Failure::unavailable("starting", "the service is starting").into_response();
    }
    if let Some(model) = service.models.pending() {
        let reason = format!("the tokenizer of {model:?} is not loaded yet");
        return Failure::unavailable("model_loading", reason).into_response();
    }
    if let Err(error) = service.principals.check_loaded() {
        return Failure::unavailable("store_unavailable", error.to_string()).into_response();
    }
    match tokio::time::timeout(PING_TIMEOUT, service.store.ping()).await {
        Ok(Ok(())) => "ready\n".into_response(),
        Ok(Err(_)) | Err(_) => {
            service.metrics.store_errors.count(StoreOperation::Ping);
            Failure::unavailable("store_unavailable", "the store does not answer").into_response()
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
