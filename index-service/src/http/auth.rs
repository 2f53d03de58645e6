//! The optional shared bearer token between filter and service.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::Failure;
use crate::config::AuthToken;
use crate::state::Service;

/// What `/v1` asks for.
pub struct Bearer(Option<blake3::Hash>);

impl Bearer {
    /// The configured token, or none.
    pub fn new(token: Option<&AuthToken>) -> Self {
        Self(token.map(|token| blake3::hash(token.as_bytes())))
    }

    /// Whether the header's value may pass. Digests are compared, in constant time, so that the
    /// time depends neither on where a guess goes wrong nor on how long the token is.
    pub fn admits(&self, authorization: Option<&HeaderValue>) -> bool {
        let Some(expected) = &self.0 else { return true };
        let given = authorization.map(HeaderValue::as_bytes).and_then(|value| {
            let (scheme, token) = value.split_at_checked("Bearer ".len())?;
            scheme
                .eq_ignore_ascii_case(b"bearer ")
                .then_some(token.trim_ascii())
        });
        let digest = blake3::hash(given.unwrap_or_default());
        given.is_some() && expected.as_bytes().ct_eq(digest.as_bytes()).into()
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_passes() {
        let config = crate::config::Config::parse(
            "auth_token: sesame\nmodels: [{model: m, encoding: o200k_base}]",
            std::path::Path::new("test.yaml"),
        )
        .unwrap();
        let bearer = Bearer::new(config.auth_token.as_ref());
        let table = [
            (Some("Bearer sesame"), true),
            (Some("bearer  sesame "), true),
            (Some("Bearer sesam"), false),
            (Some("Bearer sesame!"), false),
            (Some("Bearer "), false),
            (Some("Basic sesame"), false),
            (Some("sesame"), false),
            (Some(""), false),
            (None, false),
        ];
        for (value, passes) in table {
            let header = value.map(HeaderValue::from_static);
            assert_eq!(bearer.admits(header.as_ref()), passes, "{value:?}");
            assert!(Bearer::new(None).admits(header.as_ref()));
        }
    }
}
