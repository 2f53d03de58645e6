//! `GET /v1/policy`: the active models, with a strong entity tag.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::state::Service;

/// Answers 304 to a caller that has this policy already.
pub async fn policy(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    service.status.polled(service.clock.now_ms());
    let Ok(announced) = service.announce().await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let etag = announced.etag.as_str();
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| matches(value, etag));
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let json = HeaderValue::from_static("application/json");
        ([(header::CONTENT_TYPE, json)], announced.body.clone()).into_response()
    };
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// `If-None-Match` compares weakly: proxies may have marked the tag as weak.
fn matches(if_none_match: &str, etag: &str) -> bool {
    if_none_match.split(',').map(str::trim).any(|candidate| {
        candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == etag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_table() {
        let table = [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
            ("", false),
        ];
        for (value, known) in table {
            assert_eq!(matches(value, "\"a\""), known, "{value}");
        }
    }
}
