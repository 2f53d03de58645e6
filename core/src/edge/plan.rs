//! The plan for one request: refuse it, forward it as it is, or forward it edited and know or
//! ask what of it is cached.

use super::{
    bypass::Bypass,
    leases::{Leased, Leases},
    policy::PolicyView,
};
use crate::{
    api::Api,
    config::FilterConfig,
    ledger::{Breakpoint, Candidate, Split, look_back_runs},
    prefix_hash::PrefixHash,
    request::{ChatRequest, Edits, MarkerRules, Refusal, scan_as},
    wire::{ClassifyRequest, Fingerprint, ModelPolicy, WIRE_VERSION},
};

/// What the plan depends on beside the body.
#[derive(Debug)]
pub struct PlanContext<'a> {
    /// What the request's path says it speaks.
    pub api: Api,
    /// The filter's settings.
    pub config: &'a FilterConfig,
    /// The active models.
    pub policy: &'a PolicyView,
    /// Who pays; `None` without a credential.
    pub principal: Option<Fingerprint>,
    /// Whether the breaker lets callouts pass.
    pub callouts_allowed: bool,
    /// Milliseconds on the clock of the leases.
    pub now_ms: u64,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Plan {
    /// Answer 400 with this refusal; the upstream sees nothing.
    Refuse(Refusal),
    /// Forward, edited or not.
    Forward(Forward),
}

/// A request that goes to the upstream.
#[derive(Debug)]
pub struct Forward {
    /// The edited body; `None` forwards the very same bytes.
    pub body: Option<Vec<u8>>,
    /// The request carries markers.
    pub marked: bool,
    /// `include_usage` was added on the client's behalf: frames that carry only usage are for
    /// us, not for the client.
    pub drop_usage_only: bool,
    /// Value of the routing header: the prefix hash of the first breakpoint.
    pub routing_hash: Option<PrefixHash>,
    /// What is known of, or to be asked from, the ledger.
    pub callout: Callout,
}

/// How the split of a request becomes known.
#[derive(Debug)]
pub enum Callout {
    /// Not cached, for this reason.
    Inactive(Bypass),
    /// Known without asking: an unmarked request.
    Known(Split),
    /// Known without asking: its deepest breakpoint is leased.
    Leased(Leased),
    /// Ask the service.
    Ask(ClassifyRequest),
}

/// Plans a request from its whole body.
pub fn plan(body: &[u8], context: &PlanContext<'_>, leases: &mut Leases) -> Plan {
    let request = match scan_as(context.api, body) {
        Ok(request) => request,
        Err(opaque) => {
            return Plan::Forward(Forward {
                body: None,
                marked: false,
                drop_usage_only: false,
                routing_hash: None,
                callout: Callout::Inactive(Bypass::Body(opaque)),
            });
        }
    };
    let policy = request.model().and_then(|name| context.policy.model(name));
    match plan_chat(&request, policy, context, leases) {
        Ok(forward) => Plan::Forward(forward),
        Err(refusal) => Plan::Refuse(refusal),
    }
}

fn plan_chat(
    request: &ChatRequest<'_>,
    policy: Option<&ModelPolicy>,
    context: &PlanContext<'_>,
    leases: &mut Leases,
) -> Result<Forward, Refusal> {
    let config = context.config;
    let rules = MarkerRules {
        tiers: policy.map_or(&config.tiers, |p| &p.tiers),
        default_tier: policy.map_or(config.default_tier, |p| p.default_tier),
        mixed_ttl_order: config.mixed_ttl_order,
    };
    let breakpoints = request.breakpoints(&rules)?;

    let mut routing_hash = None;
    let callout = match (policy, context.principal) {
        (None, _) => Callout::Inactive(match context.policy {
            PolicyView::Unknown => Bypass::NoPolicy,
            PolicyView::Known { .. } => Bypass::UnknownModel,
        }),
        (Some(_), None) => Callout::Inactive(Bypass::NoPrincipal),
        (Some(policy), Some(principal)) => match (breakpoints.first(), breakpoints.last()) {
            (Some(first), Some(last)) => {
                let hashes = request.prefix_hashes(&config.prefix_params, last.block);
                routing_hash = hash_at(&hashes, first.block);
                let asked = Asked {
                    request,
                    policy,
                    principal,
                    hashes: &hashes,
                };
                classification(asked, breakpoints, context, leases)
            }
            _ => Callout::Known(Split::default()),
        },
    };

    let salt = match (config.cache_salt, policy, context.principal) {
        (true, Some(_), Some(principal)) => cache_salt(principal),
        _ => None,
    };
    let ensure_usage = policy.is_some() && request.stream() && context.api.is_chat();
    let edits = Edits {
        ensure_usage,
        cache_salt: salt.as_deref(),
    };
    let mut body = request.forwarded(&edits);
    let fits = |body: &Vec<u8>| body.len() <= config.max_request_bytes;
    let grew_too_large = !body.as_ref().is_none_or(fits);
    if grew_too_large {
        // Envoy's own limit is the same: it would answer 413 to what the client sent within it.
        body = request.forwarded(&Edits::default());
    }
    Ok(Forward {
        body,
        marked: request.marked(),
        drop_usage_only: ensure_usage && !grew_too_large && !request.asked_usage(),
        routing_hash: routing_hash.filter(|_| config.prefix_hash_header.is_some()),
        callout,
    })
}

/// What a classification is about.
struct Asked<'a> {
    request: &'a ChatRequest<'a>,
    policy: &'a ModelPolicy,
    principal: Fingerprint,
    hashes: &'a [PrefixHash],
}

/// Classified from leases, or to be asked, or neither.
fn classification(
    asked: Asked<'_>,
    breakpoints: Vec<Breakpoint>,
    context: &PlanContext<'_>,
    leases: &mut Leases,
) -> Callout {
    let Asked {
        request,
        policy,
        principal,
        hashes,
    } = asked;
    let at_breakpoints: Vec<PrefixHash> = breakpoints
        .iter()
        .filter_map(|breakpoint| hash_at(hashes, breakpoint.block))
        .collect();
    let leased = leases.classify(&principal, policy, &at_breakpoints, context.now_ms);
    if let Some(leased) = leased {
        return Callout::Leased(leased);
    }
    if !context.callouts_allowed {
        return Callout::Inactive(Bypass::BreakerOpen);
    }
    let blocks = look_back_runs(&breakpoints, |block| request.continues_run(block));
    let candidate = |block| {
        let hash = hash_at(hashes, block)?;
        Some(Candidate { block, hash })
    };
    Callout::Ask(ClassifyRequest {
        v: WIRE_VERSION,
        api: context.api,
        principal,
        model: policy.model.clone(),
        breakpoints,
        candidates: blocks.into_iter().filter_map(candidate).collect(),
    })
}

fn hash_at(hashes: &[PrefixHash], block: u32) -> Option<PrefixHash> {
    hashes.get(usize::try_from(block).ok()?).copied()
}

/// A salt that separates tenants in the engine's own cache and tells nothing of the fingerprint.
fn cache_salt(principal: Fingerprint) -> Option<String> {
    Fingerprint::of(principal.as_bytes(), b"cache_salt").map(|salt| salt.to_string())
}

#[cfg(test)]
mod tests;
