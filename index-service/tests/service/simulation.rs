//! Tenants, tiers, time and growing prompts: the service agrees with a simulator that knows the
//! rules in their plainest form and nothing of hashes, wires or stores.

use std::collections::HashMap;

use prompt_cache_core::ledger::{Split, Tier, TierTokens};
use prompt_cache_test_servers::fresh_name;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::harness::{H1, M5, NOW, Running, chat, request, start, text};

const FLOOR: u64 = 10;
const STEPS: usize = 250;
const LOOK_BACK: usize = 20;

/// One exchange: who, which conversation, up to which turn, marked where, after how long, and
/// whether the upstream succeeds.
#[derive(Clone, Debug)]
struct Exchange {
    tenant: u8,
    conversation: usize,
    turns: usize,
    marks: Vec<(usize, Tier)>,
    wait_ms: u64,
    succeeds: bool,
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let tier = || prop::sample::select(vec![M5, H1]);
    let wait = prop::sample::select(vec![0, 1, 2_000, 40_000, 200_000, 299_999, 3_000_000]);
    (
        0..2u8,
        0..3usize,
        1..45usize,
        wait,
        prop::bool::weighted(0.8),
    )
        .prop_flat_map(move |(tenant, conversation, turns, wait_ms, succeeds)| {
            prop::collection::btree_map(0..turns, tier(), 1..=4).prop_map(move |marks| Exchange {
                tenant,
                conversation,
                turns,
                marks: marks.into_iter().collect(),
                wait_ms,
                succeeds,
            })
        })
}

/// Tokens of each block. The first two conversations share their first six blocks.
fn blocks(exchange: &Exchange) -> Vec<usize> {
    let own = |i: usize| {
        if i < 6 {
            exchange.conversation / 2
        } else {
            exchange.conversation
        }
    };
    (0..exchange.turns)
        .map(|i| (own(i) * 7 + i * 5) % 13 + 1)
        .collect()
}

#[derive(Clone, Copy)]
struct Entry {
    tokens: u64,
    tier: Tier,
    expires_at_ms: u64,
}

/// The simulator: prefixes are lists of block sizes, looked up one by one.
#[derive(Default)]
struct Simulator {
    entries: HashMap<(u8, Vec<usize>), Entry>,
}

type Writes = Vec<(Vec<usize>, Entry)>;

impl Simulator {
    fn live(&mut self, tenant: u8, prefix: &[usize], now_ms: u64) -> Option<&mut Entry> {
        self.entries
            .get_mut(&(tenant, prefix.to_vec()))
            .filter(|entry| now_ms < entry.expires_at_ms)
    }

    fn classify(&mut self, exchange: &Exchange, now_ms: u64) -> (Split, Writes) {
        let blocks = blocks(exchange);
        let tenant = exchange.tenant;
        let deepest = exchange.marks.last().unwrap().0;
        let seen = |i: usize| {
            exchange
                .marks
                .iter()
                .any(|(m, _)| i <= *m && i + LOOK_BACK > *m)
        };
        let hit = (0..=deepest)
            .rev()
            .find(|i| seen(*i) && self.live(tenant, &blocks[..=*i], now_ms).is_some());
        let mut read = 0;
        if let Some(hit) = hit {
            read = self.live(tenant, &blocks[..=hit], now_ms).unwrap().tokens;
            for i in (0..=hit).filter(|i| *i == hit || exchange.marks.iter().any(|(m, _)| m == i)) {
                if let Some(entry) = self.live(tenant, &blocks[..=i], now_ms) {
                    let expires_at_ms = now_ms + entry.tier.duration_ms();
                    let gain_ms = expires_at_ms.saturating_sub(entry.expires_at_ms);
                    if gain_ms >= entry.tier.duration_ms() / 100 {
                        entry.expires_at_ms = expires_at_ms;
                    }
                }
            }
        }
        let mut creation = TierTokens::default();
        let mut writes = Vec::new();
        let mut previous = read;
        for (mark, tier) in exchange
            .marks
            .iter()
            .filter(|(m, _)| hit.is_none_or(|hit| *m > hit))
        {
            let tokens: usize = blocks[..=*mark].iter().sum();
            let tokens = tokens as u64;
            if tokens < FLOOR {
                continue;
            }
            creation.add(*tier, tokens - previous);
            previous = tokens;
            let expires_at_ms = now_ms + tier.duration_ms();
            let entry = Entry {
                tokens,
                tier: *tier,
                expires_at_ms,
            };
            writes.push((blocks[..=*mark].to_vec(), entry));
        }
        (Split { read, creation }, writes)
    }

    fn commit(&mut self, tenant: u8, writes: Writes, now_ms: u64) {
        for (prefix, mut entry) in writes {
            if let Some(stored) = self.live(tenant, &prefix, now_ms) {
                entry.tier = entry.tier.max(stored.tier);
                entry.expires_at_ms = entry.expires_at_ms.max(stored.expires_at_ms);
            }
            self.entries.insert((tenant, prefix), entry);
        }
    }
}

#[test]
fn the_service_agrees_with_the_simulator() {
    agree(&start(""));
}

#[test]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
fn the_service_on_postgres_agrees_with_the_simulator() {
    let schema = fresh_name();
    agree(&start(&format!(
        "store: {{postgres: {{url_env: TEST_POSTGRES_URL, schema: {schema}}}}}"
    )));
}

#[test]
#[ignore = "needs a Redis server: ./just test-stores"]
fn the_service_on_redis_agrees_with_the_simulator() {
    agree_on_redis("url_env: TEST_REDIS_URL");
}

#[test]
#[ignore = "needs a Redis Cluster: ./just test-stores"]
fn the_service_on_a_redis_cluster_agrees_with_the_simulator() {
    agree_on_redis("url_env: TEST_REDIS_CLUSTER_URLS, cluster: true");
}

fn agree_on_redis(servers: &str) {
    let prefix = fresh_name();
    agree(&start(&format!(
        "store: {{redis: {{{servers}, key_prefix: {prefix}, operation_timeout_ms: 30000, \
         connect_timeout_ms: 30000}}}}"
    )));
}

fn agree(running: &Running) {
    let exchanges = {
        let mut runner = TestRunner::deterministic();
        let strategy = prop::collection::vec(exchange(), STEPS);
        strategy.new_tree(&mut runner).unwrap().current()
    };
    let mut simulator = Simulator::default();
    let mut now_ms = NOW;
    let (mut reads, mut creations) = (0, 0);
    for (step, exchange) in exchanges.into_iter().enumerate() {
        running.clock.advance(exchange.wait_ms);
        now_ms += exchange.wait_ms;
        let texts: Vec<String> = blocks(&exchange).into_iter().map(text).collect();
        let body = chat(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let marks: Vec<(u32, Tier)> = exchange
            .marks
            .iter()
            .map(|(mark, tier)| (*mark as u32, *tier))
            .collect();
        let asked = request(exchange.tenant, &body, &marks);
        let (split, writes) = simulator.classify(&exchange, now_ms);
        let classified = if exchange.succeeds {
            simulator.commit(exchange.tenant, writes.clone(), now_ms);
            running.exchange(&asked, &body)
        } else {
            running.classify(&asked, &body)
        };
        running.flush();
        assert_eq!(classified.split, split, "step {step}: {exchange:?}");
        assert_eq!(
            classified.writes.len(),
            writes.len(),
            "step {step}: {exchange:?}"
        );
        reads += u32::from(split.read > 0);
        creations += u32::from(split.creation.total() > 0);
    }
    assert!(
        reads > 30 && creations > 30,
        "the walk visits both: {reads} reads, {creations} creations"
    );
}
