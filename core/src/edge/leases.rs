//! What a worker may trust without asking. A live entry can only live longer, so an edge that
//! heard of it relies on it until the expiry it was told: a *lease*.
//!
//! Three things end a lease early: its expiry; another policy or epoch ([`Leases::confirm`] of
//! something new, after a purge or a change of accounts); and a service that has not confirmed
//! the policy for `trust_ms`. So what a purge removed is reported as read for at most one policy
//! refresh while the service answers, and for at most `trust_ms` when it does not.
//!
//! Only an acknowledged message makes a lease longer: a commit or a read that may be lost
//! promises nothing.
//!
//! A read that renews a life is told at once. The others are counted beside the lease, and told
//! together with the next that does, or when the first of them has waited for
//! [`UNTOLD_MS_MAX`]: so a prefix that nobody reads again is seen in the service's figures, too.
//!
//! Counts do not change either: a prefix that was below the floor once is so until the floor is
//! another one, and nothing of it can be live. That is remembered beside the leases.

use std::collections::VecDeque;

use lru::LruCache;

use super::lane::Aged;
use crate::{
    PrefixHash,
    ledger::{Fingerprint, REFRESH_GAIN_PARTS_MIN, Scope, Split, Tier, refreshed},
    wire::{Classified, ClassifyRequest, Commit, CommitAnswer, Lease, LeasedRead, ModelPolicy},
};

/// Memory of one lease with its places in the table and in the order of use, in bytes.
pub const LEASE_BYTES: usize = 128;

/// How long a read waits, in milliseconds, for one that the service has to hear of.
const UNTOLD_MS_MAX: u64 = 5_000;
/// Leases whose reads may wait so; a read beyond is told at once.
const UNTOLD_MAX: usize = 4_096;

/// A lease's key: a scope and a prefix in it.
type Key = (Scope, PrefixHash);

/// What is known of a prefix.
#[derive(Clone, Copy, Debug)]
enum Known {
    /// It is live.
    Live(Held),
    /// It has so many tokens, too few to be written, and nothing of it is live.
    Short { tokens: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Held {
    tokens: u32,
    tier: Tier,
    /// Acknowledged: until then it is live for certain.
    live_until_ms: u64,
    /// Where the reads that are on their way will take it: what the next read gains is measured
    /// from here.
    asked_until_ms: u64,
    /// When a read was last reported.
    reported_ms: u64,
    /// Tokens read of it since.
    unreported_tokens: u64,
}

/// The leases of one worker. `now_ms` is any clock that never goes back.
#[derive(Debug)]
pub struct Leases {
    entries_max: usize,
    trust_ms: u64,
    epoch: String,
    confirmed_ms: u64,
    known: LruCache<Key, Known>,
    /// The first read of each lease that has not been told since, the oldest first.
    untold: VecDeque<Aged<LeasedRead>>,
}

/// A request that was classified from leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// A pure read; nothing, where the prompt is below the floor.
    pub split: Split,
    /// What to tell the service of it at once.
    pub read: Option<LeasedRead>,
}

impl Leases {
    /// No leases yet; at most `bytes_max` of them, each trusted for as long as the policy was
    /// confirmed within `trust_ms`.
    pub fn new(bytes_max: usize, trust_ms: u64) -> Self {
        Self {
            entries_max: bytes_max / LEASE_BYTES,
            trust_ms,
            epoch: String::new(),
            confirmed_ms: 0,
            known: LruCache::unbounded(),
            untold: VecDeque::new(),
        }
    }

    /// The service answered, to a question of `asked_ms`, that its policy is still the same.
    pub const fn confirm(&mut self, asked_ms: u64) {
        self.confirmed_ms = asked_ms;
    }

    /// The service has another policy: everything heard before is void. Returns how many leases
    /// that ended.
    pub fn renew(&mut self, epoch: &str, asked_ms: u64) -> usize {
        let ended = self.known.len();
        self.known.clear();
        epoch.clone_into(&mut self.epoch);
        self.confirm(asked_ms);
        ended
    }

    /// Classifies a request whose deepest breakpoint is leased: `hashes` holds the prefix hash at
    /// each breakpoint, in their order.
    pub fn classify(
        &mut self,
        principal: &Fingerprint,
        model: &ModelPolicy,
        hashes: &[PrefixHash],
        now_ms: u64,
    ) -> Option<Leased> {
        if self.known.is_empty() || now_ms.saturating_sub(self.confirmed_ms) > self.trust_ms {
            return None;
        }
        let scope = Scope::of(principal, &model.model, &model.tokenizer_version);
        let (deepest, above) = hashes.split_last()?;
        let hit = match self.known.get_mut(&(scope, *deepest))? {
            Known::Live(hit) if now_ms < hit.live_until_ms => {
                hit.unreported_tokens = hit.unreported_tokens.saturating_add(hit.tokens.into());
                *hit
            }
            Known::Short { tokens } if *tokens < model.min_prefix_tokens => {
                return Some(Leased {
                    split: Split::default(),
                    read: None,
                });
            }
            Known::Live(_) | Known::Short { .. } => return None,
        };
        let gains = |held: &Held| refreshed(held.tier, held.asked_until_ms, now_ms).is_some();
        let first = hit.tokens > 0 && hit.unreported_tokens == u64::from(hit.tokens);
        let mut due = gains(&hit) || (first && self.untold.len() >= UNTOLD_MAX);
        for hash in above {
            due |= match self.live(scope, *hash, now_ms) {
                Some(held) => gains(&*held),
                // Perhaps live all the same, written through another worker: reported as often
                // as the shortest tier could gain from it.
                None => {
                    let shortest = Tier::FiveMinutes;
                    let reported_until_ms = hit.reported_ms.saturating_add(shortest.duration_ms());
                    refreshed(shortest, reported_until_ms, now_ms).is_some()
                }
            };
        }
        let mut read = (due || first).then(|| LeasedRead {
            principal: *principal,
            model: model.model.clone(),
            tokenizer_version: model.tokenizer_version.clone(),
            age_ms: 0,
            hashes: hashes.to_vec(),
            read_tokens: hit.unreported_tokens,
        });
        if due {
            for hash in hashes {
                self.reported(scope, *hash, now_ms);
            }
            if let Some(Known::Live(held)) = self.known.peek_mut(&(scope, *deepest)) {
                held.unreported_tokens = 0;
            }
        } else if let Some(message) = read.take() {
            let at_ms = now_ms;
            self.untold.push_back(Aged { at_ms, message });
        }
        Some(Leased {
            split: Split {
                read: hit.tokens.into(),
                ..Split::default()
            },
            read,
        })
    }

    /// Reads of a lease that have waited for long enough, as of the first of them: ask until there
    /// is none.
    pub fn untold(&mut self, now_ms: u64) -> Option<Aged<LeasedRead>> {
        loop {
            let oldest = self.untold.front()?;
            if now_ms.saturating_sub(oldest.at_ms) < UNTOLD_MS_MAX {
                return None;
            }
            let mut aged = self.untold.pop_front()?;
            let read = &mut aged.message;
            let scope = Scope::of(&read.principal, &read.model, &read.tokenizer_version);
            let known = self.known.peek_mut(&(scope, *read.hashes.last()?));
            // Nothing to tell where another read has told it, or the lease is gone.
            if let Some(Known::Live(held)) = known
                && held.unreported_tokens > 0
            {
                read.read_tokens = std::mem::take(&mut held.unreported_tokens);
                return Some(aged);
            }
        }
    }

    /// The service answered a classification of `request` that was asked at `asked_ms`.
    pub fn classified(
        &mut self,
        request: &ClassifyRequest,
        classified: &Classified,
        asked_ms: u64,
        now_ms: u64,
    ) {
        if !self.stands(&classified.epoch) {
            return;
        }
        let version = &classified.tokenizer_version;
        let scope = Scope::of(&request.principal, &request.model, version);
        for lease in &classified.leases {
            self.grant(scope, lease, asked_ms, now_ms);
        }
        if let (Some(tokens), Some(deepest)) =
            (classified.short_of_floor, request.candidates.last())
        {
            self.remember((scope, deepest.hash), Known::Short { tokens });
        }
    }

    /// The service acknowledged commits: what they wrote lives for its tier at least.
    pub fn committed(&mut self, commits: &[Aged<Commit>], answer: &CommitAnswer, now_ms: u64) {
        // What was dropped is not said one by one.
        if answer.dropped > 0 || !self.stands(&answer.epoch) {
            return;
        }
        for Aged { at_ms, message } in commits {
            let version = &message.tokenizer_version;
            let scope = Scope::of(&message.principal, &message.model, version);
            for write in &message.writes {
                let lease = Lease {
                    hash: write.hash,
                    tokens: write.tokens,
                    tier: write.tier,
                    ttl_ms: write.tier.duration_ms(),
                };
                self.grant(scope, &lease, *at_ms, now_ms);
            }
        }
    }

    /// The service acknowledged reads. Where a lease has ended in the meantime the entry may have
    /// been swept before the read arrived: it stays ended.
    pub fn extended(&mut self, reads: &[Aged<LeasedRead>], answer: &CommitAnswer, now_ms: u64) {
        if answer.reads_dropped > 0 || !self.stands(&answer.epoch) {
            return;
        }
        for Aged { at_ms, message } in reads {
            let version = &message.tokenizer_version;
            let scope = Scope::of(&message.principal, &message.model, version);
            for hash in &message.hashes {
                if let Some(Known::Live(held)) = self.known.peek_mut(&(scope, *hash))
                    && now_ms < held.live_until_ms
                {
                    // The service skips a refresh that would gain less than this slack.
                    let window_ms = held.tier.duration_ms();
                    let until_ms = at_ms + window_ms - window_ms / REFRESH_GAIN_PARTS_MIN;
                    held.live_until_ms = until_ms.max(held.live_until_ms);
                }
            }
        }
    }

    /// Whether something that was answered in `epoch` holds in ours. A service that does not know
    /// its epoch grants nothing.
    fn stands(&self, epoch: &str) -> bool {
        !epoch.is_empty() && epoch == self.epoch
    }

    fn grant(&mut self, scope: Scope, lease: &Lease, since_ms: u64, now_ms: u64) {
        let until_ms = since_ms.saturating_add(lease.ttl_ms);
        if until_ms <= now_ms {
            return;
        }
        let mut held = Held {
            tokens: lease.tokens,
            tier: lease.tier,
            live_until_ms: until_ms,
            asked_until_ms: until_ms,
            reported_ms: since_ms,
            unreported_tokens: 0,
        };
        let key = (scope, lease.hash);
        if let Some(known) = self.live(scope, lease.hash, now_ms) {
            held.tier = held.tier.max(known.tier);
            held.live_until_ms = until_ms.max(known.live_until_ms);
            held.asked_until_ms = until_ms.max(known.asked_until_ms);
            held.reported_ms = since_ms.max(known.reported_ms);
            held.unreported_tokens = known.unreported_tokens;
        }
        self.remember(key, Known::Live(held));
    }

    fn remember(&mut self, key: Key, known: Known) {
        self.known.put(key, known);
        if self.known.len() > self.entries_max {
            self.known.pop_lru();
        }
    }

    fn live(&mut self, scope: Scope, hash: PrefixHash, now_ms: u64) -> Option<&mut Held> {
        match self.known.get_mut(&(scope, hash))? {
            Known::Live(held) if now_ms < held.live_until_ms => Some(held),
            Known::Live(_) | Known::Short { .. } => None,
        }
    }

    fn reported(&mut self, scope: Scope, hash: PrefixHash, now_ms: u64) {
        if let Some(Known::Live(held)) = self.known.peek_mut(&(scope, hash)) {
            held.reported_ms = now_ms;
            if let Some(until_ms) = refreshed(held.tier, held.asked_until_ms, now_ms) {
                held.asked_until_ms = until_ms;
            }
        }
    }
}

#[cfg(test)]
mod tests;
