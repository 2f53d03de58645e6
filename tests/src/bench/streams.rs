//! Streams of many events: what one event costs Envoy with and without the filter.

use std::time::{Duration, Instant};

use prompt_cache_e2e::spread::Spread;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    Settings,
    answer::EVENTS,
    client::{Connection, Times},
    envoys::Variant,
    prompts::{Cache, Prompt},
    upstream::{EVENT_INTERVAL, Pace},
    world::World,
};

/// Streams at once.
const STREAMS: usize = 64;
/// Pause between the starts of two paced streams: no multiple of the pause between their events.
const START_INTERVAL: Duration = Duration::from_micros(15_700);
/// Size of their requests, in bytes.
const BODY_BYTES: usize = 10_000;

#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    variant: Variant,
    cache: Cache,
    marked: bool,
}

const LOADS: [Load; 7] = [
    Load {
        name: "Envoy alone",
        variant: Variant::Alone,
        cache: Cache::Absent,
        marked: true,
    },
    Load {
        name: "a wasm filter that does nothing",
        variant: Variant::Noop,
        cache: Cache::Absent,
        marked: true,
    },
    Load {
        name: "a wasm filter that reads every chunk",
        variant: Variant::Read,
        cache: Cache::Absent,
        marked: true,
    },
    Load {
        name: "the filter, unmarked",
        variant: Variant::Filter,
        cache: Cache::Zero,
        marked: false,
    },
    Load {
        name: "the filter, hot",
        variant: Variant::Filter,
        cache: Cache::Hot,
        marked: true,
    },
    Load {
        name: "the other build, unmarked",
        variant: Variant::Other,
        cache: Cache::Zero,
        marked: false,
    },
    Load {
        name: "the other build, hot",
        variant: Variant::Other,
        cache: Cache::Hot,
        marked: true,
    },
];

/// What one measurement gave.
struct Cost {
    /// Of Envoy, per event.
    event_us: f64,
    /// Median time to the first event, in milliseconds.
    first_ms: f64,
}

pub async fn run(world: &World, settings: &Settings, paces: &[Pace]) -> Result<(), String> {
    println!("\n## Streams\n\n{STREAMS} at once, {EVENTS} events each.\n");
    println!(
        "| pace | | Envoy per event, µs | ÷ alone | median time to the first event, ms | later than alone, ms |"
    );
    println!("|---|---|--:|--:|--:|--:|");
    let loads: Vec<Load> = LOADS
        .into_iter()
        .filter(|load| world.has(load.variant))
        .collect();
    for &pace in paces {
        let mut costs: Vec<Vec<Cost>> = loads.iter().map(|_| Vec::new()).collect();
        for round in 0..settings.rounds {
            let mut order: Vec<usize> = (0..loads.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for index in order {
                costs[index].push(measure(world, settings, loads[index], pace).await?);
            }
        }
        for (load, of_load) in loads.iter().zip(&costs) {
            let pairs = || of_load.iter().zip(&costs[0]);
            println!(
                "| {} | {} | {:.2} | {} | {} | {} |",
                match pace {
                    Pace::Paced => format!("one event in {} ms", EVENT_INTERVAL.as_millis()),
                    _ => "as fast as it goes".to_owned(),
                },
                load.name,
                Spread::of(of_load.iter().map(|c| c.event_us)).median,
                Spread::of(pairs().map(|(this, alone)| this.event_us / alone.event_us)),
                Spread::of(of_load.iter().map(|c| c.first_ms)),
                Spread::of(pairs().map(|(this, alone)| this.first_ms - alone.first_ms)),
            );
        }
    }
    Ok(())
}

async fn measure(
    world: &World,
    settings: &Settings,
    load: Load,
    pace: Pace,
) -> Result<Cost, String> {
    let envoy = world.envoy(load.variant)?;
    let prompt = Prompt::new(BODY_BYTES, load.marked, pace);
    let cache = load.cache;
    if cache == Cache::Hot {
        // By requests with the same prefix that are answered at once.
        world
            .heat(load.variant, &Prompt::new(BODY_BYTES, true, Pace::Short))
            .await?;
    }
    let mut connections = Vec::new();
    for _ in 0..STREAMS {
        connections.push(Connection::open(envoy.listener()).await?);
    }
    let envoy_ns = envoy.cpu_ns()?;
    let end = Instant::now() + Duration::from_secs_f64(settings.seconds);
    let mut tasks = JoinSet::new();
    for (index, mut connection) in connections.into_iter().enumerate() {
        let prompt = prompt.clone();
        tasks.spawn_local(async move {
            // One after the other, so that neither the first events nor the later ones of all
            // streams come in step.
            if pace == Pace::Paced {
                sleep(START_INTERVAL.mul_f64(index as f64)).await;
            }
            let mut times: Vec<Times> = Vec::new();
            // Each stream at least once; a paced one outlasts the measurement.
            while times.is_empty() || Instant::now() < end {
                times.push(connection.exchange(&prompt, cache).await?);
            }
            Ok::<_, String>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(task) = tasks.join_next().await {
        times.extend(task.map_err(|e| e.to_string())??);
    }
    let used_ns = envoy.cpu_ns()? - envoy_ns;
    Ok(Cost {
        event_us: used_ns as f64 / 1e3 / (times.len() * EVENTS) as f64,
        first_ms: Spread::of(times.iter().map(|t| t.first.as_secs_f64() * 1e3)).median,
    })
}
