//! Reads that an edge answered from its leases: they extend lives, and count, as classified reads
//! do.

use prompt_cache_core::ledger::{LiveEntry, Split};
use prompt_cache_core::wire::LeasedRead;
use tracing::{Instrument as _, info_span};

use crate::classify::record;
use crate::metrics::{RefreshOutcome, Tally};
use crate::principals::Holder;
use crate::refresh::refresh_of;
use crate::state::Service;
use crate::status::Seen;
use crate::store::{Refresh, Scope, StoreError};

/// What looking the reads up showed.
#[derive(Default)]
pub struct Looked {
    /// What is asked of the store.
    pub refreshes: Vec<Refresh>,
    /// How many reads are dropped because model, version or principal are not served.
    pub dropped: u64,
    /// The entry that each read hit, if it is still there.
    hits: Vec<Option<LiveEntry>>,
}

/// What `reads` that arrive at `now_ms` ask of the store. They count from the moment of the read, so that
/// delivering one twice is the same as once.
///
/// # Errors
/// When the store does not answer.
pub async fn refreshes(
    service: &Service,
    reads: &[LeasedRead],
    now_ms: u64,
) -> Result<Looked, StoreError> {
    let mut looked = Looked::default();
    for read in reads {
        let Some((scope, _)) = scope_of(service, read) else {
            looked.dropped += 1;
            looked.hits.push(None);
            continue;
        };
        let read_ms = now_ms.saturating_sub(read.age_ms);
        let live = service
            .store
            .look_up(&scope, &read.hashes, read_ms)
            .instrument(info_span!("store.look_up"))
            .await?;
        // Of the live ones the hit is the deepest.
        let hit = live.iter().flatten().max_by_key(|entry| entry.tokens);
        looked.hits.push(hit.copied());
        for (hash, entry) in read.hashes.iter().zip(live) {
            let Some(entry) = entry else { continue };
            match refresh_of(scope, *hash, entry, read_ms) {
                Some(refresh) => looked.refreshes.push(refresh),
                None => service.metrics.refreshes.count(RefreshOutcome::Skipped),
            }
        }
    }
    Ok(looked)
}

/// Counts the tokens of `reads` that were acknowledged. How many requests that were follows from
/// the tokens of the hit.
pub fn count(service: &Service, reads: &[LeasedRead], looked: &Looked, now_ms: u64) {
    for (read, hit) in reads.iter().zip(&looked.hits) {
        let Some((_, holder)) = scope_of(service, read) else {
            continue;
        };
        let split = Split {
            read: read.read_tokens,
            ..Split::default()
        };
        let each = hit.map_or(0, |entry| u64::from(entry.tokens));
        let seen = Seen {
            model: &read.model,
            account: holder.account,
            split: &split,
            tier: hit.map(|entry| entry.tier),
            requests: read.read_tokens.checked_div(each).unwrap_or(1).max(1),
        };
        record(service, &seen, now_ms);
    }
}

fn scope_of(service: &Service, read: &LeasedRead) -> Option<(Scope, Holder)> {
    let model = service.models.get(&read.model)?;
    if model.policy.tokenizer_version != read.tokenizer_version {
        return None;
    }
    let holder = service.principals.holder_of(&read.principal)?;
    let scope = Scope::of(&holder.owner, &read.model, &read.tokenizer_version);
    Some((scope, holder))
}
