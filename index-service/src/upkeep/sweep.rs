//! Removes expired entries in small steps, and keeps the gauges of the store up to date.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::metrics::{Metrics, StoreOperation, Tally};
use crate::store::Store;

/// Entries one step looks at, so that commits never wait long behind a sweep.
const STEP_ENTRIES: usize = 2000;

/// How long an expired entry stays before it is removed: longer than a refresh may wait, so that
/// an entry read in its last moment is still there when its refresh arrives.
const GRACE_MS: u64 = 15_000;

/// Sweeps every `interval_ms` until the task is aborted.
pub async fn run(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    interval_ms: u64,
) {
    let mut interval = tokio::time::interval(Duration::from_millis(interval_ms));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        sweep(&*store, &*clock, &metrics).await;
    }
}

/// One sweep: steps until nothing more is due.
async fn sweep(store: &dyn Store, clock: &dyn Clock, metrics: &Metrics) {
    loop {
        match store
            .sweep(clock.now_ms().saturating_sub(GRACE_MS), STEP_ENTRIES)
            .await
        {
            Ok(step) => {
                metrics.swept_entries.inc_by(step.removed as u64);
                if !step.more {
                    break;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "sweep failed");
                metrics.store_errors.count(StoreOperation::Sweep);
                return;
            }
        }
    }
    metrics.sweeps.inc();
    if let Ok(stats) = store.stats().await {
        metrics.entries.set(stats.entries);
        metrics.store_bytes.set(stats.disk_bytes);
        metrics.store_retries.set(stats.retries);
    }
}
