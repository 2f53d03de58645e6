//! One kind of message on its way to the service: bounded, aged, delivered in batches that come
//! back when they fail.

use std::collections::VecDeque;

/// A message and when it was queued.
#[derive(Clone, Debug)]
pub struct Aged<T> {
    /// On the caller's clock, in milliseconds.
    pub at_ms: u64,
    /// The message.
    pub message: T,
}

/// A bounded queue with a batch in flight.
#[derive(Debug)]
pub struct Lane<T> {
    entries_max: usize,
    waiting: VecDeque<Aged<T>>,
    in_flight: Vec<Aged<T>>,
}

impl<T> Lane<T> {
    /// An empty lane of at most `entries_max` messages, those in flight included.
    pub const fn new(entries_max: usize) -> Self {
        Self {
            entries_max,
            waiting: VecDeque::new(),
            in_flight: Vec::new(),
        }
    }

    /// Adds a message; a full lane drops its oldest, or the new one if all others are in flight.
    /// Returns how many were dropped.
    pub fn push(&mut self, message: T, at_ms: u64) -> u64 {
        let mut dropped = 0;
        while self.waiting.len() + self.in_flight.len() >= self.entries_max {
            dropped += 1;
            if self.waiting.pop_front().is_none() {
                return dropped;
            }
        }
        self.waiting.push_back(Aged { at_ms, message });
        dropped
    }

    /// Removes what has waited for more than `deadline_ms` and returns how many that were.
    pub fn expire(&mut self, now_ms: u64, deadline_ms: u64) -> u64 {
        let mut expired = 0;
        while self
            .waiting
            .front()
            .is_some_and(|aged| now_ms.saturating_sub(aged.at_ms) > deadline_ms)
        {
            self.waiting.pop_front();
            expired += 1;
        }
        expired
    }

    /// Puts up to `count` messages in flight and shows them with their age in milliseconds.
    pub fn depart(&mut self, count: usize, now_ms: u64) -> impl Iterator<Item = (u64, &T)> {
        let count = self.waiting.len().min(count);
        self.in_flight = self.waiting.drain(..count).collect();
        self.in_flight
            .iter()
            .map(move |aged| (now_ms.saturating_sub(aged.at_ms), &aged.message))
    }

    /// The batch in flight has come to its end.
    pub fn arrived(&mut self) -> Vec<Aged<T>> {
        std::mem::take(&mut self.in_flight)
    }

    /// The batch in flight failed: it goes back to the head of the queue.
    pub fn returned(&mut self) {
        for aged in std::mem::take(&mut self.in_flight).into_iter().rev() {
            self.waiting.push_front(aged);
        }
    }

    /// Whether anything waits.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn departing(lane: &mut Lane<char>, count: usize, now_ms: u64) -> Vec<(u64, char)> {
        lane.depart(count, now_ms)
            .map(|(age, c)| (age, *c))
            .collect()
    }

    #[test]
    fn a_failed_batch_comes_back_in_order() {
        let mut lane = Lane::new(10);
        for (i, c) in "abc".chars().enumerate() {
            assert_eq!(lane.push(c, i as u64), 0);
        }
        assert_eq!(departing(&mut lane, 2, 10), [(10, 'a'), (9, 'b')]);
        lane.push('d', 11);
        lane.returned();
        assert_eq!(
            departing(&mut lane, 9, 20),
            [(20, 'a'), (19, 'b'), (18, 'c'), (9, 'd')]
        );
        assert_eq!(lane.arrived().len(), 4);
        assert!(lane.is_empty());
    }

    #[test]
    fn a_full_lane_drops_the_oldest_that_is_not_in_flight() {
        let mut lane = Lane::new(2);
        lane.push('a', 0);
        lane.push('b', 0);
        assert_eq!(lane.push('c', 0), 1);
        assert_eq!(departing(&mut lane, 1, 0), [(0, 'b')]);
        assert_eq!(lane.push('d', 0), 1, "c gives way");
        lane.returned();
        assert_eq!(departing(&mut lane, 2, 0), [(0, 'b'), (0, 'd')]);
        assert_eq!(lane.push('e', 0), 1, "all others are in flight");
        assert!(!lane.waits());
    }

    #[test]
    fn what_waits_too_long_expires() {
        let mut lane = Lane::new(9);
        lane.push('a', 0);
        lane.push('b', 50);
        assert_eq!(lane.expire(100, 100), 0);
        assert_eq!(lane.expire(101, 100), 1);
        assert!(lane.waits());
    }
}
