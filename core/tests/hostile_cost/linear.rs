//! Linear or not: for four times the bytes at most eight times the time, where quadratic work would
//! take sixteen. So that a busy machine does not count, neither does the time that a thread waited for
//! a processor (where the system tells it: Linux), and of several runs the shortest counts.

use std::time::{Duration, Instant};

/// Linear work takes four times as long.
const RATIO_MAX: f64 = 8.0;
/// Shorter times say nothing.
const MEASURABLE: Duration = Duration::from_micros(200);
/// Looks at a shape before it counts as slow.
const TRIES: usize = 30;

/// Panics where `work` on a shape grows faster than its size.
pub fn assert_linear(name: &str, make: &dyn Fn(usize) -> Vec<u8>, n: usize, work: &dyn Fn(&[u8])) {
    let (small, large) = (make(n), make(4 * n));
    assert!(
        large.len() > 3 * small.len() && large.len() < 5 * small.len(),
        "{name}"
    );
    let time = |body: &[u8]| {
        // What was waited between these lines is taken for work: never the reverse.
        let start = Instant::now();
        let before = waited();
        work(body);
        let waited = waited().saturating_sub(before);
        start.elapsed().saturating_sub(waited)
    };
    let (mut least_small, mut least_large) = (Duration::MAX, Duration::MAX);
    for _ in 0..TRIES {
        least_small = least_small.min(time(&small));
        least_large = least_large.min(time(&large));
        if least_large < MEASURABLE
            || least_large.as_secs_f64() < RATIO_MAX * least_small.as_secs_f64()
        {
            return;
        }
    }
    panic!(
        "{name}: {} bytes in {least_small:?}, {} in {least_large:?}",
        small.len(),
        large.len()
    );
}

/// How long this thread has waited for a processor.
fn waited() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = text.split(' ').nth(1).and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.unwrap_or_default())
}
