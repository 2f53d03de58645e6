//! What a worker has to tell the service: earned commits, and reads answered from leases. Sent
//! together in batches, one at a time, retried with back-off until a deadline.

use super::lane::{Aged, Lane};
use crate::wire::{
    Commit, CommitBatch, LeasedRead, MAX_COMMITS_PER_BATCH, MAX_READS_PER_BATCH, WIRE_VERSION,
};

/// First pause after a failed delivery; doubles up to [`BACK_OFF_MAX_MS`].
const BACK_OFF_MIN_MS: u64 = 50;
/// Longest pause between two deliveries.
const BACK_OFF_MAX_MS: u64 = 2_000;
/// Reads that may wait; the oldest goes first. A lost one costs some of an entry's life.
const READS_WAITING_MAX: usize = 4_096;

/// How a delivery of a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
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

/// A batch that has come to its end: who waits for its messages learns of them here.
#[derive(Debug, Default)]
pub struct Arrived {
    /// How its commits ended.
    pub settled: Settled,
    /// The commits that were delivered.
    pub commits: Vec<Aged<Commit>>,
    /// The reads that were delivered.
    pub reads: Vec<Aged<LeasedRead>>,
}

/// The outbox of one worker. `now_ms` is any clock that never goes back.
#[derive(Debug)]
pub struct Outbox {
    deadline_ms: u64,
    commits: Lane<Commit>,
    reads: Lane<LeasedRead>,
    in_flight: bool,
    failures: u32,
    retry_at_ms: u64,
}

impl Outbox {
    /// An empty outbox of at most `commits_max` commits, each tried for `deadline_ms`.
    pub const fn new(commits_max: usize, deadline_ms: u64) -> Self {
        Self {
            deadline_ms,
            commits: Lane::new(commits_max),
            reads: Lane::new(READS_WAITING_MAX),
            in_flight: false,
            failures: 0,
            retry_at_ms: 0,
        }
    }

    /// Adds a commit; a full queue drops its oldest.
    pub fn commit(&mut self, commit: Commit, now_ms: u64) -> Settled {
        Settled {
            dropped: self.commits.push(commit, now_ms),
            ..Settled::default()
        }
    }

    /// Adds a read of `at_ms`.
    pub fn read(&mut self, read: LeasedRead, at_ms: u64) {
        self.reads.push(read, at_ms);
    }

    /// The next batch to deliver, if one is due and none is in flight. Commits past their
    /// deadline are counted and left out.
    pub fn next_batch(&mut self, now_ms: u64) -> (Settled, Option<CommitBatch>) {
        let mut settled = Settled::default();
        if self.in_flight {
            return (settled, None);
        }
        settled.timeout = self.commits.expire(now_ms, self.deadline_ms);
        self.reads.expire(now_ms, self.deadline_ms);
        let waits = self.commits.waits() || self.reads.waits();
        if !waits || now_ms < self.retry_at_ms {
            return (settled, None);
        }
        self.in_flight = true;
        let commits = self.commits.depart(MAX_COMMITS_PER_BATCH, now_ms);
        let commits = commits.map(|(age_ms, commit)| Commit {
            age_ms,
            ..commit.clone()
        });
        let reads = self.reads.depart(MAX_READS_PER_BATCH, now_ms);
        let reads = reads.map(|(age_ms, read)| LeasedRead {
            age_ms,
            ..read.clone()
        });
        let batch = CommitBatch {
            v: WIRE_VERSION,
            commits: commits.collect(),
            reads: reads.collect(),
        };
        (settled, Some(batch))
    }

    /// Reports the batch in flight. A failed one goes back to the head of the queue.
    pub fn settle(&mut self, delivery: Delivery, now_ms: u64) -> Arrived {
        self.in_flight = false;
        if delivery == Delivery::Failed {
            let pause_ms = BACK_OFF_MIN_MS
                .saturating_mul(1 << self.failures.min(16))
                .min(BACK_OFF_MAX_MS);
            self.failures = self.failures.saturating_add(1);
            self.retry_at_ms = now_ms.saturating_add(pause_ms);
            self.commits.returned();
            self.reads.returned();
            return Arrived::default();
        }
        let (commits, reads) = (self.commits.arrived(), self.reads.arrived());
        let count = commits.len() as u64;
        let mut settled = Settled::default();
        if delivery == Delivery::Refused {
            settled.error = count;
            return Arrived {
                settled,
                ..Arrived::default()
            };
        }
        self.failures = 0;
        self.retry_at_ms = 0;
        settled.ok = count;
        Arrived {
            settled,
            commits,
            reads,
        }
    }

    /// True when there is nothing left to deliver or to hear of.
    pub fn is_empty(&self) -> bool {
        self.commits.is_empty() && self.reads.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Fingerprint;

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

    fn read(model: &str) -> LeasedRead {
        LeasedRead {
            principal: Fingerprint::new([1; 32]),
            model: model.into(),
            tokenizer_version: "v".into(),
            age_ms: 0,
            hashes: vec![],
            read_tokens: 0,
        }
    }

    fn commits(batch: Option<CommitBatch>) -> Vec<(String, u64)> {
        let commits = batch.unwrap().commits;
        commits.into_iter().map(|c| (c.model, c.age_ms)).collect()
    }

    #[test]
    fn one_batch_at_a_time_and_a_failed_one_comes_back_in_order() {
        let mut outbox = Outbox::new(10, 1_000);
        outbox.commit(commit("a"), 0);
        outbox.commit(commit("b"), 5);
        let (_, batch) = outbox.next_batch(10);
        assert_eq!(commits(batch), [("a".into(), 10), ("b".into(), 5)]);
        outbox.commit(commit("c"), 11);
        assert_eq!(outbox.next_batch(11).1, None, "one in flight");
        let arrived = outbox.settle(Delivery::Failed, 20);
        assert_eq!(arrived.settled, Settled::default());
        let early = outbox.next_batch(20 + BACK_OFF_MIN_MS - 1).1;
        assert_eq!(early, None, "backs off");
        let (_, batch) = outbox.next_batch(20 + BACK_OFF_MIN_MS);
        let order: String = commits(batch).into_iter().map(|c| c.0).collect();
        assert_eq!(order, "abc");
        let arrived = outbox.settle(Delivery::Delivered, 80);
        assert_eq!((arrived.settled.ok, arrived.commits.len()), (3, 3));
        assert!(outbox.is_empty());
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_a_delivery_ends_them() {
        let mut outbox = Outbox::new(10, 1_000_000);
        let mut now_ms = 0;
        let mut next_pause = |outbox: &mut Outbox| {
            outbox.settle(Delivery::Failed, now_ms);
            let failed_at_ms = now_ms;
            while outbox.next_batch(now_ms).1.is_none() {
                now_ms += 1;
            }
            now_ms - failed_at_ms
        };
        outbox.commit(commit("a"), 0);
        assert!(outbox.next_batch(0).1.is_some());
        let pauses: Vec<_> = (0..8).map(|_| next_pause(&mut outbox)).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
        outbox.settle(Delivery::Delivered, now_ms);
        outbox.commit(commit("b"), now_ms);
        assert!(outbox.next_batch(now_ms).1.is_some());
    }

    #[test]
    fn it_is_empty_when_nothing_waits_and_nothing_is_on_its_way() {
        for is_read in [false, true] {
            let mut outbox = Outbox::new(10, 1_000);
            assert!(outbox.is_empty());
            if is_read {
                outbox.read(read("a"), 0);
            } else {
                outbox.commit(commit("a"), 0);
            }
            assert!(!outbox.is_empty(), "waits");
            assert!(outbox.next_batch(1).1.is_some());
            assert!(!outbox.is_empty(), "on its way");
            outbox.settle(Delivery::Delivered, 2);
            assert!(outbox.is_empty());
        }
    }

    #[test]
    fn deadline_and_capacity_are_counted() {
        let mut outbox = Outbox::new(2, 100);
        assert_eq!(outbox.commit(commit("a"), 0).dropped, 0);
        outbox.commit(commit("b"), 50);
        assert_eq!(outbox.commit(commit("c"), 60).dropped, 1);
        let (settled, batch) = outbox.next_batch(155);
        assert_eq!((settled.timeout, commits(batch).len()), (1, 1));
        let arrived = outbox.settle(Delivery::Refused, 156);
        assert_eq!((arrived.settled.error, arrived.commits.len()), (1, 0));
        assert!(outbox.is_empty());
    }

    #[test]
    fn reads_travel_with_commits_and_without() {
        let mut outbox = Outbox::new(9, 1_000);
        outbox.read(read("a"), 0);
        outbox.commit(commit("c"), 150);
        let batch = outbox.next_batch(160).1.unwrap();
        assert_eq!((batch.reads[0].age_ms, batch.commits.len()), (160, 1));
        assert_eq!(outbox.settle(Delivery::Failed, 161).reads.len(), 0);
        outbox.read(read("b"), 170);
        let batch = outbox.next_batch(161 + BACK_OFF_MIN_MS).1.unwrap();
        assert_eq!((batch.reads.len(), batch.commits.len()), (2, 1));
        assert_eq!(outbox.settle(Delivery::Delivered, 300).reads.len(), 2);
        outbox.read(read("d"), 400);
        let alone = outbox.next_batch(400).1.unwrap();
        assert_eq!((alone.reads.len(), alone.commits.len()), (1, 0));
    }
}
