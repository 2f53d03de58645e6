//! The commit: expiry arithmetic, idempotence, and what is dropped.

use prompt_cache_core::ledger::{Breakpoint, Candidate, Tier};
use prompt_cache_core::wire::{
    ClassifyAnswer, ClassifyRequest, Commit, CommitAnswer, MAX_COMMITS_PER_BATCH, WIRE_VERSION,
};

use crate::harness::{H1, M5, Running, entry, principal, start};

fn version(running: &Running) -> String {
    running
        .service
        .models
        .get("demo")
        .unwrap()
        .policy
        .tokenizer_version
        .clone()
}

fn commit(running: &Running, n: u8, tier: Tier, age_ms: u64) -> Commit {
    Commit {
        principal: principal(1),
        model: "demo".to_owned(),
        tokenizer_version: version(running),
        age_ms,
        prompt_tokens: Some(60),
        counted_prompt_tokens: Some(50),
        writes: vec![entry(n, 50, tier)],
    }
}

fn reads(running: &Running, n: u8) -> u64 {
    let request = ClassifyRequest {
        v: WIRE_VERSION,
        api: prompt_cache_core::api::Api::Chat,
        principal: principal(1),
        model: "demo".to_owned(),
        breakpoints: vec![Breakpoint { block: 0, tier: M5 }],
        candidates: vec![Candidate {
            block: 0,
            hash: entry(n, 0, M5).hash,
        }],
    };
    match running.ask(&request) {
        ClassifyAnswer::Ok(classified) => classified.split.read,
        _ => 0,
    }
}

/// Entries written and dropped.
const ONE: (u64, u64) = (1, 0);
const NONE: (u64, u64) = (0, 1);

fn counts(answer: &CommitAnswer) -> (u64, u64) {
    (answer.written, answer.dropped)
}

#[test]
fn a_life_counts_from_the_end_of_the_response() {
    let running = start("");
    assert_eq!(
        counts(&running.commit(vec![commit(&running, 1, M5, 100_000)])),
        ONE
    );
    running.clock.advance(199_999);
    assert_eq!(reads(&running, 1), 50);
    // Reading refreshes; look at another entry of the same age for the end of the life.
    let running = start("");
    running.commit(vec![commit(&running, 1, M5, 100_000)]);
    running.clock.advance(200_000);
    assert_eq!(reads(&running, 1), 0);
}

#[test]
fn a_late_commit_writes_nothing() {
    let running = start("");
    assert_eq!(
        counts(&running.commit(vec![commit(&running, 1, M5, 300_000)])),
        NONE
    );
    assert_eq!(
        counts(&running.commit(vec![commit(&running, 1, M5, u64::MAX)])),
        NONE
    );
    assert_eq!(reads(&running, 1), 0);
    assert_eq!(
        counts(&running.commit(vec![commit(&running, 1, M5, 299_999)])),
        ONE
    );
    assert_eq!(reads(&running, 1), 50);
}

#[test]
fn a_commit_twice_is_a_commit_once() {
    let running = start("");
    // Delivered again 100 s later, when the sender's age has grown by as much.
    assert_eq!(
        counts(&running.commit(vec![commit(&running, 1, M5, 0)])),
        ONE
    );
    running.clock.advance(100_000);
    assert_eq!(
        counts(&running.commit(vec![commit(&running, 1, M5, 100_000)])),
        ONE
    );
    running.clock.advance(200_000);
    assert_eq!(reads(&running, 1), 0);
    assert_eq!(running.metric("prompt_cache_index_entries"), 1.0);
}

#[test]
fn what_is_not_served_is_dropped_and_counted() {
    let known = "01".repeat(32);
    let running = start(&format!(
        "models: [{{model: demo, encoding: o200k_base}}]\nunknown_principal: inactive\n\
         principals: [{{fingerprint: {known}}}]"
    ));
    let good = commit(&running, 1, M5, 0);
    let batch = vec![
        Commit {
            model: "other".to_owned(),
            ..good.clone()
        },
        Commit {
            principal: principal(2),
            ..good.clone()
        },
        Commit {
            tokenizer_version: "old".to_owned(),
            ..good.clone()
        },
        Commit {
            writes: vec![entry(1, 50, Tier::Day)],
            ..good.clone()
        },
    ];
    assert_eq!(counts(&running.commit(batch)), (0, 4));
    assert_eq!(reads(&running, 1), 0);
    for outcome in [
        "unknown_model",
        "unknown_principal",
        "other_version",
        "tier_disabled",
    ] {
        let name = format!("prompt_cache_index_commit_entries_total{{outcome=\"{outcome}\"}}");
        assert_eq!(running.metric(&name), 1.0, "{outcome}");
    }
    assert_eq!(counts(&running.commit(vec![good])), ONE);
    assert_eq!(reads(&running, 1), 50);
}

#[test]
fn the_tier_of_a_live_entry_only_grows() {
    let running = start("");
    running.commit(vec![commit(&running, 1, H1, 0)]);
    running.clock.advance(H1.duration_ms() - 1000);
    // A five-minute write over it extends the life but leaves the tier at an hour.
    running.commit(vec![commit(&running, 1, M5, 0)]);
    running.clock.advance(2000);
    assert_eq!(reads(&running, 1), 50);
    running.flush();
    running.clock.advance(H1.duration_ms() - 1000);
    assert_eq!(reads(&running, 1), 50);
}

#[test]
fn a_full_batch_is_taken_and_a_larger_one_refused() {
    let running = start("");
    let commits = |count: usize| {
        let commits: Vec<_> = (0..count)
            .map(|n| commit(&running, n as u8, M5, 0))
            .collect();
        serde_json::to_vec(&serde_json::json!({"v": WIRE_VERSION, "commits": commits})).unwrap()
    };
    let full = running.post("/v1/commit", &[], &commits(MAX_COMMITS_PER_BATCH));
    assert_eq!(full.json()["written"], 256);
    let over = running.post("/v1/commit", &[], &commits(MAX_COMMITS_PER_BATCH + 1));
    assert_eq!(
        (over.status, over.code().as_str()),
        (400, "invalid_request")
    );
}

#[test]
fn the_drift_histogram_compares_our_count_with_the_upstreams() {
    let running = start("");
    running.commit(vec![commit(&running, 1, M5, 0)]);
    let name = "prompt_cache_index_counted_prompt_ratio_bucket{le=\"0.75\",model=\"demo\"}";
    assert_eq!(running.metric(name), 0.0);
    let name = "prompt_cache_index_counted_prompt_ratio_bucket{le=\"0.9\",model=\"demo\"}";
    assert_eq!(running.metric(name), 1.0);
}

#[test]
fn the_sweeper_removes_what_expired_and_recovers_from_a_broken_store() {
    let running = start("");
    running.commit(
        (0..20)
            .map(|n| commit(&running, n, if n < 15 { M5 } else { H1 }, 0))
            .collect(),
    );
    running
        .faults
        .fail
        .store(true, std::sync::atomic::Ordering::SeqCst);
    running.start_sweeper(10);
    let until = |name: &str, least: f64| while running.metric(name) < least {};
    until(
        "prompt_cache_index_store_errors_total{operation=\"sweep\"}",
        1.0,
    );
    running
        .faults
        .fail
        .store(false, std::sync::atomic::Ordering::SeqCst);
    until("prompt_cache_index_sweeps_total", 2.0);
    assert_eq!(running.metric("prompt_cache_index_entries"), 20.0);
    running.clock.advance(M5.duration_ms() + 60_000);
    until("prompt_cache_index_swept_entries_total", 15.0);
    let sweeps = running.metric("prompt_cache_index_sweeps_total");
    until("prompt_cache_index_sweeps_total", sweeps + 2.0);
    assert_eq!(
        running.metric("prompt_cache_index_swept_entries_total"),
        15.0
    );
    assert_eq!(running.metric("prompt_cache_index_entries"), 5.0);
}
