//! Edges with leases against edges without: the same traffic gives the same usage and the same
//! ledger. The edges are the filter's own logic, the services are real, time is simulated.

use std::collections::BTreeMap;

use prompt_cache_core::config::FilterConfig;
use prompt_cache_core::edge::{
    Callout, Delivery, LEASE_BYTES, Leases, Outbox, Plan, PlanContext, PolicyView, QueryBreakpoint,
    plan,
};
use prompt_cache_core::ledger::{LiveEntry, NewEntry, Split, Tier};
use prompt_cache_core::wire::{Commit, CommitAnswer};
use prompt_cache_index::store::Scope;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::harness::{Answer, H1, M5, NOW, Running, principal, start, text};

const STEPS: usize = 400;
const TRUST_MS: u64 = 30_000;

/// One worker of one proxy.
struct Edge {
    config: FilterConfig,
    policy: PolicyView,
    leases: Leases,
    outbox: Outbox,
}

/// How a request was classified.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    split: Split,
    without_callout: bool,
}

impl Edge {
    fn new(lease_bytes: usize) -> Self {
        Self {
            config: FilterConfig::default(),
            policy: PolicyView::Unknown,
            leases: Leases::new(lease_bytes, TRUST_MS),
            outbox: Outbox::new(100, 30_000),
        }
    }

    fn refresh_policy(&mut self, running: &Running) {
        let now_ms = running.now_ms();
        let view = PolicyView::parse(running.get("/v1/policy", &[]).body.as_bytes()).unwrap();
        if view == self.policy {
            self.leases.confirm(now_ms);
        } else {
            self.leases.renew(view.epoch(), now_ms);
            self.policy = view;
        }
    }

    /// What the filter does with a request, and with its response if that `succeeds`.
    fn exchange(&mut self, running: &Running, tenant: u8, body: &[u8], succeeds: bool) -> Seen {
        let now_ms = running.now_ms();
        let context = PlanContext {
            api: prompt_cache_core::api::Api::Chat,
            query: QueryBreakpoint::Absent,
            config: &self.config,
            policy: &self.policy,
            principal: Some(principal(tenant)),
            callouts_allowed: true,
            now_ms,
        };
        let Plan::Forward(forward) = plan(body, &context, &mut self.leases) else {
            panic!("refused");
        };
        match forward.callout {
            Callout::Leased(leased) => {
                if let Some(read) = leased.read {
                    self.outbox.read(read, now_ms);
                }
                Seen {
                    split: leased.split,
                    without_callout: true,
                }
            }
            Callout::Ask(request) => {
                let classified = running.classify(&request, body);
                let who = principal(tenant);
                self.leases
                    .classified(&request, &classified, now_ms, now_ms);
                if succeeds && !classified.writes.is_empty() {
                    let commit = Commit {
                        principal: who,
                        model: request.model,
                        tokenizer_version: classified.tokenizer_version,
                        age_ms: 0,
                        prompt_tokens: None,
                        counted_prompt_tokens: None,
                        writes: classified.writes,
                    };
                    self.outbox.commit(commit, now_ms);
                }
                Seen {
                    split: classified.split,
                    without_callout: false,
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// The root context's tick.
    fn deliver(&mut self, running: &Running) {
        let now_ms = running.now_ms();
        let (_, Some(batch)) = self.outbox.next_batch(now_ms) else {
            return;
        };
        let batch = serde_json::to_vec(&batch).unwrap();
        let Answer { status, body, .. } = running.post("/v1/commit", &[], &batch);
        assert_eq!(status, 200, "{body}");
        let answer: CommitAnswer = serde_json::from_str(&body).unwrap();
        let arrived = self.outbox.settle(Delivery::Delivered, now_ms);
        self.leases.committed(&arrived.commits, &answer, now_ms);
        self.leases.extended(&arrived.reads, &answer, now_ms);
    }
}

impl Running {
    /// The edges' clock.
    fn now_ms(&self) -> u64 {
        self.service.clock.now_ms() - NOW
    }

    fn demo_scope(&self, tenant: u8) -> Scope {
        let model = self.service.models.get("demo").unwrap();
        Scope::of(&principal(tenant), "demo", &model.policy.tokenizer_version)
    }

    /// Every live entry.
    fn ledger(&self) -> BTreeMap<(Scope, [u8; 32]), LiveEntry> {
        let now_ms = self.service.clock.now_ms();
        self.entries()
            .into_iter()
            .filter(|write| now_ms < write.expires_at_ms)
            .map(|write| {
                let NewEntry { hash, tokens, tier } = write.entry;
                let entry = LiveEntry {
                    tokens,
                    tier,
                    expires_at_ms: write.expires_at_ms,
                };
                ((write.scope, *hash.as_bytes()), entry)
            })
            .collect()
    }
}

/// A chat whose messages have so many tokens and, where there is one, a marker.
fn marked_chat(messages: &[(usize, Option<Tier>)]) -> Vec<u8> {
    let messages: Vec<_> = messages
        .iter()
        .map(|(tokens, tier)| {
            let mut part = serde_json::json!({"type": "text", "text": text(*tokens)});
            if let Some(tier) = tier {
                let ttl = tier.as_str();
                part["cache_control"] = serde_json::json!({"type": "ephemeral", "ttl": ttl});
            }
            serde_json::json!({"role": "user", "content": [part]})
        })
        .collect();
    serde_json::to_vec(&serde_json::json!({"model": "demo", "messages": messages})).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Exchange {
        worker: usize,
        tenant: u8,
        conversation: usize,
        turns: usize,
        marks: BTreeMap<usize, Tier>,
        succeeds: bool,
    },
    Wait {
        ms: u64,
    },
    /// A worker's VM is new.
    Restart {
        worker: usize,
    },
    Purge {
        tenant: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let tier = || prop::sample::select(vec![M5, H1]);
    let marks = move || prop::collection::btree_map(0..6usize, tier(), 1..=4);
    let exchange = (
        0..2usize,
        0..2u8,
        0..2usize,
        marks(),
        prop::bool::weighted(0.9),
    )
        .prop_map(
            |(worker, tenant, conversation, marks, succeeds)| Step::Exchange {
                worker,
                tenant,
                conversation,
                turns: marks.last_key_value().unwrap().0 + 1,
                marks,
                succeeds,
            },
        );
    // Longer than what a read of a breakpoint written elsewhere may be reported late by (3 s).
    let wait = prop::sample::select(vec![4_000, 40_000, 200_000, 296_000, 3_000_000]);
    prop_oneof![
        20 => exchange,
        6 => wait.prop_map(|ms| Step::Wait { ms }),
        1 => (0..2usize).prop_map(|worker| Step::Restart { worker }),
        1 => (0..2u8).prop_map(|tenant| Step::Purge { tenant }),
    ]
}

#[test]
fn leases_change_neither_usage_nor_ledger() {
    let steps = {
        let mut runner = TestRunner::deterministic();
        let strategy = prop::collection::vec(step(), STEPS);
        strategy.new_tree(&mut runner).unwrap().current()
    };
    let (plain, leasing) = (start(""), start(""));
    let new_edge = |leases: bool| Edge::new(if leases { 1000 * LEASE_BYTES } else { 0 });
    let mut worlds = [(plain, false), (leasing, true)].map(|(running, leases)| {
        let edges = [new_edge(leases), new_edge(leases)];
        (running, leases, edges)
    });
    let (mut reads, mut saved) = (0, 0);
    for (number, step) in steps.into_iter().enumerate() {
        let seen = worlds.each_mut().map(|(running, leases, edges)| {
            let mut seen = None;
            match &step {
                Step::Exchange {
                    worker,
                    tenant,
                    conversation,
                    turns,
                    marks,
                    succeeds,
                } => {
                    let messages: Vec<_> = (0..*turns)
                        .map(|turn| (3 + turn + conversation, marks.get(&turn).copied()))
                        .collect();
                    let body = marked_chat(&messages);
                    for edge in edges.iter_mut() {
                        edge.refresh_policy(running);
                    }
                    let edge = &mut edges[*worker];
                    seen = Some(edge.exchange(running, *tenant, &body, *succeeds));
                    edge.deliver(running);
                    running.flush();
                }
                Step::Wait { ms } => running.clock.advance(*ms),
                Step::Restart { worker } => edges[*worker] = new_edge(*leases),
                Step::Purge { tenant } => {
                    running.purge(&[running.demo_scope(*tenant)]);
                    running.service.announcer.expire();
                }
            }
            seen
        });
        let [plain, leasing] = seen;
        if let (Some(plain), Some(leasing)) = (plain, leasing) {
            assert_eq!(plain.split, leasing.split, "step {number}: {step:?}");
            assert!(!plain.without_callout);
            reads += u32::from(plain.split.read > 0);
            saved += u32::from(leasing.without_callout);
        }
        let [(plain, ..), (leasing, ..)] = &worlds;
        assert_eq!(plain.ledger(), leasing.ledger(), "step {number}: {step:?}");
    }
    assert!(reads > 100 && saved > 50, "{reads} reads, {saved} leased");
}

/// The one difference that leases make: a purge is seen when the policy is asked for again, or
/// when nobody has confirmed it for too long.
#[test]
fn a_purge_is_seen_at_the_next_policy_and_never_later_than_the_trust() {
    let running = start("");
    let mut edges = [Edge::new(1 << 20), Edge::new(1 << 20)];
    let body = marked_chat(&[(50, Some(M5))]);
    for edge in &mut edges {
        edge.refresh_policy(&running);
        edge.exchange(&running, 1, &body, true);
        edge.deliver(&running);
        assert!(edge.exchange(&running, 1, &body, true).without_callout);
    }
    running.purge(&[running.demo_scope(1)]);
    running.service.announcer.expire();
    let [asking, cut_off] = &mut edges;
    asking.refresh_policy(&running);
    let seen = asking.exchange(&running, 1, &body, false);
    assert_eq!((seen.split.read, seen.without_callout), (0, false));
    running.clock.advance(TRUST_MS);
    assert!(cut_off.exchange(&running, 1, &body, false).without_callout);
    running.clock.advance(1);
    let seen = cut_off.exchange(&running, 1, &body, false);
    assert_eq!((seen.split.read, seen.without_callout), (0, false));
}

/// A read is reported with its age: delivered late, or twice, it gives the life it earned.
#[test]
fn a_late_report_gives_what_the_read_earned() {
    let running = start("");
    let mut edge = Edge::new(1 << 20);
    let body = marked_chat(&[(50, Some(M5))]);
    edge.refresh_policy(&running);
    edge.exchange(&running, 1, &body, true);
    edge.deliver(&running);
    running.clock.advance(20_000);
    assert!(edge.exchange(&running, 1, &body, true).without_callout);
    running.clock.advance(5_000);
    edge.deliver(&running);
    let expiries = || -> Vec<u64> {
        let ledger = running.ledger();
        ledger.values().map(|entry| entry.expires_at_ms).collect()
    };
    assert_eq!(expiries(), [NOW + 20_000 + M5.duration_ms()]);
    assert!(
        (running.metric("prompt_cache_index_read_tokens_total{model=\"demo\"}") - 50.0).abs() < 0.5
    );
}
