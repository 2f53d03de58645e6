//! One episode: a stage, acts of load and weather on it, and calm after each, in which everything
//! must be well again.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use prompt_cache_e2e::{client::Client, deadline::poll, http::Request, layout::Layout};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    books::Books,
    caller::call,
    judge::{Ended, judge},
    listener::Reloads,
    llm, plant,
    replica::clocks_move,
    script::Script,
    settings::{Plant, StoreKind},
    stage::Stage,
    weather::{self, ServiceFault, Strike},
};

/// Requests in flight at most.
const CALLERS: usize = 24;
/// The longest pause of a caller between two requests.
const PAUSE_MS_MAX: u64 = 250;
/// Pause between two looks at Envoy's own delay.
const LOOK_PAUSE: Duration = Duration::from_millis(60);
/// How long weather lasts before a calm.
const ACT: Duration = Duration::from_secs(18);
/// The longest that requests may take to end when no new ones begin.
const DRAIN_MAX: Duration = Duration::from_secs(40);
/// The longest pause of the filter between two deliveries, and a bit: when none has been under way
/// for that long, there is nothing more to deliver.
const DELIVERY_PAUSE_MAX: Duration = Duration::from_millis(2_500);
/// The longest until then: a delivery that a silent service never answers is given up after five
/// seconds, and two may follow each other.
const DELIVERY_MAX: Duration = Duration::from_secs(15);
/// The longest until what was written is read once everything is well.
const HEALTHY_MAX: Duration = Duration::from_secs(10);
/// How far the services' clocks jump between two acts.
const JUMP_SECONDS: [i64; 4] = [310, 310, 900, 3_700];
/// Memory that a process may take.
const RSS_BYTES_MAX: u64 = 700 << 20;

/// What an episode is about.
#[derive(Clone, Copy, Debug)]
pub struct Episode {
    pub seed: u64,
    pub store: StoreKind,
    pub time: Duration,
    /// The filter remembers expiries.
    pub leases: bool,
    pub plant: Option<Plant>,
}

/// The clients.
struct Load {
    seed: u64,
    envoy: SocketAddr,
    books: Books,
    next: AtomicU64,
    in_flight: AtomicUsize,
    paused: AtomicBool,
}

/// Plays an episode. What happened is in its books.
pub async fn play(layout: &Layout, episode: &Episode) -> Result<Books, String> {
    let begin = Instant::now();
    let books = Books::open(episode.seed, episode.plant, episode.leases);
    let llm = llm::start(books.clone()).await?;
    let tamper = plant::tamper(episode.plant);
    let (kind, leases) = (episode.store, episode.leases);
    let mut stage = Stage::start(layout, kind, leases, llm, tamper, &books).await?;
    let load = Arc::new(Load {
        seed: episode.seed,
        envoy: stage.envoy().listener(),
        books: books.clone(),
        next: AtomicU64::new(0),
        in_flight: AtomicUsize::new(0),
        paused: AtomicBool::new(true),
    });
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..CALLERS {
        tasks.spawn(caller(load.clone(), number));
    }
    let envoy = stage.envoy().process().child().id();
    books.watch([envoy.ok_or("Envoy is gone")?, std::process::id()]);
    tasks.spawn(look(load.clone()));
    let mut act = 0;
    loop {
        let left = (begin + episode.time).saturating_duration_since(Instant::now());
        let time = if left < ACT + ACT / 2 { left } else { ACT };
        load.paused.store(false, Ordering::Relaxed);
        weather_of(&mut stage, episode, act, time).await?;
        calm(&mut stage, &load, act).await?;
        act += 1;
        if begin + episode.time < Instant::now() + Duration::from_secs(5) {
            break;
        }
        jump(&mut stage, episode, act)?;
    }
    // A task that panicked is a mistake of this program.
    tasks.shutdown().await;
    Ok(books)
}

async fn weather_of(
    stage: &mut Stage,
    episode: &Episode,
    act: u64,
    time: Duration,
) -> Result<(), String> {
    let books = stage.books().clone();
    let begin = Instant::now();
    let mut schedule =
        weather::schedule(episode.seed ^ act << 32, episode.store, time, clocks_move());
    if episode.plant == Some(Plant::LongHold) {
        // It takes a service that does not answer to see who waits too long.
        for moment in &mut schedule {
            if let Strike::Service(_, fault) = &mut moment.strike {
                *fault = ServiceFault::Silent;
            }
        }
    }
    for moment in schedule {
        sleep_until(begin + moment.at).await;
        let word = if moment.begins { "begins" } else { "ends" };
        books.note(&format!("{:?} {word}", moment.strike));
        if moment.begins {
            books
                .lock()
                .journal
                .count(&format!("fault: {}", moment.strike.name()));
            stage.strike(moment.strike).await?;
        } else {
            stage.heal(moment.strike).await?;
        }
    }
    sleep_until(begin + time).await;
    Ok(())
}

/// No weather: requests end, everything recovers, and what is written is read.
async fn calm(stage: &mut Stage, load: &Load, act: u64) -> Result<(), String> {
    let books = &load.books;
    books.note("calm");
    load.paused.store(true, Ordering::Relaxed);
    let drained = poll(DRAIN_MAX, async || {
        (load.in_flight.load(Ordering::Relaxed) == 0).then_some(())
    });
    if drained.await.is_none() {
        books.violation("requests do not end");
    }
    stage.recovered().await?;
    stage.delivered(DELIVERY_PAUSE_MAX, DELIVERY_MAX).await?;
    let mut attempt = 0;
    let read = poll(HEALTHY_MAX, async || {
        attempt += 1;
        let script = Script::healthy(load.seed, act, attempt);
        (exchange(&script, load).await == Some(Ended::Read)).then_some(())
    });
    if read.await.is_none() && books.plant.is_none() {
        books.violation("everything is well, and what is written is not read");
    }
    audit(stage, books).await
}

/// Nothing was lost or left over.
async fn audit(stage: &mut Stage, books: &Books) -> Result<(), String> {
    if let Some(status) = stage.envoy().process().end() {
        return Err(format!(
            "Envoy ended with {status}\n{}",
            stage.envoy().process().log_tail()
        ));
    }
    let stats = stage
        .envoy()
        .stats()
        .await
        .ok_or("Envoy's stats are gone")?;
    let mut lost = stats.lines("");
    lost.retain(|line| line.contains("vm_reload"));
    if !lost.is_empty() {
        books.violation(&format!("a VM was lost: {lost:?}"));
    }
    let wanted = stage.reloads();
    let reloaded = poll(HEALTHY_MAX, async || {
        (Reloads::of(&stage.envoy().stats().await?) == wanted).then_some(())
    });
    if reloaded.await.is_none() {
        books.violation(&format!("Envoy did not take exactly {wanted:?}"));
    }
    let envoy = stage.envoy().process().child().id();
    let services: Vec<_> = stage.replicas().iter_mut().map(|r| r.pid()).collect();
    for (name, pid) in services
        .into_iter()
        .map(|pid| ("the service", pid))
        .chain([("Envoy", envoy)])
    {
        let bytes = pid
            .and_then(resident_bytes)
            .ok_or(format!("{name} is gone"))?;
        if bytes > RSS_BYTES_MAX {
            books.violation(&format!("{name} takes {} MiB", bytes >> 20));
        }
        let mut state = books.lock();
        state.journal.most(&format!("MiB of {name}"), bytes >> 20);
    }
    Ok(())
}

fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

fn jump(stage: &mut Stage, episode: &Episode, act: u64) -> Result<(), String> {
    if !clocks_move() {
        return Ok(());
    }
    let mut random = fastrand::Rng::with_seed(episode.seed ^ act);
    let seconds = JUMP_SECONDS[random.usize(..JUMP_SECONDS.len())];
    let books = stage.books().clone();
    books.note(&format!("clocks go {seconds} s ahead"));
    books.lock().journal.count("fault: clock jump");
    if episode.plant == Some(Plant::Expired) {
        stage.claim_jump(seconds);
        return Ok(());
    }
    stage.jump(seconds)
}

async fn caller(load: Arc<Load>, number: usize) {
    let mut random = fastrand::Rng::with_seed(load.seed ^ number as u64);
    loop {
        sleep(Duration::from_millis(random.u64(1..=PAUSE_MS_MAX))).await;
        load.in_flight.fetch_add(1, Ordering::Relaxed);
        if !load.paused.load(Ordering::Relaxed) {
            let script = Script::of(load.seed, load.next.fetch_add(1, Ordering::Relaxed));
            exchange(&script, &load).await;
        }
        load.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn exchange(script: &Script, load: &Load) -> Option<Ended> {
    load.books.used(script);
    load.books.lock().journal.count("requests");
    let got = call(script, load.envoy, &load.books).await;
    judge(script, &got, &load.books)
}

/// Watches what Envoy takes for a request that nothing holds back. Each tells of one worker only,
/// and of what is over: who judges looks at the processes themselves, too.
async fn look(load: Arc<Load>) {
    let client = Client::new(load.envoy);
    loop {
        let since_ms = load.books.now_ms();
        // Fails when Envoy is gone, which the audit reports.
        let _ = client.try_call(&Request::get("/v1/models")).await;
        let lag_ms = load.books.now_ms() - since_ms;
        load.books.lagged(lag_ms);
        sleep(LOOK_PAUSE).await;
    }
}
