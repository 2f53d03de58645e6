//! Runs counts off the async threads: a bounded number at once, a bounded number waiting, each
//! under a time limit, and large prompts in a lane of their own, where they wait for each other
//! and nobody waits for them.

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

/// A prompt from so many bytes on is a large one: about five milliseconds of work.
pub const LARGE_TEXT_BYTES: usize = 256 << 10;

/// A bounded pool for blocking work.
pub struct Pool {
    small: Lane,
    large: Lane,
    timeout: Duration,
}

/// Where prompts of one kind run and wait.
struct Lane {
    running: Arc<Semaphore>,
    /// One permit for each prompt that runs or waits.
    admitted: Arc<Semaphore>,
}

impl Lane {
    fn new(concurrency_max: usize, queue_max: usize) -> Self {
        Self {
            running: Arc::new(Semaphore::new(concurrency_max)),
            admitted: Arc::new(Semaphore::new(concurrency_max.saturating_add(queue_max))),
        }
    }
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
    /// `concurrency_max` jobs on small prompts run and `queue_max` wait, and beside them half as
    /// many (at least one) on large prompts, none longer than `timeout_ms` in all. The system
    /// shares the cores out between the lanes.
    pub fn new(concurrency_max: usize, queue_max: usize, timeout_ms: u64) -> Self {
        Self {
            small: Lane::new(concurrency_max, queue_max),
            large: Lane::new(concurrency_max.div_ceil(2), queue_max),
            timeout: Duration::from_millis(timeout_ms),
        }
    }

    /// Runs `work` on a prompt of `text_bytes` on a blocking thread. The time limit covers the
    /// wait as well.
    ///
    /// # Errors
    /// [`PoolError::Full`] at once when too many wait; [`PoolError::Count`] otherwise.
    pub async fn run<T: Send + 'static>(
        &self,
        text_bytes: usize,
        work: impl FnOnce(&Deadline) -> Result<T, CountError> + Send + 'static,
    ) -> Result<T, PoolError> {
        let lane = if text_bytes < LARGE_TEXT_BYTES {
            &self.small
        } else {
            &self.large
        };
        let admitted = Arc::clone(&lane.admitted)
            .try_acquire_owned()
            .map_err(|_| PoolError::Full)?;
        let abandoned = Arc::new(AtomicBool::new(false));
        let deadline = Deadline {
            at: Instant::now() + self.timeout,
            abandoned: abandoned.clone(),
        };
        let _abandon = AbandonOnDrop(abandoned);
        let running = Arc::clone(&lane.running);
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
    use std::sync::mpsc;

    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    /// A job that runs until the test lets it go.
    struct Held {
        go: mpsc::Sender<()>,
        job: JoinHandle<Result<u8, PoolError>>,
    }

    impl Held {
        /// Returns once the job runs.
        async fn start(pool: &Arc<Pool>, text_bytes: usize) -> Self {
            let (started, is_started) = oneshot::channel();
            let (go, gone) = mpsc::channel();
            let pool = Arc::clone(pool);
            let job = tokio::spawn(async move {
                let work = move |_: &Deadline| {
                    started.send(()).unwrap();
                    gone.recv().unwrap();
                    Ok(1)
                };
                pool.run(text_bytes, work).await
            });
            is_started.await.unwrap();
            Self { go, job }
        }

        async fn end(self) {
            self.go.send(()).unwrap();
            assert_eq!(self.job.await.unwrap(), Ok(1));
        }
    }

    #[tokio::test]
    async fn a_full_pool_refuses_and_recovers() {
        let pool = Arc::new(Pool::new(1, 0, 60_000));
        let first = Held::start(&pool, 0).await;
        assert_eq!(pool.run(0, |_| Ok(2)).await, Err(PoolError::Full));
        first.end().await;
        assert_eq!(pool.run(0, |_| Ok(3)).await, Ok(3));
    }

    #[tokio::test]
    async fn small_prompts_do_not_wait_for_large_ones() {
        let pool = Arc::new(Pool::new(1, 0, 60_000));
        let large = Held::start(&pool, LARGE_TEXT_BYTES).await;
        // The large lane is full, to run and to wait.
        let refused = pool.run(LARGE_TEXT_BYTES, |_| Ok(2)).await;
        assert_eq!(refused, Err(PoolError::Full));
        assert_eq!(pool.run(LARGE_TEXT_BYTES - 1, |_| Ok(3)).await, Ok(3));
        large.end().await;
        assert_eq!(pool.run(LARGE_TEXT_BYTES, |_| Ok(4)).await, Ok(4));
    }

    #[tokio::test]
    async fn work_learns_that_its_time_is_up() {
        let pool = Pool::new(1, 0, 20);
        let (told, is_told) = oneshot::channel();
        let outcome = pool
            .run(0, move |deadline| {
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
