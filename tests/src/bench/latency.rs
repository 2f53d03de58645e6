//! One request at a time, now through the one Envoy and now through the other: added latency, and
//! how long the last frame waited.

use prompt_cache_e2e::{
    deadline::{PATIENCE, poll},
    spread::Spread,
};

use crate::{
    Settings,
    client::Connection,
    envoys::Variant,
    prompts::{Cache, Prompt},
    upstream::Pace,
    world::World,
};

/// Pairs of requests in one round.
const PAIRS: usize = 400;
/// Size of the bodies, in bytes.
const BODY_BYTES: usize = 10_000;
/// A boundary of Envoy's histogram buckets.
const HOLD_MS: &str = "1";

pub async fn run(world: &World, settings: &Settings) -> Result<(), String> {
    println!(
        "\n## Latency\n\nOne connection each, requests of {} KB in turns, {PAIRS} pairs a round.\n",
        BODY_BYTES / 1000
    );
    println!(
        "| | alone, median ms | added to the median, ms | added to the p99, ms | ends held > {HOLD_MS} ms |"
    );
    println!("|---|--:|--:|--:|--:|");
    // None that the other parts use.
    let mut topic = 1 << 40;
    for (name, pace, cache) in [
        (
            "first event of an unmarked stream",
            Pace::Short,
            Cache::Zero,
        ),
        ("first event of a hot stream", Pace::Short, Cache::Hot),
        ("first event of a cold stream", Pace::Short, Cache::Cold),
        ("whole answer, unmarked", Pace::Json, Cache::Zero),
        ("whole answer, hot", Pace::Json, Cache::Hot),
        ("whole answer, cold", Pace::Json, Cache::Cold),
    ] {
        let marked = cache != Cache::Zero;
        let mut prompt = Prompt::new(BODY_BYTES, marked, pace);
        if cache == Cache::Hot {
            world.heat(Variant::Filter, &prompt).await?;
        }
        let mut alone = Connection::open(world.envoy(Variant::Alone)?.listener()).await?;
        let mut filter = Connection::open(world.envoy(Variant::Filter)?.listener()).await?;
        let before = holds(world).await?;
        let (mut base, mut medians, mut tails) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..settings.rounds {
            let mut times = [Vec::new(), Vec::new()];
            for _ in 0..PAIRS {
                if cache == Cache::Cold {
                    topic += 1;
                    prompt.set_topic(topic);
                }
                let pair = [
                    alone.exchange(&prompt, Cache::Absent).await?,
                    filter.exchange(&prompt, cache).await?,
                ];
                for (list, time) in times.iter_mut().zip(pair) {
                    let time = if pace == Pace::Json {
                        time.whole
                    } else {
                        time.first
                    };
                    list.push(time.as_secs_f64() * 1e3);
                }
            }
            let [alone, filter] = times.map(|mut list| {
                list.sort_by(f64::total_cmp);
                [list[list.len() / 2], list[list.len() * 99 / 100]]
            });
            base.push(alone[0]);
            medians.push(filter[0] - alone[0]);
            tails.push(filter[1] - alone[1]);
        }
        let held = match cache {
            Cache::Hot | Cache::Cold => {
                let after = holds(world).await?;
                format!("{} of {}", after.long - before.long, after.all - before.all)
            }
            Cache::Zero | Cache::Absent | Cache::Any => String::new(),
        };
        println!(
            "| {name} | {} | {} | {} | {held} |",
            Spread::of(base),
            Spread::of(medians),
            Spread::of(tails),
        );
    }
    Ok(())
}

/// How often the end of a response could have had to wait, and how often it waited longer than
/// [`HOLD_MS`].
struct Holds {
    all: u64,
    long: u64,
}

/// Envoy shows histograms every few seconds only: waits until this one has an entry for each
/// classification.
async fn holds(world: &World) -> Result<Holds, String> {
    let envoy = world.envoy(Variant::Filter)?;
    let settled = poll(PATIENCE, async || {
        let stats = envoy.stats().await?;
        let ok = stats.counter("promptcache_classify_total", &[("outcome", "ok")]);
        let all = stats.counter("promptcache_terminal_hold_ms_count", &[]);
        let short = stats.counter("promptcache_terminal_hold_ms_bucket", &[("le", HOLD_MS)]);
        let long = all.saturating_sub(short);
        (all == ok).then_some(Holds { all, long })
    });
    settled
        .await
        .ok_or_else(|| "the histogram of holds misses answers".to_owned())
}
