//! The last hour in steps of ten seconds and the last day in steps of five minutes.

use std::collections::VecDeque;

use prompt_cache_core::ledger::Tier;
use serde::Serialize;

use super::{Reason, Seen, TICK_MS};

/// Buckets of the hour.
const HOUR_BUCKETS_MAX: usize = 360;
/// Length of a bucket of the day.
const DAY_STEP_MS: u64 = 300_000;
/// Buckets of the day.
const DAY_BUCKETS_MAX: usize = 288;

#[derive(Clone, Copy, Default)]
struct Bucket {
    requests: u64,
    hits: u64,
    read: u64,
    created: [u64; 3],
    reasons: [u64; Reason::COUNT],
}

struct Ring {
    step_ms: u64,
    buckets_max: usize,
    /// Start of the newest bucket.
    newest_ms: u64,
    buckets: VecDeque<Bucket>,
}

impl Ring {
    fn new(step_ms: u64, buckets_max: usize, now_ms: u64) -> Self {
        Self {
            step_ms,
            buckets_max,
            newest_ms: now_ms - now_ms % step_ms,
            buckets: VecDeque::from([Bucket::default()]),
        }
    }

    /// The bucket of now. A clock that was set back stays in the newest one.
    fn at(&mut self, now_ms: u64) -> Option<&mut Bucket> {
        let steps = now_ms.saturating_sub(self.newest_ms) / self.step_ms;
        self.newest_ms += steps * self.step_ms;
        // After a longer pause than the ring holds, all of it is empty.
        for _ in 0..steps.min(self.buckets_max as u64) {
            if self.buckets.len() == self.buckets_max {
                self.buckets.pop_front();
            }
            self.buckets.push_back(Bucket::default());
        }
        self.buckets.back_mut()
    }

    fn series(&mut self, now_ms: u64) -> Series {
        self.at(now_ms);
        let older = (self.buckets.len() as u64).saturating_sub(1);
        let column = |of: &dyn Fn(&Bucket) -> u64| self.buckets.iter().map(of).collect();
        Series {
            step_ms: self.step_ms,
            window_ms: self.step_ms * self.buckets_max as u64,
            from_ms: self.newest_ms.saturating_sub(older * self.step_ms),
            requests: column(&|bucket| bucket.requests),
            hits: column(&|bucket| bucket.hits),
            read: column(&|bucket| bucket.read),
            created: Created {
                m5: column(&|bucket| bucket.created[0]),
                h1: column(&|bucket| bucket.created[1]),
                h24: column(&|bucket| bucket.created[2]),
            },
        }
    }

    fn counted(&self, reason: Reason) -> u64 {
        let of_each = self
            .buckets
            .iter()
            .filter_map(|bucket| bucket.reasons.get(reason as usize));
        of_each.sum()
    }
}

/// A stretch of time in equal steps, oldest first; the last step is under way.
#[derive(Debug, Serialize)]
pub struct Series {
    step_ms: u64,
    /// What the series holds at most.
    window_ms: u64,
    /// Start of the first step.
    from_ms: u64,
    requests: Vec<u64>,
    hits: Vec<u64>,
    /// Tokens, as `created`.
    read: Vec<u64>,
    created: Created,
}

#[derive(Debug, Serialize)]
struct Created {
    #[serde(rename = "5m")]
    m5: Vec<u64>,
    #[serde(rename = "1h")]
    h1: Vec<u64>,
    #[serde(rename = "24h")]
    h24: Vec<u64>,
}

/// Both stretches.
pub(super) struct History {
    hour: Ring,
    day: Ring,
}

impl History {
    pub fn new(now_ms: u64) -> Self {
        Self {
            hour: Ring::new(TICK_MS, HOUR_BUCKETS_MAX, now_ms),
            day: Ring::new(DAY_STEP_MS, DAY_BUCKETS_MAX, now_ms),
        }
    }

    pub fn add(&mut self, seen: &Seen<'_>, now_ms: u64) {
        for ring in [&mut self.hour, &mut self.day] {
            let Some(bucket) = ring.at(now_ms) else {
                continue;
            };
            bucket.requests += seen.requests;
            bucket.hits += if seen.split.read > 0 {
                seen.requests
            } else {
                0
            };
            bucket.read += seen.split.read;
            for (tier, tokens) in Tier::ALL.into_iter().zip(&mut bucket.created) {
                *tokens += seen.split.creation.get(tier);
            }
        }
    }

    pub fn note(&mut self, reason: Reason, times: u64, now_ms: u64) {
        for ring in [&mut self.hour, &mut self.day] {
            let bucket = ring.at(now_ms);
            if let Some(count) = bucket.and_then(|b| b.reasons.get_mut(reason as usize)) {
                *count += times;
            }
        }
    }

    /// The hour and the day.
    pub fn series(&mut self, now_ms: u64) -> [Series; 2] {
        [self.hour.series(now_ms), self.day.series(now_ms)]
    }

    /// How often in the last hour and in the last day.
    pub fn counted(&self, reason: Reason) -> [u64; 2] {
        [self.hour.counted(reason), self.day.counted(reason)]
    }
}

#[cfg(test)]
mod tests {
    use prompt_cache_core::ledger::Split;

    use super::*;

    #[test]
    fn a_ring_forgets_what_is_older_than_its_window_and_no_more() {
        let start = 1_800_000_000_000;
        let mut ring = Ring::new(10, 4, start + 3);
        let mut tell = |at: u64| {
            ring.at(start + at).unwrap().requests += 1;
            let series = ring.series(start + at);
            (series.from_ms - start, series.requests)
        };
        assert_eq!(tell(9), (0, vec![1]));
        assert_eq!(tell(10), (0, vec![1, 1]));
        assert_eq!(tell(39), (0, vec![1, 1, 0, 1]));
        assert_eq!(tell(40), (10, vec![1, 0, 1, 1]));
        // Set back: counted now, not then.
        assert_eq!(tell(12), (10, vec![1, 0, 1, 2]));
        assert_eq!(tell(1_000_000), (999_970, vec![0, 0, 0, 1]));
    }

    #[test]
    fn reasons_and_tokens_leave_the_hour_before_the_day() {
        let mut history = History::new(0);
        let split = Split {
            read: 7,
            ..Split::default()
        };
        let seen = Seen {
            model: "m",
            account: None,
            split: &split,
            tier: None,
            requests: 2,
        };
        history.add(&seen, 0);
        history.note(Reason::BelowFloor, 3, 0);
        assert_eq!(history.counted(Reason::BelowFloor), [3, 3]);
        let [hour, day] = history.series(2 * 3_600_000);
        assert_eq!((hour.read.len(), hour.read.iter().sum::<u64>()), (360, 0));
        assert_eq!((day.read.len(), day.read[0], day.hits[0]), (25, 7, 2));
        assert_eq!(history.counted(Reason::BelowFloor), [0, 3]);
    }
}
