//! One suite, every store: the contract of `Store`, run against each implementation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod suite;

use std::path::Path;
use std::sync::Arc;

use prompt_cache_index::boot;
use prompt_cache_index::config::{Config, EmbeddedConfig};
use prompt_cache_index::store::Store;
use prompt_cache_index::store::embedded::EmbeddedStore;
use prompt_cache_test_servers::fresh_name;

/// Runs the named cases of the suite, with an attribute, each on a fresh store from `$make`, which returns the
/// store and whatever must outlive it.
macro_rules! conformance {
    ($attribute:tt $backend:ident, $make:expr, [$($case:ident),+ $(,)?]) => {
        mod $backend {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #$attribute
                async fn $case() {
                    let (store, _alive) = $make;
                    suite::$case(Arc::clone(&store)).await;
                    store.close().await;
                }
            )+
        }
    };
}

/// What holds for every store.
macro_rules! conformance_of_all {
    ($attribute:tt $backend:ident, $make:expr, [$($more:ident),* $(,)?]) => {
        conformance!(
            $attribute $backend,
            $make,
            [
                scopes_share_nothing,
                an_entry_expires_at_its_millisecond,
                an_expiry_is_never_shortened,
                a_shorter_tier_never_replaces_a_live_longer_one,
                a_longer_tier_upgrades_a_live_shorter_one,
                an_expired_entry_is_replaced_whole,
                a_write_twice_is_a_write_once,
                a_batch_with_repeats_is_merged_in_order,
                a_batch_of_writes_that_came_too_late_is_merged_in_order,
                the_largest_batch_is_written_and_refreshed,
                crossing_batches_finish_and_agree,
                concurrent_cold_writers_agree,
                a_refresh_extends_and_changes_nothing_else,
                a_refresh_of_nothing_creates_nothing,
                eighty_candidates_with_holes,
                the_largest_count_survives,
                counts_beyond_u32_are_refused,
                refreshes_are_debounced,
                a_registered_scope_is_listed,
                a_purge_removes_its_scopes_and_only_those,
                the_epoch_changes_with_every_purge_and_nothing_else,
                a_scan_yields_every_entry,
                a_find_answers_all_that_the_hit_needs,
                a_model_of_the_rules_agrees,
                $($more,)*
            ]
        );
    };
}

/// A store that removes what has expired only when it is swept: all of the above and this.
macro_rules! conformance_with_sweeps {
    ($attribute:tt $backend:ident, $make:expr) => {
        conformance_of_all!(
            $attribute $backend,
            $make,
            [
                a_sweep_removes_the_expired_and_only_those,
                a_sweep_goes_in_bounded_steps,
                a_refreshed_entry_outlives_its_first_sweep,
                a_sweep_under_load_loses_nothing,
                hashes_that_differ_late_are_told_apart,
            ]
        );
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

/// The configured store, on a server that `./just test-stores` has started.
fn configured(store: &str) -> (Arc<dyn Store>, ()) {
    let text = format!("models: [{{model: m, encoding: o200k_base}}]\nstore: {store}");
    let config = Config::parse(&text, Path::new("test.yaml")).unwrap();
    (boot::open_store(&config.store).unwrap(), ())
}

fn postgres() -> (Arc<dyn Store>, ()) {
    let schema = fresh_name();
    configured(&format!(
        "{{postgres: {{url_env: TEST_POSTGRES_URL, schema: {schema}, connections_max: 8, \
         operation_timeout_ms: 30000, acquire_timeout_ms: 30000, connect_timeout_ms: 30000}}}}"
    ))
}

fn redis(servers: &str) -> (Arc<dyn Store>, ()) {
    let prefix = fresh_name();
    configured(&format!(
        "{{redis: {{{servers}, key_prefix: {prefix}, operation_timeout_ms: 30000, \
         connect_timeout_ms: 30000}}}}"
    ))
}

conformance_with_sweeps!([cfg(test)] embedded, super::embedded());
conformance_with_sweeps!(
    [ignore = "needs a PostgreSQL server: ./just test-stores"]
    postgres,
    super::postgres()
);
conformance_of_all!(
    [ignore = "needs a Redis server: ./just test-stores"]
    redis,
    super::redis("url_env: TEST_REDIS_URL"),
    []
);
conformance_of_all!(
    [ignore = "needs a Redis Cluster: ./just test-stores"]
    redis_cluster,
    super::redis("url_env: TEST_REDIS_CLUSTER_URLS, cluster: true"),
    []
);
