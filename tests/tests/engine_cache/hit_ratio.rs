//! How much of the prompts the engines find in their caches: by prefix on the ring, and with one
//! engine after the other.

use std::fmt;

use serde_json::json;

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
/// What the filter counts: tokens that engines say they had, and those it showed as read beside them.
const CACHED: &str = "promptcache_engine_cached_input_tokens_total";
const COMPARED: &str = "promptcache_engine_compared_read_input_tokens_total";
/// What bounds the load of one engine.
const BOUND: &str = "/static_resources/clusters/0/common_lb_config/consistent_hashing_lb_config";
/// Requests under way at once, where load matters.
const AT_ONCE: usize = 16;
/// Enough for all conversations at once.
const BLOCKS_FOR_ALL: usize = 20_000;

struct Ratio {
    sums: Sums,
    cached: usize,
    /// Requests of each engine.
    shares: Vec<usize>,
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

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests, {} prompt tokens, hits {:.1} % of at most {:.1} %, reported as read {:.0} % of \
             the engines' hits, requests of each engine {:?}",
            self.sums.requests,
            self.sums.prompt,
            100.0 * self.hits(),
            100.0 * self.ideal(),
            100.0 * self.reported(),
            self.shares,
        )
    }
}

/// Runs the workload, so many conversations at once.
async fn run(fleet: &Fleet, size: Size, at_once: usize) -> Ratio {
    let mut workload = Workload::new(size);
    workload.run(fleet, at_once).await;
    let tokens = fleet.tokens();
    let ratio = Ratio {
        cached: tokens.cached,
        shares: fleet
            .engines
            .iter()
            .map(|engine| engine.served().len())
            .collect(),
        sums: workload.sums,
    };
    // The engines saw these prompts, and each once; the filter counts what they said.
    assert_eq!(tokens.prompt, ratio.sums.prompt);
    fleet
        .world
        .await_counter(CACHED, &[], tokens.cached as u64)
        .await;
    assert_eq!(
        fleet.world.stats().await.counter(CACHED, &[]),
        tokens.cached as u64
    );
    fleet.world.assert_no_vm_lost().await;
    ratio
}

async fn measure(balancing: Balancing, blocks_max: usize, concurrency: u32) -> Ratio {
    let fleet = Fleet::start(Setup {
        balancing,
        blocks_max,
        concurrency: Some(concurrency),
        ..Setup::default()
    })
    .await;
    let ratio = run(&fleet, SIZE, 1).await;
    println!("{balancing:?}, {blocks_max} blocks an engine, {concurrency} workers: {ratio}");
    let compared = fleet.world.stats().await.counter(COMPARED, &[]);
    println!(
        "compared with what engines said they had: {compared} of {} tokens",
        ratio.sums.reported
    );
    match balancing {
        // Engines that had nothing say nothing, as vLLM does: that is a 0 from the first on that
        // a worker saw.
        Balancing::RoundRobin => {
            assert!(compared <= ratio.sums.reported);
            assert!(compared >= ratio.sums.reported / 10 * 9);
        }
        // Whatever was read, its engine had.
        Balancing::Ring | Balancing::Maglev => assert_eq!(compared, ratio.sums.reported),
    }
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
    assert!(ring.shares.iter().all(|share| *share > 0));
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

/// One prefix for everybody: all of it on one engine, unless its load is bounded. What then goes to
/// others goes to the same others.
#[tokio::test]
async fn a_prefix_that_everybody_shares_can_be_spread() {
    let size = Size {
        tenants: 1,
        conversations: 32,
        turns: 4,
    };
    let mut ratios = vec![];
    for factor in [None, Some(200), Some(125)] {
        let bounded = factor.map(|factor| (BOUND, json!({"hash_balance_factor": factor})));
        let fleet = Fleet::start(Setup {
            at_once: AT_ONCE,
            members: bounded.into_iter().collect(),
            ..Setup::default()
        })
        .await;
        let ratio = run(&fleet, size, AT_ONCE).await;
        println!("hash_balance_factor {factor:?}: {ratio}");
        ratios.push(ratio);
    }
    let most = |ratio: &Ratio| *ratio.shares.iter().max().unwrap();
    let [alone, doubled, even] = &ratios[..] else {
        panic!("three were run");
    };
    assert_eq!(most(alone), alone.sums.requests);
    assert!(most(doubled) < most(alone) && most(even) < most(doubled));
    // A conversation may change its engine, the system prompt is on each.
    for spread in [doubled, even] {
        assert!(spread.hits() > 0.7 * alone.hits(), "{spread}");
    }
}
