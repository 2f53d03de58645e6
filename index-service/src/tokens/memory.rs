//! Remembers counts of prefixes that the ledger does not know yet, so that a prefix is tokenized
//! once in its life.
//!
//! Requests for the same new prefix that come together wait for one of them to count it; one that
//! comes later, while the first is still being answered and nothing is committed, finds the
//! count here. A request that goes away while others wait for its count hands the work to one of
//! them. Holds hashes and numbers, no text.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use moka::policy::EvictionPolicy;
use prompt_cache_core::PrefixHash;

use super::Counted;
use prompt_cache_core::ledger::Scope;

/// Prefixes remembered: about 20 MB.
const PREFIXES_MAX: u64 = 100_000;
/// Longer than the longest generation; then the ledger knows the prefix or nobody wants it.
const REMEMBERED: Duration = Duration::from_secs(600);

/// A prefix that has to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its last block.
    pub block: u32,
    /// Its hash.
    pub hash: PrefixHash,
}

/// Counts by scope and prefix.
pub struct Memory {
    tokens: Cache<(Scope, PrefixHash), u64>,
}

impl Memory {
    /// Remembers nothing yet.
    pub fn new() -> Self {
        Self::of(PREFIXES_MAX)
    }

    /// With room for so many prefixes. A full one forgets what nobody has asked for longest: the
    /// policy that moka has by default turns the newest away instead, until it is asked for more
    /// often than the oldest, and a new prefix is asked for once.
    fn of(prefixes_max: u64) -> Self {
        Self {
            tokens: Cache::builder()
                .max_capacity(prefixes_max)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(REMEMBERED)
                .build(),
        }
    }

    /// Cumulative tokens at each of `wanted` (ascending by block, all after `from`), calling
    /// `count` for what neither the memory nor another request under way knows: with the prefix to
    /// go on from and the boundaries that are left, of which it counts all.
    ///
    /// # Errors
    /// What `count` failed with, here or in the request that others waited for.
    pub async fn counts<E, F>(
        &self,
        scope: Scope,
        mut from: Option<Counted>,
        wanted: &[Wanted],
        count: impl Fn(Option<Counted>, Vec<u32>) -> F,
    ) -> Result<Vec<u64>, Arc<E>>
    where
        E: Send + Sync + 'static,
        F: Future<Output = Result<Vec<u64>, E>>,
    {
        let mut counts: Vec<u64> = Vec::with_capacity(wanted.len());
        for (i, next) in wanted.iter().enumerate() {
            let rest = wanted.get(i..).unwrap_or_default();
            let known = self.tokens.try_get_with((scope, next.hash), async {
                let blocks = rest.iter().map(|wanted| wanted.block).collect();
                let counted = count(from, blocks).await?;
                for (wanted, tokens) in rest.iter().zip(&counted).skip(1) {
                    self.tokens.insert((scope, wanted.hash), *tokens).await;
                }
                Ok(counted.first().copied().unwrap_or_default())
            });
            // Counts of two requests can meet here: a deeper prefix never holds less.
            let least = counts.last().copied().or(from.map(|from| from.tokens));
            let tokens = known.await?.max(least.unwrap_or_default());
            counts.push(tokens);
            from = Some(Counted {
                block: next.block,
                tokens,
            });
        }
        Ok(counts)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use prompt_cache_core::ledger::Fingerprint;
    use tokio::sync::Notify;

    use super::*;

    fn scope(tenant: u8) -> Scope {
        Scope::of(&Fingerprint::new([tenant; 32]), "m", "v")
    }

    fn wanted(blocks: &[u8]) -> Vec<Wanted> {
        let wanted = |block: &u8| Wanted {
            block: u32::from(*block),
            hash: PrefixHash::new([*block; 32]),
        };
        blocks.iter().map(wanted).collect()
    }

    /// A tokenizer by whose count a block holds ten tokens, and which waits for the test.
    #[derive(Default)]
    struct Slow {
        passes: AtomicUsize,
        go: Notify,
    }

    impl Slow {
        async fn count(&self, from: Option<Counted>, blocks: Vec<u32>) -> Result<Vec<u64>, ()> {
            self.passes.fetch_add(1, Ordering::SeqCst);
            self.go.notified().await;
            let base = from.map_or(0, |from| from.tokens);
            let first = from.map_or(0, |from| from.block + 1);
            let tokens = |block: u32| base + u64::from(block + 1 - first) * 10;
            Ok(blocks.into_iter().map(tokens).collect())
        }

        fn passes(&self) -> usize {
            self.passes.load(Ordering::SeqCst)
        }
    }

    struct Bench {
        memory: Arc<Memory>,
        slow: Arc<Slow>,
        asked: Arc<AtomicUsize>,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                memory: Arc::new(Memory::new()),
                slow: Arc::default(),
                asked: Arc::default(),
            }
        }

        /// A request that has begun to wait when this returns.
        async fn ask(&self, tenant: u8, blocks: &[u8]) -> tokio::task::JoinHandle<Vec<u64>> {
            let (memory, slow) = (Arc::clone(&self.memory), Arc::clone(&self.slow));
            let asked = Arc::clone(&self.asked);
            let before = asked.load(Ordering::SeqCst);
            let wanted = wanted(blocks);
            let job = tokio::spawn({
                let asked = Arc::clone(&asked);
                async move {
                    asked.fetch_add(1, Ordering::SeqCst);
                    let count = |from, blocks| slow.count(from, blocks);
                    memory
                        .counts(scope(tenant), None, &wanted, count)
                        .await
                        .unwrap()
                }
            });
            while asked.load(Ordering::SeqCst) == before {
                tokio::task::yield_now().await;
            }
            job
        }
    }

    #[tokio::test]
    async fn requests_for_the_same_new_prefix_count_it_once() {
        let bench = Bench::new();
        let mut jobs = Vec::new();
        for _ in 0..20 {
            jobs.push(bench.ask(1, &[0, 4]).await);
        }
        assert_eq!(bench.slow.passes(), 1);
        bench.slow.go.notify_one();
        for job in jobs {
            assert_eq!(job.await.unwrap(), [10, 50]);
        }
        assert_eq!(bench.slow.passes(), 1);
        let later = bench.ask(1, &[0, 4]).await;
        assert_eq!(later.await.unwrap(), [10, 50]);
        assert_eq!(bench.slow.passes(), 1);
    }

    #[tokio::test]
    async fn what_is_shared_is_counted_once_and_the_rest_goes_on_from_it() {
        let bench = Bench::new();
        let first = bench.ask(1, &[3, 5]).await;
        let second = bench.ask(1, &[3, 7]).await;
        bench.slow.go.notify_one();
        assert_eq!(first.await.unwrap(), [40, 60]);
        bench.slow.go.notify_one();
        assert_eq!(second.await.unwrap(), [40, 80]);
        assert_eq!(bench.slow.passes(), 2);
    }

    #[tokio::test]
    async fn an_abandoned_count_is_taken_over() {
        let bench = Bench::new();
        let leader = bench.ask(1, &[2]).await;
        let follower = bench.ask(1, &[2]).await;
        assert_eq!(bench.slow.passes(), 1);
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        while bench.slow.passes() == 1 {
            tokio::task::yield_now().await;
        }
        bench.slow.go.notify_one();
        assert_eq!(follower.await.unwrap(), [30]);
    }

    #[tokio::test]
    async fn nothing_is_shared_across_scopes() {
        let bench = Bench::new();
        let jobs = [bench.ask(1, &[2]).await, bench.ask(2, &[2]).await];
        assert_eq!(bench.slow.passes(), 2);
        bench.slow.go.notify_waiters();
        for job in jobs {
            assert_eq!(job.await.unwrap(), [30]);
        }
    }

    #[tokio::test]
    async fn a_full_memory_remembers_the_newest() {
        const ROOM: u64 = 1_000;
        let memory = Memory::of(ROOM);
        let counted = AtomicUsize::new(0);
        let count = |_, _| async {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok::<_, ()>(vec![7])
        };
        let ask = async |number: u64| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_be_bytes());
            let hash = PrefixHash::new(hash);
            let wanted = [Wanted { block: 0, hash }];
            let counts = memory.counts(scope(1), None, &wanted, count).await;
            assert_eq!(counts, Ok(vec![7]));
            memory.tokens.run_pending_tasks().await;
        };
        let all = 5 * ROOM;
        for number in 0..all {
            ask(number).await;
        }
        assert_eq!(memory.tokens.entry_count(), ROOM);
        let before = counted.load(Ordering::SeqCst);
        for number in all - ROOM / 2..all {
            ask(number).await;
        }
        assert_eq!(counted.load(Ordering::SeqCst), before);
    }

    #[tokio::test]
    async fn a_failure_is_not_remembered() {
        let memory = Memory::new();
        let fails = |_, _| async { Err::<Vec<u64>, _>("slow") };
        let failed = memory.counts(scope(1), None, &wanted(&[1]), fails).await;
        assert_eq!(*failed.unwrap_err(), "slow");
        let counts = |_, _| async { Ok::<_, ()>(vec![7]) };
        let counted = memory.counts(scope(1), None, &wanted(&[1]), counts).await;
        assert_eq!(counted.unwrap(), [7]);
    }
}
