//! Real store servers on free loopback ports, each in a temporary folder of its own, ended with
//! the value that stands for it; and a proxy that makes the way to one slow, deaf or broken.
//!
//! Everything here blocks, and panics with the reason when a server does not start: it is for
//! tests and measurements.

pub mod port;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest wait for a server to start, stop or join.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `look` finds something.
///
/// # Panics
/// With the last of `look`'s reasons when [`PATIENCE`] is over.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(reason) if Instant::now() > end => panic!("{what}: {reason}"),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// A name that no other test uses, for a schema or a key prefix: letters, digits and `_`.
pub fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let (process, nanos) = (std::process::id(), since.as_nanos());
    format!("t{process}_{nanos}_{count}")
}
