//! Waiting, always with a deadline.

use std::{fmt::Display, future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// How long a test waits for something that should happen at once. Generous, for slow machines:
/// only a failing test ever waits this long.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two looks at something that can only be polled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The result of `future`; panics when it takes longer than [`PATIENCE`].
pub async fn within<T>(what: impl Display, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing within {} s", PATIENCE.as_secs()),
    }
}

/// Asks `probe` until it has an answer; `None` when `limit` passes without one.
pub async fn poll<T>(limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        // A probe that hangs must not outlast the limit either.
        let left = end.saturating_duration_since(Instant::now());
        if let Ok(Some(value)) = timeout(left, probe()).await {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        sleep(POLL_INTERVAL).await;
    }
}
