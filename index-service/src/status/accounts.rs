//! Totals by account and model, of those in frequent use.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Seen, Totals};

/// Pairs of account and model that are remembered; when they are too many, the half with fewer
/// tokens is forgotten, and starts at zero when it comes back.
const TRACKED_MAX: usize = 1024;

/// Totals by account and index of the model.
#[derive(Default)]
pub(super) struct AccountTotals(HashMap<(Arc<str>, usize), Totals>);

impl AccountTotals {
    pub fn add(&mut self, account: &Arc<str>, model: usize, seen: &Seen<'_>) {
        let key = (Arc::clone(account), model);
        if self.0.len() >= TRACKED_MAX && !self.0.contains_key(&key) {
            let mut tokens: Vec<u64> = self.0.values().map(Totals::tokens).collect();
            tokens.sort_unstable();
            let median = tokens.get(tokens.len() / 2).copied().unwrap_or_default();
            self.0.retain(|_, totals| totals.tokens() > median);
        }
        self.0.entry(key).or_default().add(seen);
    }

    /// Those with the most tokens, at most `limit`, of accounts that `known` accepts.
    pub fn top(
        &self,
        limit: usize,
        known: impl Fn(&str) -> bool,
    ) -> Vec<(Arc<str>, usize, Totals)> {
        let mut all: Vec<_> = self
            .0
            .iter()
            .map(|((account, model), totals)| (Arc::clone(account), *model, *totals))
            .collect();
        all.sort_unstable_by(|a, b| {
            let tokens = b.2.tokens().cmp(&a.2.tokens());
            tokens.then_with(|| (&a.0, a.1).cmp(&(&b.0, b.1)))
        });
        all.retain(|(account, _, totals)| totals.tokens() > 0 && known(account));
        all.truncate(limit);
        all
    }
}

#[cfg(test)]
mod tests {
    use prompt_cache_core::ledger::Split;

    use super::*;

    #[test]
    fn many_accounts_take_bounded_room_and_the_large_ones_stay() {
        let mut totals = AccountTotals::default();
        let mut add = |name: &str, read: u64| {
            let split = Split {
                read,
                ..Split::default()
            };
            let seen = Seen {
                model: "m",
                account: None,
                split: &split,
                tier: None,
                requests: 1,
            };
            totals.add(&Arc::from(name), 0, &seen);
            assert!(totals.0.len() <= TRACKED_MAX);
        };
        add("large", 1_000_000);
        for n in 0..10 * TRACKED_MAX {
            add(&format!("small {n}"), 1 + n as u64 % 7);
        }
        let top = totals.top(3, |_| true);
        assert_eq!((&*top[0].0, top[0].2.read), ("large", 1_000_000));
        assert_eq!(top.len(), 3);
        assert!(totals.top(3, |name| name == "nobody").is_empty());
    }
}
