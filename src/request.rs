//! The request side: who pays, how large, and carrying out the plan.

use std::rc::Rc;

use prompt_cache_core::{
    api::Api,
    config::{FilterConfig, PrincipalSource},
    edge::{Forward, Plan, PlanContext, QueryBreakpoint, bearer_token, plan, query_breakpoint},
    ledger::Fingerprint,
    request::Refusal,
};

use crate::{
    callout::TraceHeaders,
    exchange::Exchange,
    host::{self, Headers},
    response::Expectation,
    shared::Shared,
};

/// What became of a request whose body is whole.
pub enum Forwarded {
    /// It goes on; its response belongs to this exchange.
    Passed(Exchange),
    /// It was answered here.
    Answered,
    /// Envoy did not hand its body over; it goes on as it is.
    Unread,
}

/// What is kept of a request's headers until its body is whole.
#[derive(Debug)]
pub struct Sender {
    pub api: Api,
    query: QueryBreakpoint,
    /// The path without what its query asks to mark.
    path: Option<Vec<u8>>,
    principal: Option<Fingerprint>,
    trace: TraceHeaders,
    accepts_encodings: bool,
    transfer_encoding: bool,
}

impl Sender {
    /// Reads them.
    pub fn of(shared: &Shared, headers: &Headers, api: Api) -> Self {
        let (query, path) = query_breakpoint(&headers.get(":path").unwrap_or_default());
        Self {
            api,
            query,
            path,
            principal: principal(shared, headers),
            trace: TraceHeaders::among(headers),
            accepts_encodings: headers.has("accept-encoding"),
            transfer_encoding: headers.has("transfer-encoding"),
        }
    }
}

/// The fingerprint of the first credential that is present.
fn principal(shared: &Shared, headers: &Headers) -> Option<Fingerprint> {
    let header = |name: &str| {
        let value = headers.get(name)?;
        Some(value.trim_ascii().to_vec()).filter(|value| !value.is_empty())
    };
    let credential = |source: &PrincipalSource| match source {
        PrincipalSource::AuthorizationBearer => {
            bearer_token(&header("authorization")?).map(<[u8]>::to_vec)
        }
        PrincipalSource::XApiKey => header("x-api-key"),
        // Named values are set apart, so that a tenant called like a key is not that key's owner.
        PrincipalSource::Header(name) => Some(named("header", name, &header(name)?)),
        PrincipalSource::Attribute(path) => {
            let value = host::attribute(path)
                .ok()?
                .filter(|value| !value.is_empty())?;
            Some(named("attribute", &path.join("."), &value))
        }
    };
    let credential = shared.config.principal.iter().find_map(credential)?;
    Some(shared.fingerprint_key.fingerprint(&credential))
}

fn named(kind: &str, name: &str, value: &[u8]) -> Vec<u8> {
    // No header name, attribute path or header value contains a NUL.
    [kind.as_bytes(), name.as_bytes(), value].join(&0)
}

/// True if `content-length` already says that the body is over the limit.
pub fn declared_too_large(config: &FilterConfig, headers: &Headers) -> bool {
    let declared = || {
        let value = headers.get("content-length")?;
        std::str::from_utf8(&value).ok()?.trim().parse::<u64>().ok()
    };
    declared().is_some_and(|bytes| bytes > config.max_request_bytes as u64)
}

/// Answers 400 to a body over the limit.
pub fn refuse_size(shared: &Shared, api: Api) {
    shared.metrics.body_read_failed.add(1);
    let limit = shared.config.max_request_bytes;
    let message = format!("failed to read request body: larger than {limit} bytes");
    respond_400(&api.error(&message, "body_read_failed", "null"));
}

fn refuse_markers(shared: &Shared, refusal: &Refusal) {
    shared.metrics.marker_rejected(refusal.reason);
    respond_400(&refusal.to_json());
}

fn respond_400(body: &[u8]) {
    if host::send_response(400, &[("content-type", "application/json")], body).is_err() {
        log::error!("prompt-cache-filter: a refusal could not be sent");
    }
}

/// Plans the request whose whole body Envoy holds, and carries the plan out.
pub fn forward(shared: &Rc<Shared>, sender: Sender, body_bytes: usize) -> Forwarded {
    let Ok(body) = host::request_body(body_bytes) else {
        return Forwarded::Unread;
    };
    let planned = plan(
        &body,
        &PlanContext {
            api: sender.api,
            query: sender.query,
            config: &shared.config,
            policy: &shared.policy.borrow(),
            principal: sender.principal,
            callouts_allowed: shared.breaker.borrow().is_closed(),
            now_ms: shared.now_ms(),
        },
        &mut shared.leases.borrow_mut(),
    );
    let forward = match planned {
        Plan::Forward(forward) => forward,
        Plan::Refuse(refusal) => {
            refuse_markers(shared, &refusal);
            return Forwarded::Answered;
        }
    };
    shared.metrics.marker_request(forward.marked);
    let edited = edit(shared, &sender, &forward);
    let Forward {
        drop_usage_only,
        callout,
        steady,
        ..
    } = forward;
    let body = match steady {
        Some(steady) => {
            shared.metrics.volatile_blocks.add(steady.left_out.into());
            steady.body
        }
        None => body,
    };
    // Frames are dropped only if it was us who asked for them.
    Forwarded::Passed(Exchange::begin(
        Rc::clone(shared),
        callout,
        Expectation {
            api: sender.api,
            drop_usage_only: edited && drop_usage_only,
        },
        sender.trace,
        body,
    ))
}

/// Edits headers and body as planned. False if the body could not be replaced.
fn edit(shared: &Shared, sender: &Sender, forward: &Forward) -> bool {
    use prompt_cache_core::edge::Callout;
    let reads = !matches!(forward.callout, Callout::Inactive(_)) || forward.drop_usage_only;
    if reads && sender.accepts_encodings {
        let _ = host::remove_request_header("accept-encoding");
    }
    if let Some(path) = &sender.path {
        let _ = host::set_request_header_bytes(":path", path);
    }
    if let (Some(name), Some(hash)) = (&shared.config.prefix_hash_header, forward.routing_hash) {
        let _ = host::set_request_header(name, &hash.to_string());
    }
    let Some(body) = &forward.body else {
        return true;
    };
    if host::set_request_body(body).is_err() {
        return false;
    }
    if sender.transfer_encoding {
        let _ = host::remove_request_header("transfer-encoding");
    }
    host::set_request_header("content-length", &body.len().to_string()).is_ok()
}
