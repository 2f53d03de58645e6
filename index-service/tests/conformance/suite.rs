//! The cases. Each starts with an empty store; time is a number that the case chooses.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{
    Breakpoint, Candidate, Fingerprint, LiveEntry, MAX_BREAKPOINTS, MAX_CANDIDATES, NewEntry, Tier,
    find_hit, look_back,
};
use prompt_cache_index::metrics::Metrics;
use prompt_cache_index::refresh::RefreshQueue;
use prompt_cache_index::store::{
    BATCH_ENTRIES_MAX, Cursor, Refresh, Scope, ScopeInfo, Store, Write,
};
use prompt_cache_index::transfer::{self, TransferError};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::json;

type AnyStore = Arc<dyn Store>;

const NOW: u64 = 1_800_000_000_000;
const M5: Tier = Tier::FiveMinutes;
const H1: Tier = Tier::OneHour;

fn scope(tenant: u8) -> Scope {
    Scope::of(&Fingerprint::new([tenant; 32]), "model", "version")
}

fn hash(n: u32) -> PrefixHash {
    let mut bytes = [0xab; 32];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    PrefixHash::new(bytes)
}

fn write(tenant: u8, n: u32, tokens: u32, tier: Tier, expires_at_ms: u64) -> Write {
    Write {
        scope: scope(tenant),
        entry: NewEntry {
            hash: hash(n),
            tokens,
            tier,
        },
        expires_at_ms,
    }
}

fn live(tokens: u32, tier: Tier, expires_at_ms: u64) -> Option<LiveEntry> {
    Some(LiveEntry {
        tokens,
        tier,
        expires_at_ms,
    })
}

async fn get(store: &AnyStore, tenant: u8, n: u32, now_ms: u64) -> Option<LiveEntry> {
    store
        .look_up(&scope(tenant), &[hash(n)], now_ms)
        .await
        .unwrap()[0]
}

async fn entries(store: &AnyStore) -> u64 {
    store.stats().await.unwrap().entries
}

pub async fn scopes_share_nothing(store: AnyStore) {
    let base = Fingerprint::new([1; 32]);
    let scopes = [
        Scope::of(&base, "m", "v"),
        Scope::of(&Fingerprint::new([2; 32]), "m", "v"),
        Scope::of(&base, "n", "v"),
        Scope::of(&base, "m", "w"),
        Scope::of(&base, "mv", ""),
        Scope::of(&base, "", "mv"),
    ];
    for (i, scope) in scopes.iter().enumerate() {
        let before = store.look_up(scope, &[hash(1)], NOW).await.unwrap();
        assert_eq!(before, [None], "scope {i} sees another's entry");
        let entry = NewEntry {
            hash: hash(1),
            tokens: 100 + i as u32,
            tier: M5,
        };
        let write = Write {
            scope: *scope,
            entry,
            expires_at_ms: NOW + 1000,
        };
        store.write(vec![write], NOW).await.unwrap();
    }
    for (i, scope) in scopes.iter().enumerate() {
        let found = store.look_up(scope, &[hash(1)], NOW).await.unwrap();
        assert_eq!(found, [live(100 + i as u32, M5, NOW + 1000)]);
    }
}

pub async fn an_entry_expires_at_its_millisecond(store: AnyStore) {
    store
        .write(vec![write(1, 1, 5, M5, NOW + 1000)], NOW)
        .await
        .unwrap();
    assert_eq!(get(&store, 1, 1, NOW + 999).await, live(5, M5, NOW + 1000));
    assert_eq!(get(&store, 1, 1, NOW + 1000).await, None);
}

pub async fn an_expiry_is_never_shortened(store: AnyStore) {
    store
        .write(vec![write(1, 1, 5, H1, NOW + 5000)], NOW)
        .await
        .unwrap();
    store
        .write(vec![write(1, 1, 5, H1, NOW + 4000)], NOW)
        .await
        .unwrap();
    assert_eq!(get(&store, 1, 1, NOW).await, live(5, H1, NOW + 5000));
    let refresh = Refresh {
        scope: scope(1),
        hash: hash(1),
        expires_at_ms: NOW + 4500,
    };
    store.refresh(vec![refresh]).await.unwrap();
    assert_eq!(get(&store, 1, 1, NOW).await, live(5, H1, NOW + 5000));
}

pub async fn a_shorter_tier_never_replaces_a_live_longer_one(store: AnyStore) {
    store
        .write(vec![write(1, 1, 5, H1, NOW + 1000)], NOW)
        .await
        .unwrap();
    store
        .write(vec![write(1, 1, 5, M5, NOW + 3000)], NOW)
        .await
        .unwrap();
    assert_eq!(get(&store, 1, 1, NOW).await, live(5, H1, NOW + 3000));
}

pub async fn a_longer_tier_upgrades_a_live_shorter_one(store: AnyStore) {
    store
        .write(vec![write(1, 1, 5, M5, NOW + 3000)], NOW)
        .await
        .unwrap();
    store
        .write(vec![write(1, 1, 5, H1, NOW + 9000)], NOW)
        .await
        .unwrap();
    assert_eq!(get(&store, 1, 1, NOW).await, live(5, H1, NOW + 9000));
}

pub async fn an_expired_entry_is_replaced_whole(store: AnyStore) {
    store
        .write(vec![write(1, 1, 5, H1, NOW + 1000)], NOW)
        .await
        .unwrap();
    store
        .write(vec![write(1, 1, 6, M5, NOW + 2000)], NOW + 1000)
        .await
        .unwrap();
    assert_eq!(get(&store, 1, 1, NOW + 1000).await, live(6, M5, NOW + 2000));
    assert_eq!(entries(&store).await, 1);
}

pub async fn a_write_twice_is_a_write_once(store: AnyStore) {
    let batch = vec![
        write(1, 1, 5, M5, NOW + 1000),
        write(1, 2, 9, H1, NOW + 2000),
    ];
    for later in [0, 1, 500] {
        store.write(batch.clone(), NOW + later).await.unwrap();
        assert_eq!(
            get(&store, 1, 1, NOW + later).await,
            live(5, M5, NOW + 1000)
        );
        assert_eq!(
            get(&store, 1, 2, NOW + later).await,
            live(9, H1, NOW + 2000)
        );
        assert_eq!(entries(&store).await, 2);
    }
}

pub async fn a_batch_with_repeats_is_merged_in_order(store: AnyStore) {
    let batch = vec![
        write(1, 1, 5, M5, NOW + 3000),
        write(1, 1, 5, H1, NOW + 1000),
        write(1, 1, 5, M5, NOW + 2000),
    ];
    store.write(batch, NOW).await.unwrap();
    assert_eq!(get(&store, 1, 1, NOW).await, live(5, H1, NOW + 3000));
}

/// A write may come after its own expiry. It replaces an expired entry, lends a live one its
/// tier, and is itself replaced by the next.
pub async fn a_batch_of_writes_that_came_too_late_is_merged_in_order(store: AnyStore) {
    let stored = vec![
        write(1, 1, 5, M5, NOW + 9000),
        write(1, 2, 5, M5, NOW + 1000),
    ];
    store.write(stored, NOW).await.unwrap();
    let now = NOW + 2000;
    let batch = vec![
        write(1, 1, 6, H1, now - 1),
        write(1, 2, 6, H1, now - 1),
        write(1, 3, 6, H1, now),
        write(1, 1, 7, M5, now + 500),
        write(1, 2, 7, M5, now + 500),
        write(1, 3, 7, M5, now + 500),
        write(1, 3, 8, M5, now + 700),
    ];
    store.write(batch, now).await.unwrap();
    assert_eq!(get(&store, 1, 1, now).await, live(5, H1, NOW + 9000));
    assert_eq!(get(&store, 1, 2, now).await, live(7, M5, now + 500));
    assert_eq!(get(&store, 1, 3, now).await, live(7, M5, now + 700));
}

pub async fn the_largest_batch_is_written_and_refreshed(store: AnyStore) {
    let entries = 0..BATCH_ENTRIES_MAX as u32;
    let tenant = |n: u32| (n % 7) as u8;
    let batch = entries
        .clone()
        .map(|n| write(tenant(n), n, n, M5, NOW + 1000))
        .collect();
    store.write(batch, NOW).await.unwrap();
    let refreshes = entries
        .clone()
        .map(|n| Refresh {
            scope: scope(tenant(n)),
            hash: hash(n),
            expires_at_ms: NOW + 2000 + u64::from(n),
        })
        .collect();
    store.refresh(refreshes).await.unwrap();
    for n in entries.step_by(97) {
        let expected = live(n, M5, NOW + 2000 + u64::from(n));
        assert_eq!(get(&store, tenant(n), n, NOW).await, expected);
    }
}

/// Batches over the same keys in opposite orders, writes against refreshes against sweeps:
/// nobody may wait in a circle.
pub async fn crossing_batches_finish_and_agree(store: AnyStore) {
    const KEYS: u32 = 60;
    let tasks: Vec<_> = (0..6u64)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for round in 0..15 {
                    let mut keys: Vec<u32> = (0..KEYS).collect();
                    if task % 2 == 0 {
                        keys.reverse();
                    }
                    let expires_at_ms = NOW + 20_000 + 100 * round + task;
                    if task < 4 {
                        let writes = keys.iter().map(|n| write(1, *n, 7, M5, expires_at_ms));
                        store.write(writes.collect(), NOW).await.unwrap();
                    } else {
                        let refreshes = keys.iter().map(|n| Refresh {
                            scope: scope(1),
                            hash: hash(*n),
                            expires_at_ms,
                        });
                        store.refresh(refreshes.collect()).await.unwrap();
                    }
                    store.sweep(NOW + 1, 10).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for n in 0..KEYS {
        assert_eq!(
            get(&store, 1, n, NOW)
                .await
                .map(|entry| entry.expires_at_ms >= NOW + 21_403),
            Some(true)
        );
    }
}

pub async fn concurrent_cold_writers_agree(store: AnyStore) {
    let tasks: Vec<_> = (0..8u64)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0..50 {
                    let tier = if task % 2 == 0 { M5 } else { H1 };
                    let write = write(1, n, 7, tier, NOW + 1000 + task);
                    store.write(vec![write], NOW).await.unwrap();
                    // A write is visible to everybody once it has returned.
                    assert!(get(&store, 1, n, NOW).await.is_some());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for n in 0..50 {
        assert_eq!(get(&store, 1, n, NOW).await, live(7, H1, NOW + 1007));
    }
    assert_eq!(entries(&store).await, 50);
}

pub async fn a_refresh_extends_and_changes_nothing_else(store: AnyStore) {
    store
        .write(vec![write(1, 1, 5, M5, NOW + 1000)], NOW)
        .await
        .unwrap();
    let refresh = Refresh {
        scope: scope(1),
        hash: hash(1),
        expires_at_ms: NOW + 9000,
    };
    store
        .refresh(vec![
            refresh,
            Refresh {
                expires_at_ms: NOW + 8000,
                ..refresh
            },
        ])
        .await
        .unwrap();
    assert_eq!(get(&store, 1, 1, NOW).await, live(5, M5, NOW + 9000));
}

pub async fn a_refresh_of_nothing_creates_nothing(store: AnyStore) {
    store
        .write(vec![write(1, 1, 5, M5, NOW + 1000)], NOW)
        .await
        .unwrap();
    let elsewhere = Refresh {
        scope: scope(2),
        hash: hash(1),
        expires_at_ms: NOW + 9000,
    };
    let other = Refresh {
        scope: scope(1),
        hash: hash(2),
        expires_at_ms: NOW + 9000,
    };
    store.refresh(vec![elsewhere, other]).await.unwrap();
    assert_eq!(get(&store, 2, 1, NOW).await, None);
    assert_eq!(get(&store, 1, 2, NOW).await, None);
    assert_eq!(entries(&store).await, 1);
}

pub async fn eighty_candidates_with_holes(store: AnyStore) {
    let all: Vec<u32> = (0..MAX_CANDIDATES as u32).collect();
    let held = |n: u32| n.is_multiple_of(3) || n == 79;
    let batch = all
        .iter()
        .filter(|n| held(**n))
        .map(|n| write(1, *n, n + 1, M5, NOW + 1000))
        .collect();
    store.write(batch, NOW).await.unwrap();
    let hashes: Vec<PrefixHash> = all.iter().map(|n| hash(*n)).collect();
    let expected: Vec<_> = all
        .iter()
        .map(|n| held(*n).then(|| live(n + 1, M5, NOW + 1000)).flatten())
        .collect();
    assert_eq!(
        store.look_up(&scope(1), &hashes, NOW).await.unwrap(),
        expected
    );
    assert_eq!(store.look_up(&scope(1), &[], NOW).await.unwrap(), []);
}

pub async fn the_largest_count_survives(store: AnyStore) {
    store
        .write(vec![write(1, 1, u32::MAX, Tier::Day, NOW + 1000)], NOW)
        .await
        .unwrap();
    assert_eq!(
        get(&store, 1, 1, NOW).await,
        live(u32::MAX, Tier::Day, NOW + 1000)
    );
}

/// A count is 32 bits wide from the wire to the store: the way in that a wider one could take
/// says no, and the store is as it was.
pub async fn counts_beyond_u32_are_refused(store: AnyStore) {
    let import = |tokens: u64| {
        let number = u128::from_be_bytes(*info(1, "m").scope().as_bytes());
        let (hash, scope) = (hash(1).to_string(), format!("{number:032x}"));
        let entry = json!({"scope": scope, "hash": hash, "tokens": tokens, "tier": "5m",
            "expires_at_ms": NOW + 1000});
        let scope = json!({"account": Fingerprint::new([1; 32]), "model": "m",
            "tokenizer_version": "version"});
        let lines = [
            json!({"ledger": 1}),
            scope,
            entry,
            json!({"scopes": 1, "entries": 1}),
        ];
        lines.map(|line| format!("{line}\n")).concat()
    };
    let beyond = import(u64::from(u32::MAX) + 1);
    let refused = transfer::import(&*store, NOW, beyond.as_bytes()).await;
    assert!(
        matches!(refused, Err(TransferError::Line { line: 3, .. })),
        "{refused:?}"
    );
    assert_eq!(entries(&store).await, 0);
    let largest = import(u32::MAX.into());
    let moved = transfer::import(&*store, NOW, largest.as_bytes()).await;
    assert_eq!(moved.unwrap().entries, 1);
    let scope = info(1, "m").scope();
    let found = store.look_up(&scope, &[hash(1)], NOW).await.unwrap();
    assert_eq!(found, [live(u32::MAX, M5, NOW + 1000)]);
}

/// Reads that come one after the other: none that gains too little is written, and those of an
/// entry that wait together are one.
pub async fn refreshes_are_debounced(store: AnyStore) {
    const WINDOW_MS: u64 = 300_000;
    let expires_at_ms = NOW + WINDOW_MS;
    store
        .write(vec![write(1, 1, 5, M5, expires_at_ms)], NOW)
        .await
        .unwrap();
    let metrics = Arc::new(Metrics::new());
    let queue = RefreshQueue::start(Arc::clone(&store), 60_000, Arc::clone(&metrics));
    let stored = live(5, M5, expires_at_ms).unwrap();
    let read = |after_ms: u64| queue.push(scope(1), &[(hash(1), stored)], NOW + after_ms);
    let counted = |outcome: &str| {
        let start = format!("prompt_cache_index_refreshes_total{{outcome=\"{outcome}\"}} ");
        let text = metrics.render().unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(&start));
        value.map_or(0, |value| value.parse::<u64>().unwrap())
    };
    for after_ms in [0, 1, WINDOW_MS / 100 - 1] {
        read(after_ms);
    }
    queue.flush().await;
    assert_eq!((counted("skipped"), counted("written")), (3, 0));
    assert_eq!(get(&store, 1, 1, NOW).await, Some(stored));
    for after_ms in 0..100 {
        read(WINDOW_MS / 100 + after_ms);
    }
    queue.flush().await;
    assert_eq!((counted("skipped"), counted("written")), (3, 1));
    let latest = NOW + WINDOW_MS / 100 + 99 + WINDOW_MS;
    assert_eq!(get(&store, 1, 1, NOW).await, live(5, M5, latest));
}

pub async fn a_sweep_removes_the_expired_and_only_those(store: AnyStore) {
    let batch = (0..10)
        .map(|n| write(1, n, 5, M5, NOW + 10_000 * u64::from(n)))
        .collect();
    store.write(batch, NOW - 1).await.unwrap();
    let now = NOW + 55_000;
    let swept = store.sweep(now, 1000).await.unwrap();
    assert_eq!((swept.removed, swept.more), (6, false));
    assert_eq!(entries(&store).await, 4);
    for n in 0..10 {
        assert_eq!(get(&store, 1, n, now).await.is_some(), n >= 6, "{n}");
    }
}

pub async fn a_sweep_goes_in_bounded_steps(store: AnyStore) {
    let batch = (0..25)
        .map(|n| write(1, n, 5, M5, NOW + u64::from(n)))
        .collect();
    store.write(batch, NOW - 1).await.unwrap();
    let mut steps = Vec::new();
    loop {
        let swept = store.sweep(NOW + 60_000, 10).await.unwrap();
        steps.push(swept.removed);
        if !swept.more {
            break;
        }
    }
    assert_eq!(steps, [10, 10, 5]);
    assert_eq!(entries(&store).await, 0);
}

pub async fn a_refreshed_entry_outlives_its_first_sweep(store: AnyStore) {
    store
        .write(vec![write(1, 1, 5, M5, NOW + 10_000)], NOW)
        .await
        .unwrap();
    let refresh = Refresh {
        scope: scope(1),
        hash: hash(1),
        expires_at_ms: NOW + 90_000,
    };
    store.refresh(vec![refresh]).await.unwrap();
    assert_eq!(store.sweep(NOW + 30_000, 10).await.unwrap().removed, 0);
    assert_eq!(
        get(&store, 1, 1, NOW + 30_000).await,
        live(5, M5, NOW + 90_000)
    );
    assert_eq!(store.sweep(NOW + 100_000, 10).await.unwrap().removed, 1);
    assert_eq!(entries(&store).await, 0);
}

pub async fn a_sweep_under_load_loses_nothing(store: AnyStore) {
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for n in 0..200 {
                let dead = write(1, 2 * n, 5, M5, NOW + 1);
                let alive = write(1, 2 * n + 1, 5, M5, NOW + 300_000);
                store.write(vec![dead, alive], NOW).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        store.sweep(NOW + 10_000, 7).await.unwrap();
    }
    writer.await.unwrap();
    while store.sweep(NOW + 10_000, 7).await.unwrap().more {}
    assert_eq!(entries(&store).await, 200);
    for n in 0..200 {
        assert!(get(&store, 1, 2 * n + 1, NOW + 10_000).await.is_some());
    }
}

fn info(tenant: u8, model: &str) -> ScopeInfo {
    ScopeInfo {
        account: Fingerprint::new([tenant; 32]),
        model: model.to_owned(),
        tokenizer_version: "version".to_owned(),
    }
}

/// All items of a paged read; each page is asked for `limit` of them.
macro_rules! collect {
    ($store:ident.$method:ident, $limit:expr) => {{
        let mut items = Vec::new();
        let mut from = Cursor::default();
        loop {
            let page = $store.$method(from, $limit).await.unwrap();
            items.extend(page.items);
            match page.next {
                Some(next) => from = next,
                None => break items,
            }
        }
    }};
}

pub async fn a_registered_scope_is_listed(store: AnyStore) {
    assert_eq!(collect!(store.scopes, 10), []);
    let infos: Vec<ScopeInfo> = (0..25)
        .map(|n| info(n % 5, &format!("model {}/é:{{}}'", n / 5)))
        .collect();
    store.register(&infos[..20]).await.unwrap();
    store.register(&infos[10..]).await.unwrap();
    store.register(&[]).await.unwrap();
    let listed: HashSet<ScopeInfo> = collect!(store.scopes, 7).into_iter().collect();
    assert_eq!(listed, infos.into_iter().collect());
}

pub async fn a_purge_removes_its_scopes_and_only_those(store: AnyStore) {
    let infos = [info(1, "model"), info(2, "model"), info(3, "model")];
    store.register(&infos).await.unwrap();
    // More than one step of any store.
    for tenant in [1, 2, 3] {
        for first in [0, 4000] {
            let batch = (first..first + 4000)
                .map(|n| write(tenant, n, 5, H1, NOW + 1000))
                .collect();
            store.write(batch, NOW).await.unwrap();
        }
    }
    let before = store.epoch().await.unwrap();
    assert_eq!(store.purge(&[scope(1), scope(3)]).await.unwrap(), 16_000);
    assert_ne!(store.epoch().await.unwrap(), before);
    for n in [0, 3999, 4000, 7999] {
        assert_eq!(get(&store, 1, n, NOW).await, None);
        assert_eq!(get(&store, 2, n, NOW).await, live(5, H1, NOW + 1000));
        assert_eq!(get(&store, 3, n, NOW).await, None);
    }
    assert_eq!(entries(&store).await, 8000);
    // The scopes stay known, and may be written again.
    let listed: HashSet<ScopeInfo> = collect!(store.scopes, 100).into_iter().collect();
    assert_eq!(listed, infos.into_iter().collect());
    store
        .write(vec![write(1, 7, 6, M5, NOW + 90_000)], NOW)
        .await
        .unwrap();
    while store.sweep(NOW + 30_000, 1000).await.unwrap().more {}
    assert_eq!(
        get(&store, 1, 7, NOW + 30_000).await,
        live(6, M5, NOW + 90_000)
    );
    assert_eq!(get(&store, 1, 8, NOW).await, None);
}

pub async fn the_epoch_changes_with_every_purge_and_nothing_else(store: AnyStore) {
    let first = store.epoch().await.unwrap();
    store.register(&[info(1, "model")]).await.unwrap();
    store
        .write(vec![write(1, 1, 5, M5, NOW + 1000)], NOW)
        .await
        .unwrap();
    store.sweep(NOW + 60_000, 10).await.unwrap();
    assert_eq!(store.epoch().await.unwrap(), first);
    let mut seen = HashSet::from([first]);
    for scopes in [vec![scope(8)], vec![scope(9)], vec![]] {
        assert_eq!(store.purge(&scopes).await.unwrap(), 0);
        let epoch = store.epoch().await.unwrap();
        assert!(seen.insert(epoch));
        assert_eq!(store.epoch().await.unwrap(), epoch);
    }
}

pub async fn a_scan_yields_every_entry(store: AnyStore) {
    assert_eq!(collect!(store.scan, 10), []);
    let expected: HashMap<_, _> = (0..500)
        .map(|n| {
            let tier = Tier::ALL[n as usize % 3];
            write(n as u8 % 3, n, n * 7, tier, NOW + 100_000 + u64::from(n))
        })
        .map(|write| ((write.scope, write.entry.hash), write))
        .collect();
    let batch: Vec<Write> = expected.values().copied().collect();
    store.write(batch, NOW).await.unwrap();
    let found: HashMap<_, _> = collect!(store.scan, 64)
        .into_iter()
        .map(|write| ((write.scope, write.entry.hash), write))
        .collect();
    assert_eq!(found, expected);
}

pub async fn a_find_answers_all_that_the_hit_needs(store: AnyStore) {
    let mut runner = TestRunner::deterministic();
    let cases = (
        prop::collection::btree_set(0..60u32, 1..=MAX_BREAKPOINTS),
        prop::collection::vec(0..60u32, 0..6),
    );
    for tenant in 0..40 {
        let (blocks, held) = cases.new_tree(&mut runner).unwrap().current();
        let breakpoints: Vec<Breakpoint> = blocks
            .into_iter()
            .map(|block| Breakpoint { block, tier: M5 })
            .collect();
        let candidates: Vec<Candidate> = look_back(&breakpoints)
            .into_iter()
            .map(|block| Candidate {
                block,
                hash: hash(block),
            })
            .collect();
        let batch = held
            .iter()
            .map(|n| write(tenant, *n, *n, H1, NOW + 1000))
            .collect();
        store.write(batch, NOW).await.unwrap();
        let hashes: Vec<PrefixHash> = candidates.iter().map(|c| c.hash).collect();
        for now in [NOW, NOW + 1000] {
            let scope = scope(tenant);
            let all = store.look_up(&scope, &hashes, now).await.unwrap();
            let some = store
                .find(&scope, &breakpoints, &candidates, now)
                .await
                .unwrap();
            assert_eq!(
                find_hit(&breakpoints, &candidates, &some),
                find_hit(&breakpoints, &candidates, &all),
            );
        }
    }
}

pub async fn hashes_that_differ_late_are_told_apart(store: AnyStore) {
    let with_end = |end: u8| {
        let mut bytes = [3; 32];
        bytes[31] = end;
        PrefixHash::new(bytes)
    };
    let write = |end: u8, expires_at_ms: u64| {
        let mut write = write(1, 0, end.into(), M5, expires_at_ms);
        write.entry.hash = with_end(end);
        write
    };
    // Two of the same second, one of a later one.
    let batch = vec![
        write(1, NOW + 10_000),
        write(2, NOW + 10_001),
        write(3, NOW + 90_000),
    ];
    store.write(batch, NOW).await.unwrap();
    let refresh = Refresh {
        scope: scope(1),
        hash: with_end(2),
        expires_at_ms: NOW + 50_000,
    };
    store.refresh(vec![refresh]).await.unwrap();
    let hashes = [1, 2, 3].map(with_end);
    let two = live(2, M5, NOW + 50_000);
    let three = live(3, M5, NOW + 90_000);
    for (after_ms, expected) in [
        (30_000, [None, two, three]),
        (70_000, [None, None, three]),
        (100_000, [None, None, None]),
    ] {
        let now = NOW + after_ms;
        while store.sweep(now, 1).await.unwrap().more {}
        let found = store.look_up(&scope(1), &hashes, now).await.unwrap();
        assert_eq!(found, expected, "after {after_ms} ms");
        let left = expected.iter().flatten().count() as u64;
        assert_eq!(entries(&store).await, left, "after {after_ms} ms");
    }
}

/// What the model-based case does to a store.
#[derive(Clone, Debug)]
enum Step {
    Write {
        tenant: u8,
        n: u32,
        tier: Tier,
        age_ms: u64,
    },
    Refresh {
        tenant: u8,
        n: u32,
    },
    Wait {
        ms: u64,
    },
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let tier = prop::sample::select(Tier::ALL.to_vec());
    prop_oneof![
        4 => (0..2u8, 0..4u32, tier, 0..200_000u64)
            .prop_map(|(tenant, n, tier, age_ms)| Step::Write { tenant, n, tier, age_ms }),
        3 => (0..2u8, 0..4u32).prop_map(|(tenant, n)| Step::Refresh { tenant, n }),
        3 => prop_oneof![1..2000u64, 60_000..400_000u64, 3_000_000..4_000_000u64]
            .prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Sweep),
    ]
}

/// The rules again, in the plainest form, beside the real store.
pub async fn a_model_of_the_rules_agrees(store: AnyStore) {
    let steps = {
        let mut runner = TestRunner::deterministic();
        prop::collection::vec(step(), 400)
            .new_tree(&mut runner)
            .unwrap()
            .current()
    };
    let mut model: HashMap<(u8, u32), LiveEntry> = HashMap::new();
    let mut now = NOW;
    for (i, step) in steps.into_iter().enumerate() {
        match step {
            Step::Wait { ms } => now += ms,
            Step::Sweep => while store.sweep(now, 3).await.unwrap().more {},
            Step::Write {
                tenant,
                n,
                tier,
                age_ms,
            } => {
                let expires_at_ms = now - age_ms + tier.duration_ms();
                store
                    .write(vec![write(tenant, n, n, tier, expires_at_ms)], now)
                    .await
                    .unwrap();
                let new = LiveEntry {
                    tokens: n,
                    tier,
                    expires_at_ms,
                };
                model
                    .entry((tenant, n))
                    .and_modify(|entry| {
                        if entry.expires_at_ms <= now {
                            *entry = new;
                        } else {
                            entry.tier = entry.tier.max(tier);
                            entry.expires_at_ms = entry.expires_at_ms.max(expires_at_ms);
                        }
                    })
                    .or_insert(new);
            }
            Step::Refresh { tenant, n } => {
                let entry = model
                    .get_mut(&(tenant, n))
                    .filter(|entry| entry.expires_at_ms > now);
                if let Some(entry) = entry {
                    entry.expires_at_ms = entry.expires_at_ms.max(now + entry.tier.duration_ms());
                    let expires_at_ms = entry.expires_at_ms;
                    let refresh = Refresh {
                        scope: scope(tenant),
                        hash: hash(n),
                        expires_at_ms,
                    };
                    store.refresh(vec![refresh]).await.unwrap();
                }
            }
        }
        for tenant in 0..2 {
            for n in 0..4 {
                let expected = model
                    .get(&(tenant, n))
                    .copied()
                    .filter(|entry| entry.expires_at_ms > now);
                assert_eq!(
                    get(&store, tenant, n, now).await,
                    expected,
                    "after step {i}"
                );
            }
        }
    }
}
