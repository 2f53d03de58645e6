//! The status page and `GET /v1/status`, which it draws.
//!
//! The page's files hold no data and are open. Its script asks for the report with the token that
//! the person gives it, as any caller of `/v1` does.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::json;
use crate::readiness::readiness;
use crate::state::Service;
use crate::status::{self, Around};

/// Longest wait for the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// Nothing but our own files, no script in markup, and no text that becomes markup: browsers that
/// know trusted types refuse `innerHTML` altogether.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// Headers of every answer here.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
];

/// The page's own files.
pub fn page() -> Router<Arc<Service>> {
    let file = |kind: &'static str, text: &'static str| {
        get(move || async move {
            let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(kind))];
            (HEADERS, kind, text)
        })
    };
    let html = include_str!("../page/index.html");
    let css = include_str!("../page/page.css");
    let icon = include_str!("../page/icon.svg");
    let javascript = "text/javascript; charset=utf-8";
    Router::new()
        .route("/status", file("text/html; charset=utf-8", html))
        .route("/status/page.css", file("text/css; charset=utf-8", css))
        .route("/status/icon.svg", file("image/svg+xml", icon))
        .route(
            "/status/page.js",
            file(javascript, include_str!("../page/page.js")),
        )
        .route(
            "/status/charts.js",
            file(javascript, include_str!("../page/charts.js")),
        )
}

/// `GET /v1/status`. Asks the store, and waits at most [`STORE_TIMEOUT`] for it.
pub async fn report(State(service): State<Arc<Service>>) -> Response {
    let stats = tokio::time::timeout(STORE_TIMEOUT, service.store.stats());
    let (ready, stats) = tokio::join!(readiness(&service), stats);
    let around = Around {
        now_ms: service.clock.now_ms(),
        ready: ready.err().map_or("ok", |missing| missing.code()),
        stats: stats.ok().and_then(Result::ok),
        metrics: &service.metrics,
        models: &service.models,
        drift: &service.drift,
        principals: &service.principals,
    };
    (HEADERS, json(&status::report(&service.status, &around))).into_response()
}
