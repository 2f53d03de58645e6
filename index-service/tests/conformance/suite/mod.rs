//! The cases. Each starts with an empty store; time is a number that the case chooses.

mod contention;
mod finds;
mod model;
mod purges;
mod refreshes;
mod sweeps;
mod writes;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{
    Breakpoint, Candidate, Fingerprint, LiveEntry, MAX_BREAKPOINTS, MAX_CANDIDATES, NewEntry, Tier,
    find_hit, look_back,
};
use prompt_cache_index::metrics::Metrics;
use prompt_cache_index::refresh::RefreshQueue;
use prompt_cache_index::store::{
    BATCH_ENTRIES_MAX, Cursor, Refresh, Scope, ScopeInfo, Store, Write,
};
use prompt_cache_index::transfer::{self, TransferError};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::json;

pub use contention::*;
pub use finds::*;
pub use model::*;
pub use purges::*;
pub use refreshes::*;
pub use sweeps::*;
pub use writes::*;

pub type AnyStore = Arc<dyn Store>;

pub const NOW: u64 = 1_800_000_000_000;
pub const M5: Tier = Tier::FiveMinutes;
pub const H1: Tier = Tier::OneHour;

pub fn scope(tenant: u8) -> Scope {
    Scope::of(&Fingerprint::new([tenant; 32]), "model", "version")
}

pub fn hash(n: u32) -> PrefixHash {
    let mut bytes = [0xab; 32];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    PrefixHash::new(bytes)
}

pub fn write(tenant: u8, n: u32, tokens: u32, tier: Tier, expires_at_ms: u64) -> Write {
    Write {
        scope: scope(tenant),
        entry: NewEntry {
            hash: hash(n),
            tokens,
            tier,
        },
        expires_at_ms,
    }
}

pub fn live(tokens: u32, tier: Tier, expires_at_ms: u64) -> Option<LiveEntry> {
    Some(LiveEntry {
        tokens,
        tier,
        expires_at_ms,
    })
}

pub async fn get(store: &AnyStore, tenant: u8, n: u32, now_ms: u64) -> Option<LiveEntry> {
    store
        .look_up(&scope(tenant), &[hash(n)], now_ms)
        .await
        .unwrap()[0]
}

pub async fn entries(store: &AnyStore) -> u64 {
    store.stats().await.unwrap().entries
}

pub fn info(tenant: u8, model: &str) -> ScopeInfo {
    ScopeInfo {
        account: Fingerprint::new([tenant; 32]),
        model: model.to_owned(),
        tokenizer_version: "version".to_owned(),
    }
}
