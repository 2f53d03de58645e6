//! What happened, for whoever reads about a violation.

use std::collections::{BTreeMap, VecDeque};

/// Lines that a violation is shown with.
const RECENT_MAX: usize = 60;
/// Violations that are printed in full; the others are counted.
const SHOWN_MAX: usize = 5;

/// Recent events, violations, and counts of everything.
#[derive(Debug, Default)]
pub struct Journal {
    recent: VecDeque<String>,
    violations: u64,
    counts: BTreeMap<String, u64>,
    most: BTreeMap<String, u64>,
}

impl Journal {
    /// Something happened.
    pub fn note(&mut self, now_ms: i64, what: &str) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(format!("{now_ms:>8} ms  {what}"));
    }

    /// Counts something.
    pub fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    /// Keeps the largest of something.
    pub fn most(&mut self, what: &str, value: u64) {
        let known = self.most.entry(what.to_owned()).or_default();
        *known = value.max(*known);
    }

    /// A promise was broken.
    pub fn violation(&mut self, seed: u64, now_ms: i64, what: &str) {
        self.violations += 1;
        if self.violations <= SHOWN_MAX as u64 {
            let events: Vec<_> = self.recent.iter().map(String::as_str).collect();
            eprintln!(
                "VIOLATION (seed {seed}, {now_ms} ms): {what}\nbefore it:\n{}\n",
                events.join("\n")
            );
        }
    }

    pub const fn violations(&self) -> u64 {
        self.violations
    }

    /// How often something was counted.
    pub fn counted(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Everything that was counted.
    pub const fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    /// The largest of everything that is measured.
    pub const fn largest(&self) -> &BTreeMap<String, u64> {
        &self.most
    }

    /// Adds what another one counted.
    pub fn absorb(&mut self, other: &Self) {
        self.violations += other.violations;
        for (what, count) in &other.counts {
            *self.counts.entry(what.clone()).or_default() += count;
        }
        for (what, value) in &other.most {
            self.most(what, *value);
        }
    }
}
