//! Entries, and stores from a line of configuration.

use std::path::Path;
use std::sync::Arc;

use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{Fingerprint, NewEntry, Tier};
use prompt_cache_index::boot;
use prompt_cache_index::config::Config;
use prompt_cache_index::store::{Refresh, Scope, Store, Write};

pub const NOW: u64 = 1_800_000_000_000;

pub fn open(store: &str) -> Arc<dyn Store> {
    let text = format!("models: [{{model: m, encoding: o200k_base}}]\nstore: {store}");
    let config = Config::parse(&text, Path::new("test.yaml")).unwrap();
    boot::open_store(&config.store).unwrap()
}

pub fn scope(tenant: u8) -> Scope {
    Scope::of(&Fingerprint::new([tenant; 32]), "model", "version")
}

pub fn hash(n: u32) -> PrefixHash {
    let mut bytes = [0xab; 32];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    PrefixHash::new(bytes)
}

pub fn write(tenant: u8, n: u32, life_ms: u64) -> Write {
    Write {
        scope: scope(tenant),
        entry: NewEntry {
            hash: hash(n),
            tokens: n + 1,
            tier: Tier::FiveMinutes,
        },
        expires_at_ms: NOW + life_ms,
    }
}

pub fn refresh(tenant: u8, n: u32, life_ms: u64) -> Refresh {
    Refresh {
        scope: scope(tenant),
        hash: hash(n),
        expires_at_ms: NOW + life_ms,
    }
}

/// The stored count of entry `n`, if it is live.
pub async fn tokens(store: &Arc<dyn Store>, tenant: u8, n: u32) -> Option<u32> {
    let found = store
        .look_up(&scope(tenant), &[hash(n)], NOW)
        .await
        .unwrap();
    found[0].map(|entry| entry.tokens)
}
