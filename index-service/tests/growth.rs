//! The ledger file does not grow with what has come and gone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{Fingerprint, NewEntry, Tier};
use prompt_cache_index::config::EmbeddedConfig;
use prompt_cache_index::store::embedded::EmbeddedStore;
use prompt_cache_index::store::{BATCH_ENTRIES_MAX, Scope, Store, Write};

const NOW: u64 = 1_800_000_000_000;
const LIFE_MS: u64 = 100_000;

fn open(dir: &tempfile::TempDir) -> EmbeddedStore {
    EmbeddedStore::open(&EmbeddedConfig {
        data_dir: dir.path().to_owned(),
        cache_bytes: 32 << 20,
        refresh_flush_ms: 10,
    })
    .unwrap()
}

/// `count` entries of 50 scopes that live from `now_ms` on.
async fn fill(store: &EmbeddedStore, random: &mut fastrand::Rng, count: usize, now_ms: u64) {
    let batch: Vec<Write> = (0..count)
        .map(|n| {
            let mut hash = [0; 32];
            random.fill(&mut hash);
            Write {
                scope: Scope::of(&Fingerprint::new([n as u8 % 50; 32]), "model", "version"),
                entry: NewEntry {
                    hash: PrefixHash::new(hash),
                    tokens: 5000,
                    tier: Tier::OneHour,
                },
                expires_at_ms: now_ms + LIFE_MS + n as u64,
            }
        })
        .collect();
    for batch in batch.chunks(BATCH_ENTRIES_MAX) {
        store.write(batch.to_vec(), now_ms).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweeps_make_room_that_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let mut random = fastrand::Rng::with_seed(8);
    let mut sizes = Vec::new();
    for generation in 0..10 {
        // Half of the last generation is still there when the next one comes.
        let now_ms = NOW + generation * LIFE_MS / 2;
        while store.sweep(now_ms, 2000).await.unwrap().more {}
        fill(&store, &mut random, 3000, now_ms).await;
        sizes.push(store.stats().await.unwrap().disk_bytes);
    }
    let stats = store.stats().await.unwrap();
    assert!(stats.entries <= 9000, "{}", stats.entries);
    assert_eq!(sizes[9], sizes[4], "still growing: {sizes:?}");
    store.close().await;
}
