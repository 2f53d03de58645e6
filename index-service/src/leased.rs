//! Reads that an edge answered from its leases: they extend lives, and count, as classified reads
//! do.

use prompt_cache_core::ledger::Split;
use prompt_cache_core::wire::LeasedRead;

use crate::classify::record;
use crate::metrics::{RefreshOutcome, Tally};
use crate::refresh::refresh_of;
use crate::state::Service;
use crate::store::{Refresh, Scope, StoreError};

/// What `reads` that arrive at `now_ms` ask of the store, and how many of them are dropped because
/// model, version or principal are not served. They count from the moment of the read, so that
/// delivering one twice is the same as once.
///
/// # Errors
/// When the store does not answer.
pub async fn refreshes(
    service: &Service,
    reads: &[LeasedRead],
    now_ms: u64,
) -> Result<(Vec<Refresh>, u64), StoreError> {
    let mut refreshes = Vec::new();
    let mut dropped = 0;
    for read in reads {
        let Some(scope) = scope_of(service, read) else {
            dropped += 1;
            continue;
        };
        let read_ms = now_ms.saturating_sub(read.age_ms);
        let live = service.store.look_up(&scope, &read.hashes, read_ms).await?;
        for (hash, entry) in read.hashes.iter().zip(live) {
            let Some(entry) = entry else { continue };
            match refresh_of(scope, *hash, entry, read_ms) {
                Some(refresh) => refreshes.push(refresh),
                None => service.metrics.refreshes.count(RefreshOutcome::Skipped),
            }
        }
    }
    Ok((refreshes, dropped))
}

/// Counts the tokens of `reads` that were acknowledged.
pub fn count(service: &Service, reads: &[LeasedRead]) {
    for read in reads {
        if scope_of(service, read).is_some() {
            let split = Split {
                read: read.read_tokens,
                ..Split::default()
            };
            record(service, &read.model, &split);
        }
    }
}

fn scope_of(service: &Service, read: &LeasedRead) -> Option<Scope> {
    let model = service.models.get(&read.model)?;
    if model.policy.tokenizer_version != read.tokenizer_version {
        return None;
    }
    let account = service.principals.account_of(&read.principal)?;
    Some(Scope::of(&account, &read.model, &read.tokenizer_version))
}
