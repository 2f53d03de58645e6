//! Twice what the index service can take: it sheds, the breaker opens, and Envoy's requests go on.

use std::time::{Duration, Instant};

use prompt_cache_core::api::Api;

use crate::{
    deadline::poll,
    load::{
        open_loop::{Plan, Shot, Tallies, Tally, percentile, run as open_loop},
        prompt::{Mark, Template, Values, text},
        wire::{Connection, greatest},
    },
    spread::Spread,
};

use super::{
    Settings, service,
    stage::{AT_ONCE, GENERATION, STREAMED, Stage, Variant, WHOLE},
};

/// Bytes of a prompt that the service has to count: of the kind that is slow to count.
const DENSE_BYTES: usize = 60_000;
/// Bytes of the prompts beside them.
const PLAIN_BYTES: usize = 8_000;
/// Share of arrivals that need a count.
const COLD_SHARE: f64 = 0.5;
/// Share of arrivals that read what was written before.
const HOT_SHARE: f64 = 0.25;
/// A whole answer counts when it comes within this time of its scheduled moment: twice what the
/// LLM takes.
const IN_TIME_MS: f64 = 2_000.0;
const CONNECTIONS_MAX: usize = 2_000;
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest that reads may take to come back.
const RECOVERY_MAX: Duration = Duration::from_secs(30);
/// Bars.
const SHED_P99_MS_MAX: f64 = 50.0;
const GOODPUT_PARTS_MIN: f64 = 0.95;

const COLD: &str = "cold";
const HOT: &str = "hot";
const UNMARKED: &str = "unmarked";

/// The prompts that arrive.
struct Traffic {
    cold: [Template; 2],
    hot: [Template; 2],
    unmarked: [Template; 2],
    topic: u64,
}

/// Runs it, prints tables, and returns which promises were broken.
pub async fn run(stage: &mut Stage, settings: &Settings) -> Result<Vec<String>, String> {
    let dense = dense_text();
    let capacity = service::capacity(stage.index.address(), &dense).await?;
    let cold_per_second = 2.0 * capacity;
    println!(
        "\n## The index service at twice its capacity\n\nIt counts {capacity:.0} prompts of {} KB per second.",
        DENSE_BYTES / 1000
    );
    let plan = |round: usize, per_second: f64, time| Plan {
        per_second,
        time,
        connections_max: CONNECTIONS_MAX,
        patience: PATIENCE,
        seed: round as u64,
    };

    println!("\nBy itself, at {cold_per_second:.0} per second:\n");
    println!("| 200/s | 503/s | 200: p50, p99 ms | 503: p50, p99, max ms | neither |");
    println!("|--:|--:|--:|--:|--:|");
    let mut broken = vec![];
    for round in 0..settings.rounds {
        let plan = plan(round, cold_per_second, settings.time);
        let tally = service::flood(stage.index.address(), &dense, plan).await;
        print_flood(&tally, settings.time);
        let shed_p99_ms = percentile(&tally.shed_ms, 99.0);
        if tally.shed_ms.is_empty() {
            broken.push("the service shed nothing".to_owned());
        }
        if shed_p99_ms > SHED_P99_MS_MAX {
            broken.push(format!("a 503 took {shed_p99_ms:.1} ms"));
        }
    }

    let per_second = cold_per_second / COLD_SHARE;
    println!(
        "\nThrough Envoy, {per_second:.0} requests per second, {cold_per_second:.0} of them to be counted; the LLM takes {} ms:\n",
        GENERATION.as_millis()
    );
    println!(
        "| | alone: 200/s | with the filter: 200/s | p50, p99 ms alone | p50, p99 ms with the filter | reads |"
    );
    println!("|---|--:|--:|--:|--:|--:|");
    let mut traffic = Traffic::new(&dense);
    traffic.heat(stage).await?;
    let before = (stage.stats().await?, stage.metrics().await?);
    let mut results: [Vec<Tallies>; 2] = Default::default();
    let mut recoveries = vec![];
    for round in 0..settings.rounds {
        for variant in Variant::order(round) {
            let plan = plan(round, per_second, settings.time);
            let listener = stage.envoy(variant).listener();
            let tallies = open_loop(listener, plan, |random| traffic.shot(random)).await;
            results[variant as usize].push(tallies);
            if variant == Variant::Filter {
                recoveries.push(recovery(stage, &mut traffic, cold_per_second / 8.0).await?);
            }
        }
    }
    let ratio = print_goodput(&results, settings.time);
    if ratio.median < GOODPUT_PARTS_MIN {
        broken.push(format!("goodput {:.3} of Envoy alone", ratio.median));
    }
    let of = |value: fn(&Recovery) -> f64| Spread::of(recoveries.iter().map(value));
    println!(
        "\nAfter the load, seconds until something is written: {}, read: {}.",
        of(|r| r.written_s),
        of(|r| r.read_s)
    );
    let after = (stage.stats().await?, stage.metrics().await?);
    let opened =
        |stats: &crate::envoy::Stats| stats.counter("promptcache_breaker_opened_total", &[]);
    let opened = opened(&after.0) - opened(&before.0);
    if opened == 0 {
        broken.push("the breaker did not open".to_owned());
    }
    println!("\nThe breaker opened {opened} times. Classifications of the filter:");
    for outcome in [
        "ok",
        "error",
        "deadline_exceeded",
        "breaker_open",
        "abandoned",
    ] {
        let count = |stats: &crate::envoy::Stats| {
            stats.counter("promptcache_classify_total", &[("outcome", outcome)])
        };
        println!("- {outcome}: {}", count(&after.0) - count(&before.0));
    }
    println!("\nWhat the service shed:");
    for reason in [
        "concurrency",
        "connections",
        "text_bytes",
        "timeout",
        "tokenize_queue",
    ] {
        let count = |stats: &crate::envoy::Stats| {
            stats.counter("prompt_cache_index_shed_total", &[("reason", reason)])
        };
        println!("- {reason}: {}", count(&after.1) - count(&before.1));
    }
    Ok(broken)
}

fn print_flood(tally: &Tally, time: Duration) {
    let per_second = |count: usize| count as f64 / time.as_secs_f64();
    println!(
        "| {:.0} | {:.0} | {:.1}, {:.1} | {:.2}, {:.2}, {:.2} | {} |",
        per_second(tally.ok_ms.len()),
        per_second(tally.shed_ms.len()),
        percentile(&tally.ok_ms, 50.0),
        percentile(&tally.ok_ms, 99.0),
        percentile(&tally.shed_ms, 50.0),
        percentile(&tally.shed_ms, 99.0),
        percentile(&tally.shed_ms, 100.0),
        tally.others + tally.broken + tally.lost + tally.overdue,
    );
}

/// Prints goodput and latency by kind; returns the goodput of all, relative to Envoy alone.
fn print_goodput(results: &[Vec<Tallies>; 2], time: Duration) -> Spread {
    let [alone, filter] = results;
    let good = |tallies: &Tallies, kind: Option<&str>| -> f64 {
        let of = tallies
            .iter()
            .filter(|(k, _)| kind.is_none_or(|kind| **k == kind));
        let count: u64 = of.map(|(_, tally)| tally.in_time(IN_TIME_MS)).sum();
        count as f64 / time.as_secs_f64()
    };
    for kind in [COLD, HOT, UNMARKED] {
        let rate = |runs: &[Tallies]| Spread::of(runs.iter().map(|run| good(run, Some(kind))));
        let late = |runs: &[Tallies], parts| {
            let all: Vec<f64> = runs
                .iter()
                .filter_map(|run| run.get(kind))
                .flat_map(|tally| tally.ok_ms.clone())
                .collect();
            percentile(&all, parts)
        };
        let share = |runs: &[Tallies]| {
            let tallies = || runs.iter().filter_map(|run| run.get(kind));
            let read: u64 = tallies().map(|tally| tally.read).sum();
            let scheduled: u64 = tallies().map(|tally| tally.scheduled).sum();
            read as f64 * 100.0 / scheduled as f64
        };
        println!(
            "| {kind} | {} | {} | {:.1}, {:.1} | {:.1}, {:.1} | {:.0} % |",
            rate(alone),
            rate(filter),
            late(alone, 50.0),
            late(alone, 99.0),
            late(filter, 50.0),
            late(filter, 99.0),
            share(filter),
        );
    }
    let departed_late_ms = results
        .iter()
        .flatten()
        .flat_map(|run| run.values())
        .map(|tally| tally.departed_late_ms)
        .fold(0.0, f64::max);
    let ratio = Spread::of(
        alone
            .iter()
            .zip(filter)
            .map(|(alone, filter)| good(filter, None) / good(alone, None)),
    );
    println!(
        "\nGoodput, whole 200s within {IN_TIME_MS:.0} ms: {ratio} of Envoy alone. The client was {departed_late_ms:.1} ms late at most."
    );
    ratio
}

/// How long after the load the cache works again.
struct Recovery {
    written_s: f64,
    read_s: f64,
}

/// An eighth of the load goes on, while prompts that nobody had before are written and read.
async fn recovery(
    stage: &Stage,
    traffic: &mut Traffic,
    per_second: f64,
) -> Result<Recovery, String> {
    let begin = Instant::now();
    let listener = stage.filter.listener();
    let plan = Plan {
        per_second,
        time: RECOVERY_MAX,
        connections_max: CONNECTIONS_MAX,
        patience: PATIENCE,
        seed: 99,
    };
    let plain = Template::new(Api::Chat, false, Mark::Right, &text(PLAIN_BYTES));
    let probe = async {
        let mut connection = Connection::open(listener).await.ok()?;
        let mut written_s = None;
        let mut topic = 1 << 30;
        poll(RECOVERY_MAX, async || {
            let request = plain.with(values(topic, AT_ONCE));
            let reply = connection.exchange(&request).await.ok()?;
            let some = |name| greatest(reply.body, name).is_some_and(|tokens| tokens > 0);
            let now_s = begin.elapsed().as_secs_f64();
            if written_s.is_none() {
                if some("cache_creation_input_tokens") {
                    written_s = Some(now_s);
                } else {
                    topic += 1;
                }
            }
            let read_s = some("cache_read_input_tokens").then_some(now_s)?;
            Some(Recovery {
                written_s: written_s?,
                read_s,
            })
        })
        .await
    };
    tokio::select! {
        recovery = probe => recovery.ok_or_else(|| "reads did not come back".to_owned()),
        _ = open_loop(listener, plan, |random| traffic.shot(random)) => Err("reads did not come back".to_owned()),
    }
}

fn values(topic: u64, answer: u8) -> Values {
    Values {
        topic,
        tenant: 1,
        model: 0,
        answer,
    }
}

impl Traffic {
    fn new(dense: &str) -> Self {
        let both = |mark, text: &str| {
            [false, true].map(|stream| Template::new(Api::Chat, stream, mark, text))
        };
        Self {
            cold: both(Mark::Right, dense),
            hot: both(Mark::Right, &text(PLAIN_BYTES)),
            unmarked: both(Mark::None, &text(PLAIN_BYTES)),
            topic: 1 << 20,
        }
    }

    fn shot(&mut self, random: &mut fastrand::Rng) -> Shot {
        let drawn = random.f64();
        let answer = random.u8(WHOLE..=STREAMED);
        let (kind, templates, topic) = if drawn < COLD_SHARE {
            self.topic += 1;
            (COLD, &self.cold, self.topic)
        } else if drawn < COLD_SHARE + HOT_SHARE {
            (HOT, &self.hot, 1)
        } else {
            (UNMARKED, &self.unmarked, 2)
        };
        Shot {
            kind,
            bytes: templates[usize::from(answer)].with(values(topic, answer)),
        }
    }

    /// Writes what is to be read.
    async fn heat(&self, stage: &Stage) -> Result<(), String> {
        let mut connection = Connection::open(stage.filter.listener())
            .await
            .map_err(|e| e.to_string())?;
        let request = self.hot[0].with(values(1, AT_ONCE));
        let read = poll(RECOVERY_MAX, async || {
            let reply = connection.exchange(&request).await.ok()?;
            let tokens = greatest(reply.body, "cache_read_input_tokens")?;
            (tokens > 0).then_some(())
        });
        read.await
            .ok_or_else(|| "the hot prompt stays cold".to_owned())
    }
}

/// Text without words, as keys and hashes are: slow to count for its length.
fn dense_text() -> String {
    let mut random = fastrand::Rng::with_seed(1);
    (0..DENSE_BYTES).map(|_| random.alphanumeric()).collect()
}
