//! What is counted, how often, and what becomes of counts that leave the upstream's.

use prompt_cache_core::ledger::Split;
use prompt_cache_core::wire::{Classified, ClassifyAnswer, ClassifyRequest};

use crate::harness::{M5, Running, chat, commit_of, request, start, text};

const REMEMBERED: &str = "prompt_cache_index_tokenize_total{outcome=\"remembered\"}";
const COUNTED: &str = "prompt_cache_index_tokenize_total{outcome=\"ok\"}";

/// Passes of the tokenizer, and counts that needed none.
fn counted(running: &Running) -> (f64, f64) {
    (running.metric(COUNTED), running.metric(REMEMBERED))
}

fn ok(answer: ClassifyAnswer) -> Classified {
    match answer {
        ClassifyAnswer::Ok(classified) => classified,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_prefix_is_counted_once_before_its_commit_lands_as_well() {
    let running = start("");
    let body = chat(&[&text(100), &text(20)]);
    let asked = request(1, &body, &[(0, M5), (1, M5)]);
    let first = running.classify(&asked, &body);
    assert_eq!(counted(&running), (1.0, 0.0));
    // Nothing is committed: the same answer, from the same count.
    let second = ok(running.ask_with_text(&asked, &body));
    assert_eq!(second.split, first.split);
    assert_eq!(second.writes, first.writes);
    assert_eq!(counted(&running), (1.0, 1.0));
    // Another prompt with the same beginning goes on from it.
    let longer = chat(&[&text(100), &text(20), &text(30)]);
    let asked = request(1, &longer, &[(0, M5), (2, M5)]);
    let third = running.classify(&asked, &longer);
    assert_eq!(third.split.creation.get(M5), 150);
    assert_eq!(counted(&running), (2.0, 1.0));
    // Another tenant starts from nothing.
    let asked = request(2, &body, &[(0, M5), (1, M5)]);
    assert_eq!(running.classify(&asked, &body).split, first.split);
    assert_eq!(counted(&running), (3.0, 1.0));
}

#[test]
fn requests_that_come_together_are_counted_once() {
    let running = start("");
    // Long enough that most of them meet; whoever comes later finds the count.
    let body = chat(&[&text(200_000)]);
    let asked = request(1, &body, &[(0, M5)]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let classified = ok(running.ask_with_text(&asked, &body));
                assert_eq!(classified.split.creation.get(M5), 200_000);
            });
        }
    });
    assert_eq!(counted(&running), (1.0, 7.0));
}

#[test]
fn the_whole_prompt_is_counted_beside_its_prefixes() {
    let running = start("");
    let body = chat(&[&text(100), &text(20), &text(7)]);
    let classified = running.classify(&request(1, &body, &[(0, M5)]), &body);
    assert_eq!(classified.split.creation.get(M5), 100);
    assert_eq!(classified.counted_prompt_tokens, Some(127));
    // Nothing to write is nothing to commit.
    let short = chat(&[&text(5)]);
    let classified = running.classify(&request(1, &short, &[(0, M5)]), &short);
    assert_eq!(classified.counted_prompt_tokens, None);
}

/// A prompt of 100 tokens that nobody has seen.
fn cold(n: usize) -> (ClassifyRequest, Vec<u8>) {
    let body = chat(&[&text(100), &format!("{n}")]);
    (request(1, &body, &[(1, M5)]), body)
}

/// As many exchanges, the upstream reporting `prompt_tokens` for each.
fn exchange(running: &Running, numbers: std::ops::Range<usize>, prompt_tokens: u64) -> Vec<Split> {
    numbers
        .map(|n| {
            let (asked, body) = cold(n);
            let classified = running.classify(&asked, &body);
            assert_eq!(classified.counted_prompt_tokens, Some(101));
            let mut commit = commit_of(&asked, &classified);
            commit.prompt_tokens = Some(prompt_tokens);
            running.commit(vec![commit]);
            classified.split
        })
        .collect()
}

fn state(running: &Running) -> &'static str {
    let states = ["trusted", "drifting", "unmapped"];
    let is = |state: &&str| {
        let name = format!("prompt_cache_index_counts_state{{model=\"demo\",state=\"{state}\"}}");
        running.metric(&name) == 1.0
    };
    let on: Vec<_> = states.into_iter().filter(is).collect();
    assert_eq!(on.len(), 1, "{on:?}");
    on[0]
}

#[test]
fn counts_above_the_upstreams_show_and_can_stop_writes_until_they_are_back() {
    let running = start("drift: {max_ratio: 1.05, stop_writes: true}");
    assert_eq!(state(&running), "unmapped");
    exchange(&running, 0..8, 101);
    assert_eq!(state(&running), "trusted");
    exchange(&running, 10..30, 80);
    assert_eq!(state(&running), "drifting");
    // Nothing is billed and nothing is written, and the comparison goes on.
    let splits = exchange(&running, 30..31, 80);
    assert_eq!(splits, [Split::default()]);
    let (asked, body) = cold(30);
    let classified = running.classify(&asked, &body);
    assert!(classified.writes.is_empty() && classified.split == Split::default());
    exchange(&running, 100..250, 101);
    assert_eq!(state(&running), "trusted");
    assert_eq!(exchange(&running, 250..251, 101)[0].creation.get(M5), 101);
}

#[test]
fn drift_stops_nothing_unless_it_is_told_to() {
    let running = start("");
    exchange(&running, 0..20, 50);
    assert_eq!(state(&running), "drifting");
    assert_eq!(exchange(&running, 20..21, 50)[0].creation.get(M5), 101);
}
