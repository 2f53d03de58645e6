//! Twice what Envoy itself can take: what the filter's own work costs where nothing else is left.

use std::time::Duration;

use prompt_cache_core::api::Api;

use crate::{
    cpu::cpu_ns,
    load::{
        open_loop::{Plan, Shot, Tally, closed, percentile, run as open_loop},
        prompt::{Mark, Template, Values, text},
    },
    spread::Spread,
};

use super::{
    Settings,
    stage::{AT_ONCE, Stage, Variant},
};

/// Bytes of a prompt.
const BODY_BYTES: usize = 10_000;
/// Requests in flight at most: what a client's pool, or the proxy before this one, would have.
const CONNECTIONS_MAX: usize = 256;
const CAPACITY_CONNECTIONS: usize = 64;
const CAPACITY_TIME: Duration = Duration::from_secs(3);
const IN_TIME_MS: f64 = 1_000.0;
const PATIENCE: Duration = Duration::from_secs(10);
const KIND: &str = "unmarked";

/// What one Envoy did in one round.
struct Load {
    capacity: f64,
    goodput: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
}

/// Runs it and prints a table. There is no promise to break here: what the filter does costs
/// processor time.
pub async fn run(stage: &mut Stage, settings: &Settings) -> Result<Vec<String>, String> {
    println!("\n## Envoy at twice its own capacity\n");
    let mut broken = vec![];
    let mut loads: [Vec<Load>; 2] = Default::default();
    let template = Template::new(Api::Chat, false, Mark::None, &text(BODY_BYTES));
    for round in 0..settings.rounds {
        let capacity = capacity(stage, Variant::Alone, &template).await?;
        let own = self::capacity(stage, Variant::Filter, &template).await?;
        for variant in Variant::order(round) {
            let plan = Plan {
                per_second: 2.0 * capacity,
                time: settings.time,
                connections_max: CONNECTIONS_MAX,
                patience: PATIENCE,
                seed: round as u64,
            };
            let envoy = stage.envoy(variant);
            let pid = envoy.process().child().id().ok_or("envoy has ended")?;
            let before_ns = cpu_ns(pid)?;
            let shot = |_: &mut fastrand::Rng| Shot {
                kind: KIND,
                bytes: request(&template),
            };
            let mut tallies = open_loop(envoy.listener(), plan, shot).await;
            let used_us = (cpu_ns(pid)? - before_ns) as f64 / 1e3;
            let tally = tallies.remove(KIND).unwrap_or_default();
            if tally.broken + tally.others + tally.overdue > 0 {
                broken.push(format!("{variant:?}: {}", failures(&tally)));
            }
            loads[variant as usize].push(Load {
                capacity: if variant == Variant::Alone {
                    capacity
                } else {
                    own
                },
                goodput: tally.in_time(IN_TIME_MS) as f64 / settings.time.as_secs_f64(),
                p50_ms: percentile(&tally.ok_ms, 50.0),
                p99_ms: percentile(&tally.ok_ms, 99.0),
                cpu_us: used_us / tally.ok_ms.len() as f64,
            });
        }
    }
    println!(
        "Unmarked requests of {} KB, {CONNECTIONS_MAX} connections at most; an arrival that finds none is lost.\n",
        BODY_BYTES / 1000
    );
    println!(
        "| | can take, 200/s | goodput at twice what Envoy alone can take | p50 ms | p99 ms | Envoy's µs per request |"
    );
    println!("|---|--:|--:|--:|--:|--:|");
    for (name, of) in ["Envoy alone", "with the filter"].iter().zip(&loads) {
        let spread = |value: fn(&Load) -> f64| Spread::of(of.iter().map(value));
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            spread(|load| load.capacity),
            spread(|load| load.goodput),
            spread(|load| load.p50_ms),
            spread(|load| load.p99_ms),
            spread(|load| load.cpu_us),
        );
    }
    let [alone, filter] = &loads;
    let ratio = Spread::of(
        alone
            .iter()
            .zip(filter)
            .map(|(alone, filter)| filter.goodput / alone.goodput),
    );
    println!("\nGoodput with the filter: {ratio} of Envoy alone.");
    Ok(broken)
}

fn failures(tally: &Tally) -> String {
    format!(
        "{} broken, {} of another status, {} overdue",
        tally.broken, tally.others, tally.overdue
    )
}

async fn capacity(stage: &mut Stage, variant: Variant, template: &Template) -> Result<f64, String> {
    let template = template.clone();
    let listener = stage.envoy(variant).listener();
    closed(listener, CAPACITY_CONNECTIONS, CAPACITY_TIME, move || {
        request(&template)
    })
    .await
}

fn request(template: &Template) -> Vec<u8> {
    template.with(Values {
        topic: 3,
        tenant: 1,
        model: 0,
        answer: AT_ONCE,
    })
}
