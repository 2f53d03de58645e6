//! How long a process's threads have waited for a processor: what no promise can shorten.

use std::{collections::HashMap, fs, path::PathBuf};

/// One process's threads.
#[derive(Debug)]
pub struct Starved {
    tasks: PathBuf,
    /// What each has waited so far, in ns, by thread.
    waited_ns: HashMap<String, u64>,
}

impl Starved {
    pub fn of(pid: u32) -> Self {
        Self {
            tasks: PathBuf::from(format!("/proc/{pid}/task")),
            waited_ns: HashMap::new(),
        }
    }

    /// The most that one thread has waited since the last look, in ms. The kernel counts a wait
    /// when it is over.
    pub fn since_last_ms(&mut self) -> i64 {
        let mut most_ns = 0;
        for task in fs::read_dir(&self.tasks).into_iter().flatten().flatten() {
            let Some(waited) = waited_ns(&task.path().join("schedstat")) else {
                continue;
            };
            let thread = task.file_name().to_string_lossy().into_owned();
            if let Some(before) = self.waited_ns.insert(thread, waited) {
                most_ns = most_ns.max(waited.saturating_sub(before));
            }
        }
        i64::try_from(most_ns / 1_000_000).unwrap_or(i64::MAX)
    }
}

/// The second number of `schedstat`; see the kernel's `Documentation/scheduler/sched-stats.rst`.
fn waited_ns(schedstat: &std::path::Path) -> Option<u64> {
    let text = fs::read_to_string(schedstat).ok()?;
    text.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn one_of_many_threads_that_want_the_processor_waits() {
        let threads = 8 * std::thread::available_parallelism().unwrap().get();
        let over = AtomicBool::new(false);
        let mut starved = Starved::of(std::process::id());
        let deadline = Instant::now() + Duration::from_secs(20);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let waited = (0..).find(|_| starved.since_last_ms() > 0 || Instant::now() > deadline);
            over.store(true, Ordering::Relaxed);
            assert!(waited.is_some() && Instant::now() < deadline);
        });
    }
}
