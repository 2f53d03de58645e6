//! The queue of earned commits: bounded, batched, retried with back-off until a deadline.

use std::collections::VecDeque;

use crate::wire::{Commit, CommitBatch, MAX_COMMITS_PER_BATCH, WIRE_VERSION};

/// First pause after a failed delivery; doubles up to [`BACK_OFF_MAX_MS`].
const BACK_OFF_MIN_MS: u64 = 50;
/// Longest pause between two deliveries.
const BACK_OFF_MAX_MS: u64 = 2_000;

/// How a delivery of a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitResult {
    /// The service has it.
    Delivered,
    /// The service will never take it (400, 413).
    Refused,
    /// No answer, or one that may change: try again.
    Failed,
}

/// How many commits came to their end, and how. Every commit ends exactly once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Delivered.
    pub ok: u64,
    /// Refused by the service.
    pub error: u64,
    /// Not delivered before the deadline.
    pub timeout: u64,
    /// Pushed out of the full queue.
    pub dropped: u64,
}

#[derive(Debug)]
struct Earned {
    at_ms: u64,
    commit: Commit,
}

/// The commits of one worker. `now_ms` is any clock that never goes back.
#[derive(Debug)]
pub struct CommitQueue {
    entries_max: usize,
    deadline_ms: u64,
    waiting: VecDeque<Earned>,
    in_flight: Vec<Earned>,
    failures: u32,
    retry_at_ms: u64,
}

impl CommitQueue {
    /// An empty queue of at most `entries_max` commits, each tried for `deadline_ms`.
    pub const fn new(entries_max: usize, deadline_ms: u64) -> Self {
        Self {
            entries_max,
            deadline_ms,
            waiting: VecDeque::new(),
            in_flight: Vec::new(),
            failures: 0,
            retry_at_ms: 0,
        }
    }

    /// Adds a commit; a full queue drops its oldest.
    pub fn push(&mut self, commit: Commit, now_ms: u64) -> Settled {
        let mut settled = Settled::default();
        while self.waiting.len() + self.in_flight.len() >= self.entries_max {
            if self.waiting.pop_front().is_none() {
                settled.dropped += 1;
                return settled;
            }
            settled.dropped += 1;
        }
        self.waiting.push_back(Earned {
            at_ms: now_ms,
            commit,
        });
        settled
    }

    /// The next batch to deliver, if one is due and none is in flight. Commits past their
    /// deadline are counted and left out.
    pub fn next_batch(&mut self, now_ms: u64) -> (Settled, Option<CommitBatch>) {
        let mut settled = Settled::default();
        if !self.in_flight.is_empty() || self.waiting.is_empty() {
            return (settled, None);
        }
        while self
            .waiting
            .front()
            .is_some_and(|e| now_ms.saturating_sub(e.at_ms) > self.deadline_ms)
        {
            self.waiting.pop_front();
            settled.timeout += 1;
        }
        if self.waiting.is_empty() || now_ms < self.retry_at_ms {
            return (settled, None);
        }
        let count = self.waiting.len().min(MAX_COMMITS_PER_BATCH);
        self.in_flight = self.waiting.drain(..count).collect();
        let commits = self
            .in_flight
            .iter()
            .map(|e| Commit {
                age_ms: now_ms.saturating_sub(e.at_ms),
                ..e.commit.clone()
            })
            .collect();
        (
            settled,
            Some(CommitBatch {
                v: WIRE_VERSION,
                commits,
            }),
        )
    }

    /// Reports the batch in flight. A failed one goes back to the head of the queue.
    pub fn settle(&mut self, result: CommitResult, now_ms: u64) -> Settled {
        let batch = std::mem::take(&mut self.in_flight);
        let count = batch.len() as u64;
        match result {
            CommitResult::Delivered => {
                self.failures = 0;
                self.retry_at_ms = 0;
                Settled {
                    ok: count,
                    ..Settled::default()
                }
            }
            CommitResult::Refused => Settled {
                error: count,
                ..Settled::default()
            },
            CommitResult::Failed => {
                let pause_ms = BACK_OFF_MIN_MS
                    .saturating_mul(1 << self.failures.min(16))
                    .min(BACK_OFF_MAX_MS);
                self.failures = self.failures.saturating_add(1);
                self.retry_at_ms = now_ms.saturating_add(pause_ms);
                for earned in batch.into_iter().rev() {
                    self.waiting.push_front(earned);
                }
                Settled::default()
            }
        }
    }

    /// True when there is nothing left to deliver or to hear of.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Fingerprint;

    fn commit(model: &str) -> Commit {
        Commit {
            principal: Fingerprint::new([1; 32]),
            model: model.into(),
            tokenizer_version: "v".into(),
            age_ms: 0,
            prompt_tokens: None,
            counted_prompt_tokens: None,
            writes: vec![],
        }
    }

    fn models(batch: Option<CommitBatch>) -> Vec<(String, u64)> {
        batch
            .unwrap()
            .commits
            .into_iter()
            .map(|c| (c.model, c.age_ms))
            .collect()
    }

    #[test]
    fn one_batch_at_a_time_and_a_failed_one_comes_back_in_order() {
        let mut queue = CommitQueue::new(10, 1_000);
        queue.push(commit("a"), 0);
        queue.push(commit("b"), 5);
        let (_, batch) = queue.next_batch(10);
        assert_eq!(models(batch), [("a".into(), 10), ("b".into(), 5)]);
        queue.push(commit("c"), 11);
        assert_eq!(queue.next_batch(11).1, None, "one in flight");
        assert_eq!(queue.settle(CommitResult::Failed, 20), Settled::default());
        assert_eq!(
            queue.next_batch(20 + BACK_OFF_MIN_MS - 1).1,
            None,
            "backs off"
        );
        let (_, batch) = queue.next_batch(20 + BACK_OFF_MIN_MS);
        assert_eq!(
            models(batch)
                .iter()
                .map(|m| m.0.as_str())
                .collect::<String>(),
            "abc"
        );
        assert_eq!(queue.settle(CommitResult::Delivered, 80).ok, 3);
        assert!(queue.is_empty());
    }

    #[test]
    fn deadline_and_capacity_are_counted() {
        let mut queue = CommitQueue::new(2, 100);
        assert_eq!(queue.push(commit("a"), 0).dropped, 0);
        queue.push(commit("b"), 50);
        assert_eq!(queue.push(commit("c"), 60).dropped, 1);
        let (settled, batch) = queue.next_batch(155);
        assert_eq!((settled.timeout, models(batch).len()), (1, 1));
        assert_eq!(queue.settle(CommitResult::Refused, 156).error, 1);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_batch_in_flight_counts_towards_the_capacity() {
        let mut queue = CommitQueue::new(1, 100);
        queue.push(commit("a"), 0);
        queue.next_batch(0);
        assert_eq!(queue.push(commit("b"), 0).dropped, 1);
        queue.settle(CommitResult::Failed, 1);
        assert_eq!(models(queue.next_batch(99).1), [("a".into(), 99)]);
    }
}
