//! Keeps the history of the status page.

use std::sync::Arc;
use std::time::Duration;

use crate::state::Service;
use crate::status::TICK_MS;

/// Looks at the counters every [`TICK_MS`], forever.
pub async fn run(service: Arc<Service>) {
    let mut tick = tokio::time::interval(Duration::from_millis(TICK_MS));
    loop {
        tick.tick().await;
        let now_ms = service.clock.now_ms();
        service.status.look(&service.metrics, now_ms);
    }
}
