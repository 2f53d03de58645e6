//! How much of the prompts the engines find in their caches: by prefix on the ring, and with one
//! engine after the other.

use crate::{
    fleet::{Balancing, Fleet, Setup},
    workload::{Size, Sums, Workload},
};

const SIZE: Size = Size {
    tenants: 24,
    conversations: 2,
    turns: 5,
};
/// Blocks of one engine: more than its share of all conversations (a quarter, and what the ring's
/// unevenness adds), less than all of them.
const BLOCKS: usize = 2_600;
/// Enough for all conversations at once.
const BLOCKS_FOR_ALL: usize = 20_000;

struct Ratio {
    sums: Sums,
    cached: usize,
    /// Requests of the engine that had most and of the one that had fewest.
    most_and_fewest: (usize, usize),
}

impl Ratio {
    fn hits(&self) -> f64 {
        of(self.cached, self.sums.prompt)
    }

    fn ideal(&self) -> f64 {
        of(self.sums.ideal, self.sums.prompt)
    }

    /// What clients were shown as read, of what the engines had.
    fn reported(&self) -> f64 {
        of(usize::try_from(self.sums.reported).unwrap(), self.cached)
    }
}

#[allow(clippy::cast_precision_loss)] // A few million tokens.
fn of(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

async fn measure(balancing: Balancing, blocks_max: usize, concurrency: u32) -> Ratio {
    let fleet = Fleet::start(Setup {
        balancing,
        blocks_max,
        concurrency: Some(concurrency),
        ..Setup::default()
    })
    .await;
    let mut workload = Workload::new(SIZE);
    workload.run(&fleet).await;
    let tokens = fleet.tokens();
    let shares = fleet.engines.iter().map(|engine| engine.served().len());
    let ratio = Ratio {
        cached: tokens.cached,
        most_and_fewest: (shares.clone().max().unwrap(), shares.min().unwrap()),
        sums: workload.sums,
    };
    // The engines saw these prompts, and each once.
    assert_eq!(tokens.prompt, ratio.sums.prompt);
    fleet.world.assert_no_vm_lost().await;
    println!(
        "{balancing:?}, {blocks_max} blocks an engine, {concurrency} workers: {} requests, {} prompt tokens, \
         hits {:.1} % of at most {:.1} %, reported as read {:.0} % of the engines' hits, requests an engine {}..{}",
        ratio.sums.requests,
        ratio.sums.prompt,
        100.0 * ratio.hits(),
        100.0 * ratio.ideal(),
        100.0 * ratio.reported(),
        ratio.most_and_fewest.1,
        ratio.most_and_fewest.0,
    );
    ratio
}

async fn the_ring_keeps_prefixes_together(concurrency: u32) {
    let ring = measure(Balancing::Ring, BLOCKS, concurrency).await;
    let robin = measure(Balancing::RoundRobin, BLOCKS, concurrency).await;
    // The same prompts: all that differs is who got them.
    assert_eq!(ring.sums.prompt, robin.sums.prompt);
    // Each engine has room for its conversations, so that nothing is lost to the ring.
    assert!(ring.hits() > 0.98 * ring.ideal(), "{}", ring.hits());
    assert!(ring.hits() > 1.5 * robin.hits(), "{}", robin.hits());
    // What is billed as read was read, to the answers that engines keep and the ledger does not.
    assert!(
        (0.85..1.0).contains(&ring.reported()),
        "{}",
        ring.reported()
    );
    assert!(robin.reported() > 1.5, "{}", robin.reported());
    assert!(ring.most_and_fewest.1 > 0);
}

#[tokio::test]
async fn the_ring_keeps_prefixes_together_with_one_worker() {
    the_ring_keeps_prefixes_together(1).await;
}

#[tokio::test]
async fn the_ring_keeps_prefixes_together_with_two_workers() {
    the_ring_keeps_prefixes_together(2).await;
}

/// More memory does not replace the ring: each engine then computes what the others have.
#[tokio::test]
async fn memory_for_everything_on_every_engine_is_still_worse() {
    let robin = measure(Balancing::RoundRobin, BLOCKS_FOR_ALL, 1).await;
    assert!(robin.hits() < 0.9 * robin.ideal(), "{}", robin.hits());
}
