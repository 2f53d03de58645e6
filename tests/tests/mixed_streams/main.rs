//! Thousands of streams of every kind at once, clients and LLMs that leave, an index service that
//! comes and goes: every delivered byte is right, nothing hangs, no VM is lost, memory is bounded.
//!
//! `STREAMS` is how many (1,000 without it), `SEED` another run of the same kind. Everything about
//! one stream follows from the seed and its number, so that a failure names what to look at.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod judge;
mod llm;
mod script;

use std::{
    collections::HashMap,
    fmt::Write as _,
    io::ErrorKind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use prompt_cache_e2e::{
    deadline::{PATIENCE, poll},
    faults::{Fault, Gate, Route},
    upstream::Upstream,
    world::{Options, World},
};
use serde_json::json;
use tokio::time::sleep;

use judge::{Ended, judge, run, shown};
use llm::{AllSent, serve};
use script::Script;

/// Streams at the same time.
const IN_FLIGHT: usize = 64;
/// Envoy's worker threads.
const WORKERS: u32 = 2;
/// The longest that one stream may stand still: many times the classification's deadline. Not a
/// limit on all of it, which is hundreds of chunks on a machine that may be busy.
const STANDSTILL_MAX: Duration = Duration::from_secs(30);
const CLASSIFY_DEADLINE_MS: u64 = 1_000;
/// What Envoy may grow by between the first third of the streams and the last.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// Lets the index service come and go.
async fn misbehave(world: &World, seed: u64, faults: &AtomicUsize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let garbage = b"{\"status\":\"ok\",\"split\":[]}".to_vec();
    let mut gates: Vec<Gate> = vec![];
    loop {
        for route in [Route::Classify, Route::Commit, Route::Policy] {
            let gate = Gate::default();
            let fault = match random.u32(..20) {
                0 => {
                    gates.push(gate.clone());
                    Fault::Hold(gate)
                }
                1 => Fault::Answer(200, garbage.clone()),
                2 => Fault::Answer(503, vec![]),
                3 => Fault::Close,
                4 => Fault::Truncate,
                5 => Fault::Hang,
                _ => Fault::None,
            };
            if !matches!(fault, Fault::None) {
                faults.fetch_add(1, Ordering::Relaxed);
            }
            world.faults.set(route, fault);
        }
        sleep(Duration::from_millis(random.u64(20..200))).await;
        // What was slow is answered now.
        for gate in gates.drain(..) {
            gate.open();
        }
    }
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

fn from_env<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[tokio::test]
async fn mixed_streams() {
    let streams: usize = from_env("STREAMS", 1_000);
    let seed: u64 = from_env("SEED", 7);
    let options = Options {
        concurrency: Some(WORKERS),
        plugin: json!({
            "classify_deadline_ms": CLASSIFY_DEADLINE_MS,
            "breaker_open_ms": 100,
            "policy_refresh_ms": 200,
            "commit_flush_ms": 50,
        }),
        ..Options::default()
    };
    let mut world = World::with(options).await;
    let upstream = std::mem::replace(&mut world.upstream, Upstream::start().await);
    let sent = AllSent::default();
    let server = tokio::spawn(serve(upstream, seed, sent.clone()));
    let pid = world.envoy.process().child().id().expect("runs");

    let next = Arc::new(AtomicUsize::new(0));
    let wrong = Arc::new(Mutex::new(vec![]));
    let counts = Arc::new(Mutex::new(HashMap::<Ended, usize>::new()));
    let totals = Arc::new(Mutex::new(HashMap::new()));
    let slowest = Arc::new(Mutex::new((Duration::ZERO, 0)));
    let settled_at = Arc::new(Mutex::new(None));
    let begin = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (next, wrong, counts, totals) =
            (next.clone(), wrong.clone(), counts.clone(), totals.clone());
        let (sent, slowest, settled_at) = (sent.clone(), slowest.clone(), settled_at.clone());
        let client = world.client;
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= streams {
                    return;
                }
                if number == streams / 3 {
                    *settled_at.lock().unwrap() = Some(resident_bytes(pid));
                }
                let script = Script::of(seed, number);
                let begin = Instant::now();
                let result = match run(client, &script).await {
                    Err(e) if e.kind() == ErrorKind::TimedOut => Err("hangs".to_owned()),
                    Err(e) => Err(e.to_string()),
                    Ok(got) => {
                        let sent = sent.lock().unwrap().remove(&number);
                        judge(&script, &got, sent.as_ref(), &totals)
                    }
                };
                let took = begin.elapsed();
                let mut slowest = slowest.lock().unwrap();
                *slowest = (took, number).max(*slowest);
                match result {
                    Ok(ended) => *counts.lock().unwrap().entry(ended).or_default() += 1,
                    Err(message) => wrong.lock().unwrap().push(format!("{script:?}: {message}")),
                }
            }
        });
    }
    let faults = AtomicUsize::new(0);
    tokio::select! {
        () = misbehave(&world, seed, &faults) => {}
        () = async { while let Some(done) = workers.join_next().await { done.unwrap(); } } => {}
    }
    let elapsed = begin.elapsed();
    for route in [Route::Classify, Route::Commit, Route::Policy] {
        world.faults.set(route, Fault::None);
    }
    let grown = resident_bytes(pid).saturating_sub(settled_at.lock().unwrap().unwrap());

    // Everything has ended, on Envoy's side too.
    let idle = poll(PATIENCE, async || {
        let stats = world.envoy.stats().await?;
        let active = stats.counter(
            "envoy_http_downstream_rq_active",
            &[("envoy_http_conn_manager_prefix", "llm")],
        ) + stats.counter(
            "envoy_cluster_upstream_rq_active",
            &[("envoy_cluster_name", "upstream")],
        );
        (active == 0).then_some(())
    });
    assert!(idle.await.is_some(), "streams are left over");
    let stats = world.stats().await;
    let slowest = *slowest.lock().unwrap();
    let mut report = format!(
        "{streams} streams, {IN_FLIGHT} in flight, {WORKERS} workers, seed {seed}: {:.1} s, slowest {:.2} s (stream {}), \
         {} faults, Envoy {} MiB, grown by {} MiB\n{:?}\n",
        elapsed.as_secs_f64(),
        slowest.0.as_secs_f64(),
        slowest.1,
        faults.load(Ordering::Relaxed),
        resident_bytes(pid) >> 20,
        grown >> 20,
        counts.lock().unwrap(),
    );
    for line in stats
        .lines("promptcache_")
        .iter()
        .filter(|line| line.contains("_total"))
    {
        writeln!(report, "{line}").unwrap();
    }
    // Usually one of many chunks with pauses: whatever else runs here delays each of them.
    writeln!(report, "slowest: {:?}", Script::of(seed, slowest.1)).unwrap();
    eprintln!("{report}");
    let wrong = std::mem::take(&mut *wrong.lock().unwrap());
    let first: Vec<_> = wrong.iter().take(10).cloned().collect();
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}\n{report}",
        wrong.len(),
        first.join("\n")
    );
    let handled = stats.counter("promptcache_requests_total", &[]);
    assert!(
        handled as usize <= streams && handled as usize >= streams * 9 / 10,
        "{handled} accounted"
    );
    world.assert_no_vm_lost().await;
    assert!(grown < GROWTH_BYTES_MAX, "grown by {grown} bytes");

    // And the service is used again: what was committed meanwhile is read.
    let number = (0..).find(|n| {
        let script = Script::of(seed, *n);
        script.topic.is_some()
            && script.known_model
            && !script.stream
            && script.status == 200
            && script.client_leaves_at.is_none()
            && script.upstream_breaks_at.is_none()
            && script.tokens * script.token_bytes < 100_000
    });
    let script = Script::of(seed, number.unwrap());
    let reads = poll(PATIENCE, async || {
        let got = run(world.client, &script).await.ok()?;
        (shown(&got.body, false)?.read > 1024).then_some(())
    });
    assert!(reads.await.is_some(), "the ledger is not used any more");
    server.abort();
}
