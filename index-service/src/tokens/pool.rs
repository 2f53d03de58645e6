//! Runs counts off the async threads: a bounded number at once, a bounded number waiting, each
//! under a time limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::CountError;

/// Why the pool gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// Too many prompts are waiting already.
    Full,
    /// The work itself failed, or took too long.
    Count(CountError),
}

/// A bounded pool for blocking work.
pub struct Pool {
    running: Arc<Semaphore>,
    /// One permit for each prompt that runs or waits.
    admitted: Arc<Semaphore>,
    timeout: Duration,
}

/// Says no once the time is up or nobody waits for the result any more.
pub struct Deadline {
    at: Instant,
    abandoned: Arc<AtomicBool>,
}

impl Deadline {
    /// Whether there is a point in going on.
    pub fn go_on(&self) -> bool {
        !self.abandoned.load(Ordering::Relaxed) && Instant::now() < self.at
    }
}

/// Flags the work as abandoned when the waiting request is dropped.
struct AbandonOnDrop(Arc<AtomicBool>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Pool {
    /// `concurrency_max` jobs run, `queue_max` wait, none longer than `timeout_ms` in all.
    pub fn new(concurrency_max: usize, queue_max: usize, timeout_ms: u64) -> Self {
        Self {
            running: Arc::new(Semaphore::new(concurrency_max)),
            admitted: Arc::new(Semaphore::new(concurrency_max.saturating_add(queue_max))),
            timeout: Duration::from_millis(timeout_ms),
        }
    }

    /// Runs `work` on a blocking thread. The time limit covers the wait as well.
    ///
    /// # Errors
    /// [`PoolError::Full`] at once when too many wait; [`PoolError::Count`] otherwise.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Deadline) -> Result<T, CountError> + Send + 'static,
    ) -> Result<T, PoolError> {
        let admitted = Arc::clone(&self.admitted)
            .try_acquire_owned()
            .map_err(|_| PoolError::Full)?;
        let abandoned = Arc::new(AtomicBool::new(false));
        let deadline = Deadline {
            at: Instant::now() + self.timeout,
            abandoned: abandoned.clone(),
        };
        let _abandon = AbandonOnDrop(abandoned);
        let running = Arc::clone(&self.running);
        let job = async move {
            let running = running
                .acquire_owned()
                .await
                .map_err(|_| PoolError::Count(CountError::Failed))?;
            tokio::task::spawn_blocking(move || {
                // The permits belong to the work, not to the request that may give up on it.
                let _permits = (admitted, running);
                work(&deadline)
            })
            .await
            .map_err(|_| PoolError::Count(CountError::Failed))?
            .map_err(PoolError::Count)
        };
        tokio::time::timeout(self.timeout, job)
            .await
            .unwrap_or(Err(PoolError::Count(CountError::TooSlow)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_pool_refuses_and_recovers() {
        let pool = Arc::new(Pool::new(1, 0, 60_000));
        let (started, is_started) = tokio::sync::oneshot::channel();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move {
                pool.run(move |_| {
                    started.send(()).unwrap();
                    gone.recv().unwrap();
                    Ok(1)
                })
                .await
            }
        });
        is_started.await.unwrap();
        assert_eq!(pool.run(|_| Ok(2)).await, Err(PoolError::Full));
        go.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(1));
        assert_eq!(pool.run(|_| Ok(3)).await, Ok(3));
    }

    #[tokio::test]
    async fn work_learns_that_its_time_is_up() {
        let pool = Pool::new(1, 0, 20);
        let (told, is_told) = tokio::sync::oneshot::channel();
        let outcome = pool
            .run(move |deadline| {
                while deadline.go_on() {
                    std::thread::yield_now();
                }
                told.send(()).unwrap();
                Err::<(), _>(CountError::TooSlow)
            })
            .await;
        assert_eq!(outcome, Err(PoolError::Count(CountError::TooSlow)));
        is_told.await.unwrap();
    }
}
