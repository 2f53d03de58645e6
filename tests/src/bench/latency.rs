//! One request at a time, now through the one Envoy and now through the other: added latency.

use crate::{
    Settings,
    client::Connection,
    envoys::Variant,
    prompts::{Cache, Prompt},
    spread::Spread,
    upstream::Pace,
    world::World,
};

/// Pairs of requests in one round.
const PAIRS: usize = 400;
/// Size of the bodies, in bytes.
const BODY_BYTES: usize = 10_000;

pub async fn run(world: &World, settings: &Settings) -> Result<(), String> {
    println!(
        "\n## Latency\n\nOne connection each, requests of {} KB in turns, {PAIRS} pairs a round.\n",
        BODY_BYTES / 1000
    );
    println!("| | alone, median ms | added to the median, ms | added to the p99, ms |");
    println!("|---|--:|--:|--:|");
    for (name, pace, cache) in [
        (
            "first event of an unmarked stream",
            Pace::Short,
            Cache::Zero,
        ),
        ("first event of a hot stream", Pace::Short, Cache::Hot),
        ("whole answer, unmarked", Pace::Json, Cache::Zero),
        ("whole answer, hot", Pace::Json, Cache::Hot),
    ] {
        let marked = cache == Cache::Hot;
        let prompt = Prompt::new(BODY_BYTES, marked, pace);
        if marked {
            world.heat(Variant::Filter, &prompt).await?;
        }
        let mut alone = Connection::open(world.envoy(Variant::Alone)?.listener()).await?;
        let mut filter = Connection::open(world.envoy(Variant::Filter)?.listener()).await?;
        let (mut base, mut medians, mut tails) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..settings.rounds {
            let mut times = [Vec::new(), Vec::new()];
            for _ in 0..PAIRS {
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
        println!(
            "| {name} | {} | {} | {} |",
            Spread::of(base),
            Spread::of(medians),
            Spread::of(tails)
        );
    }
    Ok(())
}
