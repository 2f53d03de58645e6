//! Keeps the models' tokenizers up to date: hub downloads that failed, files that changed.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::{ModelLoadOutcome, Tally};
use crate::state::Service;

/// Looks every `poll_ms`, forever. Loading runs off the async threads.
pub async fn run(service: Arc<Service>, poll_ms: u64) {
    loop {
        let looking = tokio::task::spawn_blocking({
            let service = Arc::clone(&service);
            move || service.models.refresh()
        });
        if let Ok(refreshed) = looking.await {
            let loads = &service.metrics.model_loads;
            loads.count_by(ModelLoadOutcome::Loaded, refreshed.loaded);
            loads.count_by(ModelLoadOutcome::Failed, refreshed.failed);
        }
        tokio::time::sleep(Duration::from_millis(poll_ms)).await;
    }
}
