//! The bearer tokens that callers must bring, as digests.

use axum::http::HeaderValue;
use subtle::ConstantTimeEq;

use crate::config::AuthToken;

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
