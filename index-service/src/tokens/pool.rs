//! Runs counts off the async threads: a bounded number at once, a bounded number waiting for a
//! bounded time, each under a time limit, and large prompts in a lane of their own, where they
//! wait for each other and nobody waits for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::CountError;

/// Why the pool gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// Too many prompts are waiting already, or for too long.
    Full,
    /// The work itself failed, or took too long.
    Count(CountError),
}

/// A prompt from so many bytes on is a large one: about five milliseconds of work.
pub const LARGE_TEXT_BYTES: usize = 256 << 10;

/// The part of the time limit that a prompt may be expected to wait. Whoever is refused at once
/// goes on uncached; whoever waits holds back the end of an answer.
const WAIT_PARTS_MAX: u32 = 4;

/// A bounded pool for blocking work.
pub struct Pool {
    small: Lane,
    large: Lane,
    timeout: Duration,
}

/// Where prompts of one kind run and wait.
struct Lane {
    concurrency_max: usize,
    admitted_max: usize,
    running: Arc<Semaphore>,
    /// One permit for each prompt that runs or waits.
    admitted: Arc<Semaphore>,
    pace: Arc<Pace>,
}

impl Lane {
    fn new(concurrency_max: usize, queue_max: usize) -> Self {
        let admitted_max = concurrency_max.saturating_add(queue_max);
        Self {
            concurrency_max,
            admitted_max,
            running: Arc::new(Semaphore::new(concurrency_max)),
            admitted: Arc::new(Semaphore::new(admitted_max)),
            pace: Arc::default(),
        }
    }

    /// Prompts that wait for their turn.
    fn waiting(&self) -> usize {
        let admitted = self.admitted_max - self.admitted.available_permits();
        let running = self.concurrency_max - self.running.available_permits();
        admitted.saturating_sub(running)
    }

    /// How long those that wait will take: what one more would wait at least.
    fn expected_wait(&self) -> Duration {
        let waiting = u64::try_from(self.waiting()).unwrap_or(u64::MAX);
        let at_once = u64::try_from(self.concurrency_max.max(1)).unwrap_or(u64::MAX);
        let one_ns = self.pace.0.load(Ordering::Relaxed);
        Duration::from_nanos(waiting.saturating_mul(one_ns) / at_once)
    }
}

/// Nanoseconds that one prompt took lately: a moving average, 0 before the first.
#[derive(Default)]
struct Pace(AtomicU64);

impl Pace {
    /// Two at once may lose one of them, which an average survives.
    fn record(&self, took: Duration) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let average_ns = match self.0.load(Ordering::Relaxed) {
            0 => took_ns,
            before => before - before / 8 + took_ns / 8,
        };
        self.0.store(average_ns.max(1), Ordering::Relaxed);
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
    /// [`PoolError::Full`] at once when too many wait, or those that do will take longer than a
    /// quarter of the time limit; [`PoolError::Count`] otherwise.
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
        if lane.expected_wait() > self.timeout / WAIT_PARTS_MAX {
            return Err(PoolError::Full);
        }
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
        let pace = Arc::clone(&lane.pace);
        let job = async move {
            let running = running
                .acquire_owned()
                .await
                .map_err(|_| PoolError::Count(CountError::Failed))?;
            tokio::task::spawn_blocking(move || {
                // The permits belong to the work, not to the request that may give up on it.
                let _permits = (admitted, running);
                let begin = Instant::now();
                let result = work(&deadline);
                pace.record(begin.elapsed());
                result
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

    /// However short the queue is in prompts: it is long when each of them takes long.
    #[tokio::test]
    async fn a_prompt_that_would_wait_too_long_is_refused_at_once() {
        const TIMEOUT_MS: u64 = 60_000;
        let pool = Arc::new(Pool::new(1, 1000, TIMEOUT_MS));
        let first = Held::start(&pool, 0).await;
        let wait = |pool: &Arc<Pool>| {
            let pool = Arc::clone(pool);
            tokio::spawn(async move { pool.run(0, |_| Ok(2)).await })
        };
        let second = wait(&pool);
        while pool.small.waiting() < 1 {
            tokio::task::yield_now().await;
        }
        let limit = Duration::from_millis(TIMEOUT_MS / 4);
        // At this pace the one that waits is within the limit, and just beyond it.
        pool.small.pace.record(limit);
        assert_eq!(pool.small.expected_wait(), limit);
        let third = wait(&pool);
        while pool.small.waiting() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(0, |_| Ok(4)).await, Err(PoolError::Full));
        // The other lane has a pace of its own.
        assert_eq!(pool.run(LARGE_TEXT_BYTES, |_| Ok(5)).await, Ok(5));
        first.end().await;
        assert_eq!(second.await.unwrap(), Ok(2));
        assert_eq!(third.await.unwrap(), Ok(2));
        // Nobody waits: whatever the pace was, the next one finds out.
        assert_eq!(pool.run(0, |_| Ok(6)).await, Ok(6));
    }

    #[test]
    fn the_pace_follows() {
        let pace = Pace::default();
        let ns = |pace: &Pace| pace.0.load(Ordering::Relaxed);
        pace.record(Duration::from_nanos(800));
        assert_eq!(ns(&pace), 800);
        pace.record(Duration::from_nanos(1600));
        assert_eq!(ns(&pace), 900);
        for _ in 0..100 {
            pace.record(Duration::from_micros(8));
        }
        assert!((7_900..=8_000).contains(&ns(&pace)), "{}", ns(&pace));
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
