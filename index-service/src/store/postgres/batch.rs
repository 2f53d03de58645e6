//! Batches as columns, sorted by key, each key once per statement.

use std::collections::BTreeMap;

use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::LiveEntry;

use super::operations::bigint;
use crate::store::tier::tier_code;
use crate::store::{Refresh, SCOPE_BYTES, Write, is_live, merge};

type Key = ([u8; SCOPE_BYTES], PrefixHash);

/// Writes of different keys, as the columns of one statement.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub scopes: Vec<Vec<u8>>,
    pub hashes: Vec<Vec<u8>>,
    pub tokens: Vec<i64>,
    pub tiers: Vec<i16>,
    pub expires_at_ms: Vec<i64>,
}

/// The rounds of a batch: almost always one.
///
/// A statement may touch a row once, so writes of one key are merged here first. That is the same
/// as merging them into the stored entry one after the other, as long as the earlier one is live;
/// where it is not (a write that came after its expiry), the later one needs a round of its own.
pub fn rounds(writes: &[Write], now_ms: u64) -> Vec<Round> {
    let mut rounds: Vec<BTreeMap<Key, LiveEntry>> = Vec::new();
    for write in writes {
        let key = (*write.scope.as_bytes(), write.entry.hash);
        let latest = rounds
            .iter_mut()
            .filter_map(|round| round.get_mut(&key))
            .enumerate()
            .last();
        let at = match latest {
            Some((_, earlier)) if is_live(earlier, now_ms) => {
                *earlier = merge(Some(*earlier), write, now_ms);
                continue;
            }
            Some((index, _)) => index + 1,
            None => 0,
        };
        if rounds.len() == at {
            rounds.push(BTreeMap::new());
        }
        if let Some(round) = rounds.get_mut(at) {
            round.insert(key, merge(None, write, now_ms));
        }
    }
    rounds.into_iter().map(columns).collect()
}

fn columns(round: BTreeMap<Key, LiveEntry>) -> Round {
    let mut columns = Round::default();
    for ((scope, hash), entry) in round {
        columns.scopes.push(scope.to_vec());
        columns.hashes.push(hash.as_bytes().to_vec());
        columns.tokens.push(i64::from(entry.tokens));
        columns.tiers.push(i16::from(tier_code(entry.tier)));
        columns.expires_at_ms.push(bigint(entry.expires_at_ms));
    }
    columns
}

/// Refreshes, the latest of each key, as the columns of one statement.
#[derive(Debug, PartialEq, Eq)]
pub struct RefreshBatch {
    pub scopes: Vec<Vec<u8>>,
    pub hashes: Vec<Vec<u8>>,
    pub expires_at_ms: Vec<i64>,
}

impl RefreshBatch {
    pub fn new(refreshes: &[Refresh]) -> Self {
        let mut latest: BTreeMap<Key, u64> = BTreeMap::new();
        for refresh in refreshes {
            let key = (*refresh.scope.as_bytes(), refresh.hash);
            let expires_at_ms = latest.entry(key).or_default();
            *expires_at_ms = refresh.expires_at_ms.max(*expires_at_ms);
        }
        Self {
            scopes: latest.keys().map(|(scope, _)| scope.to_vec()).collect(),
            hashes: latest.keys().map(|(_, h)| h.as_bytes().to_vec()).collect(),
            expires_at_ms: latest.values().map(|at| bigint(*at)).collect(),
        }
    }
}
