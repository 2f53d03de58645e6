//! What each tenant may have been told, by the rules alone: which prefixes somebody paid for, and
//! until when they may live at most. A read of what is not readable here is a violation; a read
//! that is missing is none, as anything may be lost.

use std::collections::{HashMap, VecDeque};

use crate::{
    clock::{Clocks, Offset},
    prompt::Block,
    script::Model,
};

/// How long after the end of a request its news may reach the service: the filter's
/// `commit_deadline_ms` in these runs, and a bit.
pub const DELIVERY_MS_MAX: i64 = 12_000;
/// Notes kept of one entry, for messages.
const NOTES_MAX: usize = 12;

/// How long something lives after its last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    FiveMinutes,
    OneHour,
}

impl Tier {
    pub const fn name(self) -> &'static str {
        match self {
            Self::FiveMinutes => "5m",
            Self::OneHour => "1h",
        }
    }

    pub const fn life_ms(self) -> i64 {
        match self {
            Self::FiveMinutes => 300_000,
            Self::OneHour => 3_600_000,
        }
    }
}

/// A prefix of one tenant and model: its blocks.
pub type Key = (usize, Model, Vec<Block>);

/// The latest that an entry may live.
#[derive(Debug)]
struct Life {
    /// When it is dead at the latest, on the services' clock (ours and the offset).
    dead_at_ms: i64,
    /// The same on ours, for what a filter heard of it: a filter believes an expiry that it was
    /// told until that is over on its own clock.
    told_until_ms: i64,
    /// The longest tier it may have.
    tier: Tier,
    touched_ms: i64,
    notes: VecDeque<String>,
}

/// The model of the ledger.
#[derive(Debug)]
pub struct Ledger {
    lives: HashMap<Key, Life>,
    /// Filters remember expiries.
    leases: bool,
}

impl Ledger {
    pub fn new(leases: bool) -> Self {
        Self {
            lives: HashMap::new(),
            leases,
        }
    }

    /// A request that marked `key` is about to be complete: from now on it may be readable.
    pub fn paid(&mut self, key: Key, tier: Tier, number: u64, now_ms: i64, clocks: &Clocks) {
        let Offset { high_ms, .. } = clocks.span(now_ms, now_ms);
        let dead_at_ms = now_ms + high_ms + tier.life_ms();
        let told_until_ms = now_ms + tier.life_ms();
        let alive = self.readable(&key, now_ms, now_ms, clocks);
        let life = self.lives.entry(key).or_insert(Life {
            dead_at_ms,
            told_until_ms,
            tier,
            touched_ms: now_ms,
            notes: VecDeque::new(),
        });
        life.tier = if alive { life.tier.max(tier) } else { tier };
        life.dead_at_ms = life.dead_at_ms.max(dead_at_ms);
        life.told_until_ms = life.told_until_ms.max(told_until_ms);
        life.touched_ms = now_ms;
        life.note(format!("#{number} paid for {} at {now_ms}", tier.name()));
    }

    /// A request with `key` among what it may read is in flight: a read now makes it live longer.
    pub fn used(&mut self, key: &Key, number: u64, now_ms: i64, clocks: &Clocks) {
        let Offset { low_ms, high_ms } = clocks.span(now_ms, now_ms);
        let Some(life) = self.lives.get_mut(key) else {
            return;
        };
        // What only a filter still believes in is not made longer by the service.
        if now_ms + low_ms < life.dead_at_ms {
            life.dead_at_ms = life.dead_at_ms.max(now_ms + high_ms + life.tier.life_ms());
            // An expiry that was told counts from then on our clock, however the other stood.
            let told_ms = life.dead_at_ms - (now_ms + low_ms);
            life.told_until_ms = life.told_until_ms.max(now_ms + told_ms);
            life.touched_ms = now_ms;
            life.note(format!("#{number} may read it at {now_ms}"));
        }
    }

    /// The services' clocks have just gone ahead by `ahead_ms`. What is still on its way to them
    /// counts from there.
    pub fn stepped(&mut self, now_ms: i64, ahead_ms: i64) {
        for life in self.lives.values_mut() {
            if ahead_ms > 0 && life.touched_ms + DELIVERY_MS_MAX > now_ms {
                life.dead_at_ms += ahead_ms;
                life.note(format!("clocks {ahead_ms} ms ahead at {now_ms}"));
            }
        }
    }

    /// Whether a request that was in flight from `from_ms` to `to_ms` may have read `key`.
    pub fn readable(&self, key: &Key, from_ms: i64, to_ms: i64, clocks: &Clocks) -> bool {
        let Offset { low_ms, .. } = clocks.span(from_ms, to_ms);
        self.lives.get(key).is_some_and(|life| {
            from_ms + low_ms < life.dead_at_ms || self.leases && from_ms < life.told_until_ms
        })
    }

    /// What is known of a prefix, for a message.
    pub fn history(&self, key: &Key) -> String {
        match self.lives.get(key) {
            None => "nobody ever paid for it".to_owned(),
            Some(life) => format!(
                "dead at {} ({} on our clock), {:?}",
                life.dead_at_ms, life.told_until_ms, life.notes
            ),
        }
    }

    /// Prefixes that were paid for.
    pub fn len(&self) -> usize {
        self.lives.len()
    }
}

impl Life {
    fn note(&mut self, note: String) {
        if self.notes.len() == NOTES_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: usize) -> Key {
        (tenant, Model::Alpha, vec![1, 2])
    }

    const LIFE_MS: i64 = 300_000;

    #[test]
    fn only_what_was_paid_for_by_the_same_tenant_and_model() {
        let clocks = Clocks::start();
        let mut ledger = Ledger::new(false);
        ledger.used(&key(1), 1, 10, &clocks);
        assert!(!ledger.readable(&key(1), 10, 20, &clocks));
        ledger.paid(key(1), Tier::FiveMinutes, 1, 10, &clocks);
        assert!(ledger.readable(&key(1), 10, 20, &clocks));
        assert!(!ledger.readable(&key(2), 10, 20, &clocks));
        let other = (1, Model::Beta, vec![1, 2]);
        assert!(!ledger.readable(&other, 10, 20, &clocks));
        let shorter = (1, Model::Alpha, vec![1]);
        assert!(!ledger.readable(&shorter, 10, 20, &clocks));
    }

    #[test]
    fn a_life_ends_unless_it_is_used() {
        let clocks = Clocks::start();
        let mut ledger = Ledger::new(false);
        ledger.paid(key(1), Tier::FiveMinutes, 1, 0, &clocks);
        assert!(ledger.readable(&key(1), LIFE_MS - 1, LIFE_MS, &clocks));
        assert!(!ledger.readable(&key(1), LIFE_MS, LIFE_MS, &clocks));
        ledger.used(&key(1), 2, 1_000, &clocks);
        assert!(ledger.readable(&key(1), LIFE_MS + 999, LIFE_MS + 999, &clocks));
        assert!(!ledger.readable(&key(1), LIFE_MS + 1_000, LIFE_MS + 1_000, &clocks));
        ledger.used(&key(1), 3, LIFE_MS + 1_000, &clocks);
        assert!(!ledger.readable(&key(1), LIFE_MS + 1_000, LIFE_MS + 1_000, &clocks));
    }

    #[test]
    fn a_clock_that_jumps_ends_lives_and_leases_outlast_it() {
        let ahead = LIFE_MS + 10_000;
        for leases in [false, true] {
            let mut clocks = Clocks::start();
            let mut ledger = Ledger::new(leases);
            ledger.paid(key(1), Tier::FiveMinutes, 1, 0, &clocks);
            let at_ms = DELIVERY_MS_MAX + 1;
            clocks.step(
                at_ms,
                Offset {
                    low_ms: ahead,
                    high_ms: ahead,
                },
            );
            ledger.stepped(at_ms, ahead);
            assert_eq!(ledger.readable(&key(1), at_ms, at_ms + 5, &clocks), leases);
            // What was in flight at the jump may have been asked before it.
            assert!(ledger.readable(&key(1), at_ms - 1, at_ms + 5, &clocks));
        }
    }

    #[test]
    fn what_was_on_its_way_at_a_jump_counts_from_after_it() {
        let mut clocks = Clocks::start();
        let mut ledger = Ledger::new(false);
        ledger.paid(key(1), Tier::FiveMinutes, 1, 0, &clocks);
        let ahead = 10 * LIFE_MS;
        clocks.step(
            1_000,
            Offset {
                low_ms: ahead,
                high_ms: ahead,
            },
        );
        ledger.stepped(1_000, ahead);
        assert!(ledger.readable(&key(1), 2_000, 2_000, &clocks));
    }
}
