//! Envoy itself is replaced, or its module in place, under a load of marked requests and with
//! streams in their middle: no request fails, no split is wrong, no commit is lost.

use std::time::Duration;

use futures_util::future::join_all;
use prompt_cache_e2e::{
    deadline::{poll, within},
    envoy::{Envoy, Stats},
    faults::{Fault, Route},
    world::cache_of,
};
use prompt_cache_test_servers::port;

use crate::{
    balancer::Balancer,
    load::{Load, ask},
    site::{Release, Site, WORKERS, await_drained, await_idle, client, drain, end},
    streams::Streams,
};

/// What docs/operations.md says that an Envoy lives on behind its last answer, so that its commits
/// leave.
const LIVES_ON: Duration = Duration::from_secs(1);

/// How long Envoy may take to compile another module, and then to let the old one go.
const IN_PLACE: Duration = Duration::from_secs(60);

/// As a rolling upgrade of the proxies does it.
#[tokio::test]
async fn an_upgrade_replaces_envoy_without_a_loss() {
    let mut site = Site::start().await;
    let old = site.envoy("old", Release::Older).await;
    let balancer = Balancer::new(&[client(&old)]);
    let load = Load::start(&balancer);
    load.goes_on().await;
    let streams = Streams::begin(client(&old)).await;

    let new = site.envoy("new", Release::This).await;
    balancer.change(&[client(&old), client(&new)]);
    load.goes_on().await;
    drain(&old).await;
    // The balancer hears of it a moment later.
    load.goes_on().await;
    balancer.change(&[client(&new)]);
    await_drained(&old).await;
    let written = streams.finish(&mut site.llm).await;
    await_idle(&old).await;
    // Not to await anything: this pause is what is under test.
    tokio::time::sleep(LIVES_ON).await;
    end(old).await;

    load.goes_on().await;
    let tally = load.end().await;
    site.await_written(tally.created + written.count()).await;
    written.are_read(client(&new)).await;
    assert_eq!(tally.unread(client(&new)).await, Vec::<String>::new());
    assert_eq!(tally.uncached, 0);
    println!("{tally}; {} streams", written.count());
}

/// As an operator does it who has Envoy follow its configuration: the new module takes over, the
/// old one ends with its streams.
#[tokio::test]
async fn an_upgrade_of_the_module_in_place_loses_nothing() {
    let mut site = Site::start().await;
    let (envoy, mut file) = site.envoy_that_follows(Release::Older).await;
    let balancer = Balancer::new(&[client(&envoy)]);
    let load = Load::start(&balancer);
    load.goes_on().await;
    let streams = Streams::begin(client(&envoy)).await;

    file.replace(&site.listener(Release::This, &envoy)).unwrap();
    // Those of both modules, each with the main thread's.
    await_stat(&envoy, |stats| {
        stats.counter("promptcache_policy_first_loads_total", &[]) >= 2 * u64::from(WORKERS + 1)
    })
    .await;
    assert_eq!(draining(&envoy.stats().await.unwrap()), 1);
    let written = streams.finish(&mut site.llm).await;
    load.goes_on().await;
    await_stat(&envoy, |stats| draining(stats) == 0).await;

    load.goes_on().await;
    let tally = load.end().await;
    site.await_written(tally.created + written.count()).await;
    written.are_read(client(&envoy)).await;
    assert_eq!(tally.unread(client(&envoy)).await, Vec::<String>::new());
    let stats = envoy.stats().await.unwrap();
    let in_place = "envoy_listener_manager_listener_in_place_updated";
    assert_eq!(stats.counter(in_place, &[]), 1);
    assert_eq!(tally.uncached, early(&stats));
    println!("{tally}; {} streams", written.count());
}

/// As Envoy's own hot restart does it on a machine: the new process takes the socket over, and ends
/// the old one some time later.
#[tokio::test]
async fn an_upgrade_by_hot_restart_loses_nothing() {
    let mut site = Site::start().await;
    let port = port::free();
    let mut old = site.epoch(0, Release::Older, port).await;
    let load = Load::start(&Balancer::new(&[client(&old)]));
    load.goes_on().await;
    let streams = Streams::begin(client(&old)).await;

    let new = site.epoch(1, Release::This, port).await;
    assert_eq!(old.process().end(), None);
    let written = streams.finish(&mut site.llm).await;
    load.goes_on().await;
    let status = within("the old one's end", old.process().ended()).await;
    assert!(status.unwrap().success());

    load.goes_on().await;
    let tally = load.end().await;
    site.await_written(tally.created + written.count()).await;
    written.are_read(client(&new)).await;
    assert_eq!(tally.unread(client(&new)).await, Vec::<String>::new());
    assert_eq!(tally.uncached, early(&new.stats().await.unwrap()));
    println!("{tally}; {} streams", written.count());
}

/// New VMs ask for the policy first: requests that came before its answer, which pass uncached.
fn early(stats: &Stats) -> u64 {
    stats.counter("promptcache_bypass_total", &[("reason", "no_policy")])
}

fn draining(stats: &Stats) -> u64 {
    stats.counter("envoy_listener_manager_total_filter_chains_draining", &[])
}

async fn await_stat(envoy: &Envoy, is_so: impl Fn(&Stats) -> bool) {
    let stats = poll(IN_PLACE, async || {
        let stats = envoy.stats().await?;
        is_so(&stats).then_some(())
    });
    if stats.await.is_none() {
        panic!("{}", envoy.stats().await.unwrap().lines("").join("\n"));
    }
}

/// Envoys in a row, each asked to end right behind its last answer.
const ENVOYS: usize = 3;
/// Answers of each, at once.
const ANSWERS: usize = 16;

/// How many of the prefixes that each Envoy has shown as written are read by the next, where the
/// service meets its commits with `fault`.
async fn told(fault: Fault) -> [usize; ENVOYS] {
    let site = Site::start().await;
    let mut told = [0; ENVOYS];
    for (round, told) in told.iter_mut().enumerate() {
        let writer = site.envoy(&format!("writer {round}"), Release::Older).await;
        let before = site.written().await;
        site.faults.set(Route::Commit, fault.clone());
        assert_eq!(shown(&writer, round).await, [0; ANSWERS]);
        end(writer).await;
        site.faults.set(Route::Commit, Fault::None);

        let reader = site.envoy(&format!("reader {round}"), Release::This).await;
        let arrived = site.written().await - before;
        let reads = shown(&reader, round).await;
        *told = reads.iter().filter(|tokens| **tokens > 0).count();
        assert_eq!(*told as u64, arrived);
        // The reader has written what it did not read.
        site.await_written(before + ANSWERS as u64).await;
    }
    told
}

/// What each of these answers shows as read, all asked for at once; the others show a creation.
async fn shown(envoy: &Envoy, round: usize) -> Vec<u64> {
    let answers = (0..ANSWERS).map(async |answer| {
        let topic = format!("matter {round}.{answer}");
        let cached = cache_of(
            &ask(client(envoy), "tenant", &topic, answer % 2 == 1)
                .await
                .usage(),
        );
        assert_eq!(cached.read == 0, cached.five_minutes > 1024, "{cached:?}");
        cached.read
    });
    join_all(answers).await
}

/// What is lost is what was not told, and it costs the next one a creation.
#[tokio::test]
async fn what_envoy_has_not_told_yet_ends_with_it() {
    let told = told(Fault::None).await;
    println!("of {ANSWERS} commits arrived: {told:?}");
}

/// While the service takes no commits, all of them end with Envoy.
#[tokio::test]
async fn commits_that_the_service_does_not_take_end_with_envoy() {
    let away = Fault::Answer(503, vec![]);
    assert_eq!(told(away).await, [0; ENVOYS]);
}
