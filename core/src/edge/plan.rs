//! The plan for one request: refuse it, forward it as it is, or forward it edited and know or
//! ask what of it is cached.

use super::{
    bypass::Bypass,
    leases::{Leased, Leases},
    policy::PolicyView,
    query::QueryBreakpoint,
};
use crate::{
    api::Api,
    config::FilterConfig,
    ledger::{Breakpoint, Candidate, Fingerprint, Split, look_back_runs},
    prefix_hash::PrefixHash,
    request::{ChatRequest, Edits, Implied, MarkerRules, Refusal, RefusalReason, Steady, scan_as},
    wire::{ClassifyRequest, ModelPolicy, WIRE_VERSION},
};

/// What the plan depends on beside the body.
#[derive(Debug)]
pub struct PlanContext<'a> {
    /// What the request's path says it speaks.
    pub api: Api,
    /// What its query asks to mark.
    pub query: QueryBreakpoint,
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
    /// Who marked it.
    pub marked: Marked,
    /// `include_usage` was added on the client's behalf: frames that carry only usage are for
    /// us, not for the client.
    pub drop_usage_only: bool,
    /// Value of the routing header: a prefix hash, see [`ChatRequest::routing_block`].
    pub routing_hash: Option<PrefixHash>,
    /// What is known of, or to be asked from, the ledger.
    pub callout: Callout,
    /// The prompt to count, where it is not the client's body: that without volatile blocks.
    pub steady: Option<Steady>,
}

/// Who marked a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// Nobody.
    No,
    /// The client, in the body or the query.
    Client,
    /// The model's policy.
    Policy,
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
                marked: Marked::No,
                drop_usage_only: false,
                routing_hash: None,
                callout: Callout::Inactive(Bypass::Body(opaque)),
                steady: None,
            });
        }
    };
    let policy = request.model().and_then(|name| context.policy.model(name));
    let rules = match rules(policy, context) {
        Ok(rules) => rules,
        Err(refusal) => return Plan::Refuse(refusal),
    };
    let breakpoints = match request.breakpoints(&rules) {
        Ok(breakpoints) => breakpoints,
        // Which tiers a model has, and which is its default, only the policy says: without any,
        // nothing is refused that may be right.
        Err(refusal)
            if !matches!(context.policy, PolicyView::Known { .. })
                && refusal.reason.depends_on_tiers() =>
        {
            Vec::new()
        }
        Err(refusal) => return Plan::Refuse(refusal),
    };
    let steady = policy.and_then(|_| request.without_volatile(&context.config.volatile_prefixes));
    let planned = steady.and_then(|steady| {
        // Markers are refused by their places in the client's own body; these are the same ones.
        let prompt = scan_as(context.api, &steady.body).ok()?;
        let breakpoints = prompt.breakpoints(&rules).ok()?;
        let forwarded = if context.config.forward_volatile_blocks {
            &request
        } else {
            &prompt
        };
        let mut forward = plan_read(&prompt, forwarded, breakpoints, policy, context, leases);
        if !context.config.forward_volatile_blocks && forward.body.is_none() {
            forward.body = Some(steady.body.clone());
        }
        forward.steady = Some(steady);
        Some(forward)
    });
    Plan::Forward(match planned {
        Some(forward) => forward,
        None => plan_read(&request, &request, breakpoints, policy, context, leases),
    })
}

/// The rules of a request to a model.
fn rules<'a>(
    policy: Option<&'a ModelPolicy>,
    context: &PlanContext<'a>,
) -> Result<MarkerRules<'a>, Refusal> {
    let config = context.config;
    let implied = match (context.query, policy.and_then(|policy| policy.auto)) {
        (QueryBreakpoint::Unknown, _) => {
            return Err(Refusal {
                message: "unsupported cacheBreakpoint (only \"lastUserMessage\")".to_owned(),
                param: "cacheBreakpoint".to_owned(),
                reason: RefusalReason::MalformedCacheControl,
                api: context.api,
            });
        }
        (QueryBreakpoint::LastUserMessage, _) => Implied::LastUserMessage,
        (QueryBreakpoint::Absent, Some(tier)) => Implied::EveryTurn(tier),
        (QueryBreakpoint::Absent, None) => Implied::Nothing,
    };
    Ok(MarkerRules {
        tiers: policy.map_or(&config.tiers, |p| &p.tiers),
        default_tier: policy.map_or(config.default_tier, |p| p.default_tier),
        mixed_ttl_order: config.mixed_ttl_order,
        implied,
    })
}

/// Plans a request that is not refused: `request` is what is read, `forwarded` what the upstream
/// gets.
fn plan_read(
    request: &ChatRequest<'_>,
    forwarded: &ChatRequest<'_>,
    breakpoints: Vec<Breakpoint>,
    policy: Option<&ModelPolicy>,
    context: &PlanContext<'_>,
    leases: &mut Leases,
) -> Forward {
    let config = context.config;
    let marked = if request.marked() || context.query != QueryBreakpoint::Absent {
        Marked::Client
    } else if breakpoints.is_empty() {
        Marked::No
    } else {
        Marked::Policy
    };

    let mut routing_hash = None;
    let callout = match (policy, context.principal) {
        (None, _) => Callout::Inactive(match context.policy {
            PolicyView::Unknown => Bypass::NoPolicy,
            PolicyView::Foreign => Bypass::WireVersion,
            PolicyView::Known { .. } => Bypass::UnknownModel,
        }),
        (Some(_), None) => Callout::Inactive(Bypass::NoPrincipal),
        (Some(policy), Some(principal)) => match (breakpoints.first(), breakpoints.last()) {
            (Some(first), Some(last)) => {
                let hashes = request.prefix_hashes(&config.prefix_params, last.block);
                routing_hash = hash_at(&hashes, request.routing_block(first.block));
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
    let ensure_usage = policy.is_some() && request.stream() && context.api.asks_for_usage();
    let edits = Edits {
        ensure_usage,
        cache_salt: salt.as_deref(),
    };
    let mut body = forwarded.forwarded(&edits);
    let fits = |body: &Vec<u8>| body.len() <= config.max_request_bytes;
    let grew_too_large = !body.as_ref().is_none_or(fits);
    if grew_too_large {
        // Envoy's own limit is the same: it would answer 413 to what the client sent within it.
        body = forwarded.forwarded(&Edits::default());
    }
    Forward {
        body,
        marked,
        drop_usage_only: ensure_usage && !grew_too_large && !request.asked_usage(),
        routing_hash: routing_hash.filter(|_| config.prefix_hash_header.is_some()),
        callout,
        steady: None,
    }
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
