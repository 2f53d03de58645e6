//! One suite, every store: the contract of `Store`, run against each implementation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod suite;

use std::sync::Arc;

use prompt_cache_index::config::EmbeddedConfig;
use prompt_cache_index::store::Store;
use prompt_cache_index::store::embedded::EmbeddedStore;

/// Runs the named cases of the suite, each on a fresh store from `$make`, which returns the
/// store and whatever must outlive it.
macro_rules! conformance {
    ($backend:ident, $make:expr, [$($case:ident),+ $(,)?]) => {
        mod $backend {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let (store, _alive) = $make;
                    suite::$case(Arc::clone(&store)).await;
                    store.close().await;
                }
            )+
        }
    };
}

fn embedded() -> (Arc<dyn Store>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig {
        data_dir: dir.path().to_owned(),
        cache_bytes: 8 << 20,
        refresh_flush_ms: 10,
    };
    (Arc::new(EmbeddedStore::open(&config).unwrap()), dir)
}

conformance!(
    embedded,
    super::embedded(),
    [
        scopes_share_nothing,
        an_entry_expires_at_its_millisecond,
        an_expiry_is_never_shortened,
        a_shorter_tier_never_replaces_a_live_longer_one,
        a_longer_tier_upgrades_a_live_shorter_one,
        an_expired_entry_is_replaced_whole,
        a_write_twice_is_a_write_once,
        a_batch_with_repeats_is_merged_in_order,
        concurrent_cold_writers_agree,
        a_refresh_extends_and_changes_nothing_else,
        a_refresh_of_nothing_creates_nothing,
        eighty_candidates_with_holes,
        the_largest_count_survives,
        a_sweep_removes_the_expired_and_only_those,
        a_sweep_goes_in_bounded_steps,
        a_refreshed_entry_outlives_its_first_sweep,
        a_sweep_under_load_loses_nothing,
        a_registered_scope_is_listed,
        a_purge_removes_its_scopes_and_only_those,
        the_epoch_changes_with_every_purge_and_nothing_else,
        a_scan_yields_every_entry,
        a_model_of_the_rules_agrees,
    ]
);
