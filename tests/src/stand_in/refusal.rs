//! Requests that are refused, in the words and the shape of each API.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Whether a request is streamed; without that it may have no `stream_options`.
pub fn streams(request: &Value) -> Result<bool, Refusal> {
    let streams = request["stream"] == true;
    if !streams && !request["stream_options"].is_null() {
        return Err(Refusal::invalid(
            "stream_options is only allowed when stream is enabled",
        ));
    }
    Ok(streams)
}

/// Whose errors these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    OpenAi,
    Anthropic,
}

/// A request that is not answered.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    /// A request that is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::failure(StatusCode::BAD_REQUEST, message)
    }

    /// A member that this API does not know.
    pub fn unknown(envelope: Envelope, path: &str) -> Self {
        Self::invalid(match envelope {
            Envelope::OpenAi => format!("Unrecognized request argument supplied: {path}"),
            Envelope::Anthropic => format!("{path}: Extra inputs are not permitted"),
        })
    }

    /// A server that cannot.
    pub fn failure(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// As a response. One that asks to come back asks for it at once, in both spellings that
    /// clients know.
    pub fn response(self, envelope: Envelope) -> Response {
        let kind = self.kind(envelope);
        let body = match envelope {
            Envelope::OpenAi => json!({
                "error": {"message": self.message, "type": kind, "code": null, "param": null},
            }),
            Envelope::Anthropic => json!({
                "type": "error", "error": {"type": kind, "message": self.message},
            }),
        };
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            let headers = response.headers_mut();
            headers.insert("retry-after", 0.into());
            headers.insert("retry-after-ms", 1.into());
        }
        response
    }

    fn kind(&self, envelope: Envelope) -> &'static str {
        match (self.status, envelope) {
            (StatusCode::BAD_REQUEST, _) => "invalid_request_error",
            (StatusCode::TOO_MANY_REQUESTS, Envelope::OpenAi) => "requests",
            (StatusCode::TOO_MANY_REQUESTS, Envelope::Anthropic) => "rate_limit_error",
            (_, Envelope::OpenAi) => "server_error",
            (_, Envelope::Anthropic) => "api_error",
        }
    }
}
