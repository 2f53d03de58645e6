//! Buffered requests: what one costs Envoy and the index service, as a multiple of Envoy alone.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use prompt_cache_e2e::spread::Spread;
use tokio::task::JoinSet;

use crate::{
    Settings,
    client::Connection,
    envoys::Variant,
    prompts::{Cache, Prompt},
    upstream::Pace,
    world::World,
};

/// Requests in flight at any time.
const CONNECTIONS: usize = 8;
/// Sizes of the bodies, in bytes. The smallest is below the floor: its marks are checked, and it
/// is asked for once, but it is never cached.
const BODY_BYTES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
const BELOW_FLOOR_BYTES: usize = 1_000;

/// One kind of traffic through one kind of Envoy.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    variant: Variant,
    cache: Cache,
    marked: bool,
}

const LOADS: [Load; 10] = [
    Load::new("Envoy alone", Variant::Alone, Cache::Absent, true),
    Load::new(
        "a wasm filter that does nothing",
        Variant::Noop,
        Cache::Absent,
        true,
    ),
    Load::new(
        "a wasm filter that buffers",
        Variant::Buffer,
        Cache::Absent,
        true,
    ),
    Load::new("the filter, unmarked", Variant::Filter, Cache::Zero, false),
    Load::new("the filter, marked", Variant::Filter, Cache::Zero, true),
    Load::new("the filter, hot", Variant::Filter, Cache::Hot, true),
    Load::new("the filter, cold", Variant::Filter, Cache::Cold, true),
    Load::new(
        "the other build, unmarked",
        Variant::Other,
        Cache::Zero,
        false,
    ),
    Load::new("the other build, hot", Variant::Other, Cache::Hot, true),
    Load::new("the other build, cold", Variant::Other, Cache::Cold, true),
];

/// Processor time of Envoy and the service per request, as a multiple of Envoy alone.
pub struct Ratio {
    pub load: &'static str,
    pub body_bytes: usize,
    pub to_alone: Spread,
}

/// What one measurement gave, per request.
#[derive(Clone, Copy)]
struct Cost {
    requests_per_second: f64,
    envoy_us: f64,
    service_us: f64,
}

impl Load {
    const fn new(name: &'static str, variant: Variant, cache: Cache, marked: bool) -> Self {
        Self {
            name,
            variant,
            cache,
            marked,
        }
    }

    /// Marked requests are hot or cold where they are large enough to be cached.
    fn fits(self, body_bytes: usize) -> bool {
        let below = body_bytes <= BELOW_FLOOR_BYTES;
        match self.cache {
            Cache::Hot | Cache::Cold => !below,
            Cache::Zero if self.marked => below,
            Cache::Zero | Cache::Absent | Cache::Any => true,
        }
    }
}

/// Measures, prints a table, and returns what there is to draw.
pub async fn run(world: &World, settings: &Settings) -> Result<Vec<Ratio>, String> {
    println!(
        "\n## Requests\n\n{CONNECTIONS} connections, each sends its next request when it has its answer.\n"
    );
    println!("| body | | requests/s | Envoy, µs | service, µs | Envoy ÷ alone | both ÷ alone |");
    println!("|--:|---|--:|--:|--:|--:|--:|");
    // Topics that no other request of the run has.
    let topics = Rc::new(Cell::new(1));
    let mut ratios = Vec::new();
    for body_bytes in BODY_BYTES {
        let loads: Vec<Load> = LOADS
            .into_iter()
            .filter(|load| world.has(load.variant) && load.fits(body_bytes))
            .collect();
        let mut costs = vec![Vec::new(); loads.len()];
        for round in 0..settings.rounds {
            // Every other round backwards: what drifts does not favour anyone.
            let mut order: Vec<usize> = (0..loads.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for index in order {
                let cost = measure(world, settings, loads[index], body_bytes, &topics).await?;
                costs[index].push(cost);
            }
        }
        for (load, of_load) in loads.iter().zip(&costs) {
            let spread = |value: fn(&Cost) -> f64| Spread::of(of_load.iter().map(value));
            let paired = |value: fn(&Cost) -> f64| {
                let pairs = of_load.iter().zip(&costs[0]);
                Spread::of(pairs.map(|(this, alone)| value(this) / alone.envoy_us))
            };
            let ratio = paired(|c| c.envoy_us + c.service_us);
            ratios.push(Ratio {
                load: load.name,
                body_bytes,
                to_alone: ratio,
            });
            println!(
                "| {} KB | {} | {:.0} | {:.1} | {:.1} | {} | {ratio} |",
                body_bytes / 1000,
                load.name,
                spread(|c| c.requests_per_second).median,
                spread(|c| c.envoy_us).median,
                spread(|c| c.service_us).median,
                paired(|c| c.envoy_us),
            );
        }
    }
    Ok(ratios)
}

async fn measure(
    world: &World,
    settings: &Settings,
    load: Load,
    body_bytes: usize,
    topics: &Rc<Cell<u64>>,
) -> Result<Cost, String> {
    let envoy = world.envoy(load.variant)?;
    let prompt = Prompt::new(body_bytes, load.marked, Pace::Json);
    if load.cache == Cache::Hot {
        world.heat(load.variant, &prompt).await?;
    }
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(envoy.listener()).await?;
        let mut prompt = prompt.clone();
        // Connected, warm, and known to be answered as it should.
        if load.cache == Cache::Cold {
            prompt.set_topic(topics.replace(topics.get() + 1));
        }
        connection.exchange(&prompt, load.cache).await?;
        connections.push((connection, prompt));
    }
    let (envoy_ns, index_ns) = (envoy.cpu_ns()?, world.index_cpu_ns()?);
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(settings.seconds);
    let mut tasks = JoinSet::new();
    for (mut connection, mut prompt) in connections {
        let topics = Rc::clone(topics);
        tasks.spawn_local(async move {
            let mut count = 0_u64;
            while Instant::now() < end {
                if load.cache == Cache::Cold {
                    prompt.set_topic(topics.replace(topics.get() + 1));
                }
                connection.exchange(&prompt, load.cache).await?;
                count += 1;
            }
            Ok::<_, String>(count)
        });
    }
    let mut count = 0;
    while let Some(task) = tasks.join_next().await {
        count += task.map_err(|e| e.to_string())??;
    }
    let elapsed = start.elapsed().as_secs_f64();
    let per_request = |before: u64, after: u64| (after - before) as f64 / 1e3 / count as f64;
    Ok(Cost {
        requests_per_second: count as f64 / elapsed,
        envoy_us: per_request(envoy_ns, envoy.cpu_ns()?),
        service_us: per_request(index_ns, world.index_cpu_ns()?),
    })
}
