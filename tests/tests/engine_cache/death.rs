//! An engine that dies and comes back: nobody notices but its cache.

use std::collections::BTreeMap;

use prompt_cache_e2e::{
    deadline::{PATIENCE, poll},
    world::{chat, long_prefix, marked},
};
use serde_json::json;

use crate::fleet::{Balancing, Fleet, HEADER, Setup, UPSTREAM};

const PREFIXES: usize = 16;
const RETRIES: &str = "envoy_cluster_upstream_rq_retry";

/// Sends each prefix once; the engine of each, by the filter's header, and their cached tokens.
async fn round(fleet: &Fleet) -> (BTreeMap<String, usize>, usize) {
    let before: Vec<usize> = fleet.engines.iter().map(|e| e.served().len()).collect();
    for n in 0..PREFIXES {
        let request = chat("a", &marked(&long_prefix(&format!("topic {n}"))));
        let response = fleet.world.client.call(&request).await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let (mut engines, mut cached) = (BTreeMap::new(), 0);
    for (n, engine) in fleet.engines.iter().enumerate() {
        for served in &engine.served()[before[n]..] {
            let prefix = served.request.headers.get(HEADER).unwrap();
            assert_eq!(engines.insert(prefix.to_owned(), n), None);
            cached += served.tokens.cached;
        }
    }
    assert_eq!(engines.len(), PREFIXES);
    (engines, cached)
}

/// The engine of each prefix once nobody asks a dead one any more.
async fn settled(fleet: &Fleet) -> BTreeMap<String, usize> {
    let settled = poll(PATIENCE, async || {
        let before = fleet.world.stats().await.counter(RETRIES, &UPSTREAM);
        let (engines, _) = round(fleet).await;
        let after = fleet.world.stats().await.counter(RETRIES, &UPSTREAM);
        (after == before).then_some(engines)
    });
    settled.await.expect("the dead engine leaves the ring")
}

/// `survivors_moved_max`: prefixes of the other engines that move all the same once the dead one is
/// out.
async fn only_a_dead_engines_prefixes_move(balancing: Balancing, survivors_moved_max: usize) {
    let blocks_max = 100_000;
    let mut fleet = Fleet::start(Setup {
        balancing,
        blocks_max,
        // Between the death and the first check that notices, retries do the work.
        members: vec![(
            "/static_resources/clusters/0/health_checks/0/interval",
            json!("2s"),
        )],
        ..Setup::default()
    })
    .await;
    let (home, _) = round(&fleet).await;
    let (again, all_cached) = round(&fleet).await;
    assert_eq!(again, home);

    let victim = home.values().copied().next().unwrap();
    let of_others = |engines: &BTreeMap<String, usize>| -> BTreeMap<String, usize> {
        let others = engines.iter().filter(|(prefix, _)| home[*prefix] != victim);
        others
            .map(|(prefix, engine)| (prefix.clone(), *engine))
            .collect()
    };
    fleet.engines[victim].kill().await;
    let (moved, cached) = round(&fleet).await;
    assert_eq!(of_others(&moved), of_others(&home));
    assert!(moved.values().all(|engine| *engine != victim));
    // Those that moved were computed once more, and only those.
    let lost = PREFIXES - of_others(&home).len();
    assert!(lost > 0 && lost < PREFIXES / 2, "{home:?}");
    let kept = all_cached * (PREFIXES - lost) / PREFIXES;
    assert!(
        cached.abs_diff(kept) < all_cached / 20,
        "{cached} of {all_cached}"
    );
    fleet.world.await_counter(RETRIES, &UPSTREAM, 1).await;

    fleet.await_healthy(3).await;
    let settled = settled(&fleet).await;
    let (again, cached) = round(&fleet).await;
    assert_eq!((&again, cached), (&settled, all_cached));
    let (settled, stayed) = (of_others(&settled), of_others(&home));
    let survivors_moved = stayed
        .iter()
        .filter(|(prefix, engine)| settled[*prefix] != **engine);
    let survivors_moved = survivors_moved.count();
    println!("{balancing:?}: {lost} prefixes lost their engine, {survivors_moved} others moved");
    assert!(survivors_moved <= survivors_moved_max);

    fleet.engines[victim].restart(blocks_max).await;
    fleet.await_healthy(4).await;
    let back = poll(PATIENCE, async || {
        let (engines, _) = round(&fleet).await;
        (engines == home).then_some(())
    });
    back.await.expect("each prefix is back at its engine");
    fleet.world.assert_no_vm_lost().await;
}

/// Envoy keeps the size of the whole ring: with one engine less, the others get more places, and
/// some prefixes of theirs move among them.
#[tokio::test]
async fn a_death_on_the_ring() {
    only_a_dead_engines_prefixes_move(Balancing::Ring, PREFIXES / 4).await;
}

#[tokio::test]
async fn a_death_with_maglev() {
    only_a_dead_engines_prefixes_move(Balancing::Maglev, 0).await;
}
