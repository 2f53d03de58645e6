//! Ports that a server can leave and take again.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Below the range that the kernel gives out by itself, so that a port is still free when its
/// server comes back.
const FIRST: u32 = 15_000;
const COUNT: u32 = 17_000;

/// A loopback port that nobody listens on. Two callers may get the same one, so a server that
/// finds it taken must be started on another.
pub fn free() -> u16 {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos());
    let start = nanos ^ std::process::id().wrapping_mul(7919);
    for _ in 0..COUNT {
        let step = CALLS.fetch_add(1, Ordering::Relaxed).wrapping_mul(101);
        let port = FIRST + start.wrapping_add(step) % COUNT;
        let port = u16::try_from(port).unwrap_or(u16::MAX);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}
