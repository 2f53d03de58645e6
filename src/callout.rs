//! Callouts to the index service: headers, bodies, and reading an answer.

use prompt_cache_core::{
    config::FilterConfig,
    wire::{
        CLASSIFY_PATH, COMMIT_PATH, ClassifyAnswer, ClassifyRequest, CommitAnswer, CommitBatch,
        POLICY_PATH, READY_PATH, TEXT_CONTENT_TYPE,
    },
};
use proxy_wasm::types::Status;

use crate::host::{self, Headers, HostResult};

/// Time an attempt to commit, to refresh the policy or to probe may take, in milliseconds.
const BACKGROUND_TIMEOUT_MS: u64 = 5_000;
/// Largest answer that is read, in bytes; a policy of ten thousand models fits.
const ANSWER_BYTES_MAX: usize = 4 << 20;
const JSON: &str = "application/json";
/// Has Envoy ask once more, on another replica where there are several, when none was reached or
/// the connection ended before an answer: as when a replica is restarted. Every call means the
/// same twice.
const RETRY: (&str, &str) = ("x-envoy-retry-on", "connect-failure,refused-stream,reset");

/// Headers of the client's request that a callout carries on, so that one trace shows both.
#[derive(Clone, Debug, Default)]
pub struct TraceHeaders(Vec<(&'static str, String)>);

impl TraceHeaders {
    /// Those among a request's headers.
    pub fn among(headers: &Headers) -> Self {
        let read = |name: &'static str| {
            let value = headers.get(name)?.into_owned();
            Some((name, String::from_utf8(value).ok()?))
        };
        Self(
            ["x-request-id", "traceparent", "tracestate"]
                .into_iter()
                .filter_map(read)
                .collect(),
        )
    }
}

/// Asks for a classification; with `text`, brings the prompt.
pub fn classify(
    config: &FilterConfig,
    request: &ClassifyRequest,
    text: Option<&[u8]>,
    trace: &TraceHeaders,
    timeout_ms: u64,
) -> HostResult<u32> {
    let mut body = serde_json::to_vec(request).map_err(|_| Status::SerializationFailure)?;
    let content_type = match text {
        None => JSON,
        Some(text) => {
            body.reserve_exact(text.len() + 1);
            body.push(b'\n');
            body.extend_from_slice(text);
            TEXT_CONTENT_TYPE
        }
    };
    post(
        config,
        CLASSIFY_PATH,
        content_type,
        &body,
        trace,
        timeout_ms,
    )
}

/// Delivers a batch of commits.
pub fn commit(config: &FilterConfig, batch: &CommitBatch) -> HostResult<u32> {
    let body = serde_json::to_vec(batch).map_err(|_| Status::SerializationFailure)?;
    post(
        config,
        COMMIT_PATH,
        JSON,
        &body,
        &TraceHeaders::default(),
        BACKGROUND_TIMEOUT_MS,
    )
}

/// Asks for the policy unless it still has `etag`.
pub fn policy(config: &FilterConfig, etag: Option<&str>) -> HostResult<u32> {
    let condition = etag.map(|etag| ("if-none-match", etag));
    get(config, POLICY_PATH, condition)
}

/// Asks whether the service is ready.
pub fn probe(config: &FilterConfig) -> HostResult<u32> {
    get(config, READY_PATH, None)
}

fn post(
    config: &FilterConfig,
    path: &str,
    content_type: &str,
    body: &[u8],
    trace: &TraceHeaders,
    timeout_ms: u64,
) -> HostResult<u32> {
    let authorization = authorization(config);
    let mut headers = pseudo_headers(config, "POST", path);
    headers.push(("content-type", content_type));
    headers.extend(
        authorization
            .as_deref()
            .map(|value| ("authorization", value)),
    );
    headers.extend(trace.0.iter().map(|(name, value)| (*name, value.as_str())));
    host::dispatch(&config.index_cluster, &headers, body, timeout_ms)
}

fn get(config: &FilterConfig, path: &str, extra: Option<(&str, &str)>) -> HostResult<u32> {
    let authorization = authorization(config);
    let mut headers = pseudo_headers(config, "GET", path);
    headers.extend(
        authorization
            .as_deref()
            .map(|value| ("authorization", value)),
    );
    headers.extend(extra);
    host::dispatch(&config.index_cluster, &headers, &[], BACKGROUND_TIMEOUT_MS)
}

fn pseudo_headers<'a>(
    config: &'a FilterConfig,
    method: &'a str,
    path: &'a str,
) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", method),
        (":path", path),
        (":authority", &config.index_authority),
        RETRY,
    ]
}

fn authorization(config: &FilterConfig) -> Option<String> {
    config
        .index_token
        .as_ref()
        .map(|token| format!("Bearer {token}"))
}

/// The answer to a callout, read inside its callback.
#[derive(Debug)]
pub struct Answer {
    /// The status; `None` after a reset.
    pub status: Option<u16>,
    body_bytes: usize,
}

impl Answer {
    /// Reads the status. A callout without answer has no headers.
    pub fn read(headers: usize, body_bytes: usize) -> Self {
        let status = || {
            let value = host::callout_header(":status").ok()??;
            std::str::from_utf8(&value).ok()?.parse().ok()
        };
        Self {
            status: (headers > 0).then(status).flatten(),
            body_bytes,
        }
    }

    /// The body, if it is of a sane size.
    pub fn body(&self) -> Option<Vec<u8>> {
        if self.body_bytes > ANSWER_BYTES_MAX {
            return None;
        }
        host::callout_body(self.body_bytes).ok()
    }

    /// The body of a 200 as a classification; `None` for anything else.
    pub fn classification(&self) -> Option<ClassifyAnswer> {
        if self.status != Some(200) {
            return None;
        }
        ClassifyAnswer::parse(&self.body()?).ok()
    }

    /// The body of an acknowledged batch.
    pub fn commit(&self) -> Option<CommitAnswer> {
        serde_json::from_slice(&self.body()?).ok()
    }
}
