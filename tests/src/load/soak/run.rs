//! The loops: connections that send, and the one that samples.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{
    deadline::{PATIENCE, poll},
    layout::Layout,
    load::{
        reply::FIRST_WORD,
        wire::{Connection, greatest},
    },
};

use super::{
    Report, Settings,
    report::Counts,
    sample::Sample,
    stage::Stage,
    traffic::{Expected, Kind, Shot, Traffic},
};

/// Longest that one request may take; nothing here fails so that it would take a deadline.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Requests between two lines of progress.
const PROGRESS: u64 = 100_000;

/// What all connections share.
struct Shared {
    traffic: RefCell<Traffic>,
    left: Cell<u64>,
    ended: Cell<u64>,
    counts: RefCell<Counts>,
    listener: SocketAddr,
}

pub async fn run(layout: &Layout, settings: &Settings) -> Result<Report, String> {
    let mut stage = Stage::start(layout).await?;
    let shared = Rc::new(Shared {
        traffic: RefCell::new(Traffic::new(settings.seed)),
        left: Cell::new(settings.requests),
        ended: Cell::new(0),
        counts: RefCell::default(),
        listener: stage.envoy.listener(),
    });
    let begin = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..settings.connections {
        clients.spawn_local(client(Rc::clone(&shared)));
    }
    let mut samples = vec![];
    let mut ticks = interval(settings.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !clients.is_empty() {
        tokio::select! {
            done = clients.join_next() => done.transpose().map(drop).map_err(|e| e.to_string())?,
            _ = ticks.tick() => {
                samples.push(stage.sources.sample(shared.ended.get()).await?);
            }
        }
    }
    let time = begin.elapsed();
    let idle = idle(&stage, settings.requests).await?;
    let stats = stage.envoy.stats().await.unwrap_or_default();
    let lost = |line: &&String| line.contains("vm_reload");
    let vms_lost = stats.lines("").iter().filter(lost).count();
    let swept = stage.index.stats().await.unwrap_or_default();
    let swept = swept.counter("prompt_cache_index_swept_entries_total", &[]);
    stage.stop().await;
    Ok(Report {
        settings: settings.clone(),
        time,
        samples,
        idle,
        counts: shared.counts.take(),
        vms_lost,
        swept,
    })
}

/// A sample once no request is left in Envoy.
async fn idle(stage: &Stage, requests: u64) -> Result<Sample, String> {
    let idle = poll(PATIENCE, async || {
        let stats = stage.envoy.stats().await?;
        let listener = [("envoy_http_conn_manager_prefix", "llm")];
        let active = stats.counter("envoy_http_downstream_rq_active", &listener)
            + stats.counter("envoy_http_downstream_cx_active", &listener);
        (active == 0).then_some(())
    });
    idle.await
        .ok_or("Envoy keeps requests or connections whose client has gone")?;
    stage.sources.sample(requests).await
}

/// One connection after the other, until all requests are sent.
async fn client(shared: Rc<Shared>) {
    let mut connection = None;
    while let Some(left) = shared.left.get().checked_sub(1) {
        shared.left.set(left);
        let Shot {
            kind,
            expected,
            bytes,
        } = shared.traffic.borrow_mut().draw();
        let exchange = exchange(&shared, &mut connection, kind, expected, &bytes);
        let outcome = match timeout(ANSWER_MAX, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err("no answer".to_owned()),
        };
        if outcome.is_err() {
            connection = None;
        }
        shared.counts.borrow_mut().ended(kind, outcome);
        let ended = shared.ended.get() + 1;
        shared.ended.set(ended);
        if ended.is_multiple_of(PROGRESS) {
            eprintln!("{ended} requests");
        }
    }
}

/// `Err` says how the answer is not what it has to be.
async fn exchange(
    shared: &Shared,
    connection: &mut Option<Connection>,
    kind: Kind,
    expected: Expected,
    bytes: &[u8],
) -> Result<(), String> {
    let failed = |e: io::Error| format!("{e}");
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::open(shared.listener).await.map_err(failed)?,
    };
    let status = match expected {
        Expected::Status(status) => status,
        Expected::Leaves => {
            return open
                .leave_at(bytes, FIRST_WORD.as_bytes())
                .await
                .map_err(failed);
        }
        Expected::Breaks => {
            return match open.exchange(bytes).await {
                Ok(reply) => Err(format!("whole, with {}", reply.status)),
                Err(_) => Ok(()),
            };
        }
    };
    let reply = open.exchange(bytes).await.map_err(failed)?;
    if reply.status != status {
        let body = String::from_utf8_lossy(reply.body);
        return Err(format!("{} instead of {status}: {body}", reply.status));
    }
    let some = |name: &str| greatest(reply.body, name).is_some_and(|tokens| tokens > 0);
    let read = some("cache_read_input_tokens");
    let created = some("cache_creation_input_tokens");
    shared.counts.borrow_mut().cached(kind, read, created);
    if (read && kind != Kind::Hot)
        || (created && !matches!(kind, Kind::Hot | Kind::Cold | Kind::ErrorFrame))
    {
        return Err(format!("read: {read}, created: {created}"));
    }
    if !reply.closes {
        *connection = Some(open);
    }
    Ok(())
}
