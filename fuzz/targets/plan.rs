//! What the filter does with any request: it forwards no marker, asks nothing that the service would
//! refuse, and trusts no lease of another tenant.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prompt_cache_core::{
    api::Api,
    config::FilterConfig,
    edge::{
        Bypass, Callout, Forward, Leases, Plan, PlanContext, PolicyView, QueryBreakpoint, plan,
    },
    ledger::{Fingerprint, MAX_BREAKPOINTS, MAX_CANDIDATES, Tier},
    request::{Edits, scan_as},
    wire::{Classified, ClassifyRequest, Lease, ModelPolicy},
};
use prompt_cache_fuzz::input::{INPUT_BYTES_MAX, Knobs};

const TRUST_MS: u64 = 30_000;
const NOW_MS: u64 = 1_000;
const TOKENS: u32 = 2_000;

fn policy_of(model: &str, auto: bool) -> PolicyView {
    let model = ModelPolicy {
        model: model.to_owned(),
        tiers: Tier::ALL.to_vec(),
        default_tier: Tier::FiveMinutes,
        auto: auto.then_some(Tier::OneHour),
        min_prefix_tokens: 1024,
        tokenizer_version: "v".to_owned(),
    };
    PolicyView::Known {
        epoch: "e".to_owned(),
        models: [(model.model.clone(), model)].into(),
    }
}

fn leases() -> Leases {
    let mut leases = Leases::new(1 << 16, TRUST_MS);
    leases.renew("e", NOW_MS);
    leases
}

fn forward(body: &[u8], context: &PlanContext<'_>, leases: &mut Leases) -> Forward {
    match plan(body, context, leases) {
        Plan::Forward(forward) => forward,
        Plan::Refuse(refusal) => panic!("now refused: {refusal:?}"),
    }
}

/// What the service checks before it looks anything up.
fn check(ask: &ClassifyRequest) {
    let (breakpoints, candidates) = (&ask.breakpoints, &ask.candidates);
    assert!((1..=MAX_BREAKPOINTS).contains(&breakpoints.len()));
    assert!(candidates.len() <= MAX_CANDIDATES);
    assert!(breakpoints.is_sorted_by(|a, b| a.block < b.block));
    assert!(candidates.is_sorted_by(|a, b| a.block < b.block));
    let is_candidate = |block| candidates.iter().any(|it| it.block == block);
    assert!(breakpoints.iter().all(|it| is_candidate(it.block)));
    assert_eq!(
        candidates.last().map(|it| it.block),
        breakpoints.last().map(|it| it.block)
    );
    let json = serde_json::to_vec(ask).unwrap();
    assert_eq!(
        &serde_json::from_slice::<ClassifyRequest>(&json).unwrap(),
        ask
    );
}

/// The lease of its deepest breakpoint answers the same request, and nobody else's.
fn check_leases(body: &[u8], context: &PlanContext<'_>, ask: &ClassifyRequest) {
    let mut leases = leases();
    let lease = Lease {
        hash: ask.candidates.last().unwrap().hash,
        tokens: TOKENS,
        tier: Tier::FiveMinutes,
        ttl_ms: 10_000,
    };
    let classified = Classified {
        tokenizer_version: "v".to_owned(),
        epoch: "e".to_owned(),
        leases: vec![lease],
        ..Classified::default()
    };
    leases.classified(ask, &classified, NOW_MS, NOW_MS);
    let at = |now_ms, principal| PlanContext {
        now_ms,
        principal,
        ..*context
    };
    let mut read = |context: &PlanContext<'_>| match forward(body, context, &mut leases).callout {
        Callout::Leased(leased) => Some(leased.split.read),
        Callout::Ask(again) => {
            assert_eq!(again.candidates, ask.candidates);
            None
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(read(&at(NOW_MS, context.principal)), Some(TOKENS.into()));
    assert_eq!(read(&at(NOW_MS, Some(Fingerprint::new([8; 32])))), None);
    assert_eq!(read(&at(NOW_MS + 10_000, context.principal)), None);
}

fuzz_target!(|input: &[u8]| {
    if input.len() > INPUT_BYTES_MAX {
        return;
    }
    let (body, mut knobs) = Knobs::split(input);
    let api =
        [Api::Chat, Api::Messages, Api::Responses, Api::Completions][usize::from(knobs.byte() % 4)];
    let flags = knobs.byte();
    let is_set = |bit: u8| flags & (1 << bit) != 0;
    let request = scan_as(api, body);
    let name = request.as_ref().ok().and_then(|request| request.model());
    let policy = match name {
        Some(name) if !is_set(0) => policy_of(name, is_set(1)),
        _ => PolicyView::Unknown,
    };
    let mut config = FilterConfig {
        volatile_prefixes: vec!["x".to_owned()],
        forward_volatile_blocks: is_set(2),
        cache_salt: is_set(3),
        ..FilterConfig::default()
    };
    if is_set(4) {
        config.max_request_bytes = body.len();
    }
    let context = PlanContext {
        api,
        query: if is_set(5) {
            QueryBreakpoint::LastUserMessage
        } else {
            QueryBreakpoint::Absent
        },
        config: &config,
        policy: &policy,
        principal: (!is_set(6)).then_some(Fingerprint::new([7; 32])),
        callouts_allowed: !is_set(7),
        now_ms: NOW_MS,
    };
    let decided = match plan(body, &context, &mut leases()) {
        Plan::Forward(forward) => forward,
        Plan::Refuse(refusal) => {
            serde_json::from_slice::<serde_json::Value>(&refusal.to_json()).unwrap();
            assert!(request.unwrap().marked(), "refused, and nothing is marked");
            return;
        }
    };
    let Ok(request) = request else {
        assert!(
            decided.body.is_none() && matches!(decided.callout, Callout::Inactive(Bypass::Body(_)))
        );
        return;
    };
    let bytes = decided.body.as_deref().unwrap_or(body);
    let sent = scan_as(api, bytes).unwrap();
    assert_eq!(sent.forwarded(&Edits::default()), None, "a marker is left");
    assert!(bytes.len() <= config.max_request_bytes.max(body.len()));
    if matches!(policy, PolicyView::Unknown) {
        assert_eq!(decided.body, request.forwarded(&Edits::default()));
    }
    let prompt = decided.steady.as_ref().map_or(body, |steady| &steady.body);
    match &decided.callout {
        Callout::Ask(ask) => {
            check(ask);
            let hashes = scan_as(api, prompt)
                .unwrap()
                .prefix_hashes(&config.prefix_params, u32::MAX);
            assert!(
                ask.candidates
                    .iter()
                    .all(|it| hashes[it.block as usize] == it.hash)
            );
            check_leases(body, &context, ask);
        }
        Callout::Leased(_) => panic!("a lease that nobody gave"),
        Callout::Known(_) | Callout::Inactive(_) => {}
    }
});
