//! `./just bench-tokens`: counting tokens beside other tokenizers, and the classification of a cold
//! prompt over HTTP. Prints Markdown.

mod route;
mod texts;
mod ways;

use std::hint::black_box;
use std::time::Duration;

use cpu_time::ThreadTime;
use prompt_cache_index::tokens::Encoding;
use texts::Kind;

const SIZES: [usize; 3] = [4 << 10, 40 << 10, 400 << 10];
/// Shortest time of one measurement, on the thread's own clock: what others do on the machine
/// counts only by the caches they take.
const SAMPLE: Duration = Duration::from_millis(40);

fn main() {
    let rounds: usize = std::env::var("BENCH_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(5);
    for encoding in [Encoding::O200kBase, Encoding::Cl100kBase] {
        tokenizers_table(encoding, rounds);
    }
    hostile_table(Encoding::O200kBase);
    route::table(rounds * 20);
}

/// Milliseconds for texts that break tokenizers, at two sizes: eight times the text must not take
/// much more than eight times as long. One call each; ways that are slow on the small one are
/// left out of the large one.
fn hostile_table(encoding: Encoding) {
    const SMALL: usize = 128 << 10;
    const LARGE: usize = 1 << 20;
    const LARGE_SECONDS_MAX: f64 = 4.0;
    let mut ways = ways::all(encoding);
    // Its regex engine overflows its stack on a megabyte of spaces, and the crate panics.
    ways.retain(|way| way.name != ways::TIKTOKEN);
    println!(
        "\n`{}`, hostile texts: ms for 128 KiB → 1 MiB\n",
        encoding.as_str()
    );
    let names: Vec<&str> = ways.iter().map(|way| way.name).collect();
    println!("| text | {} |", names.join(" | "));
    println!("|---|{}", "--:|".repeat(ways.len()));
    for (name, pattern) in texts::HOSTILE {
        let seconds = |way: &ways::Way, bytes: usize| {
            let text = pattern.repeat(bytes / pattern.len());
            let start = ThreadTime::now();
            black_box((way.count)(black_box(&text)));
            start.elapsed().as_secs_f64()
        };
        let cells: Vec<String> = ways
            .iter()
            .map(|way| {
                let small = seconds(way, SMALL);
                // Quadratic growth would make it this long.
                if small * 64.0 > LARGE_SECONDS_MAX * 4.0 {
                    return format!("{:.1} → not run", small * 1e3);
                }
                let large = seconds(way, LARGE);
                format!(
                    "{:.1} → {:.1} ({:.1}×)",
                    small * 1e3,
                    large * 1e3,
                    large / small
                )
            })
            .collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
}

/// MB/s of every way on every text, and how many times as fast as the reference each is.
fn tokenizers_table(encoding: Encoding, rounds: usize) {
    let ways = ways::all(encoding);
    println!(
        "\n`{}`: MB/s, and × {}\n",
        encoding.as_str(),
        ways::REFERENCE
    );
    let names: Vec<&str> = ways.iter().map(|way| way.name).collect();
    println!("| text | bytes | {} |", names.join(" | "));
    println!("|---|--:|{}", "--:|".repeat(ways.len()));
    let mut worst = f64::INFINITY;
    for kind in Kind::ALL {
        for bytes in SIZES {
            let text = texts::text(kind, bytes, 0);
            let tokens = (ways[0].count)(&text);
            for way in &ways {
                assert_eq!((way.count)(&text), tokens, "{} on {kind:?}", way.name);
            }
            let samples = measure(&ways, &text, rounds);
            let cells: Vec<String> = (0..ways.len())
                .map(|i| {
                    let speed = median(samples.iter().map(|round| bytes as f64 / round[i] / 1e6));
                    let ratio = median(samples.iter().map(|round| round[0] / round[i]));
                    if ways[i].name == ways::OURS {
                        worst = worst.min(ratio);
                    }
                    format!("{speed:.1} ({ratio:.1}×)")
                })
                .collect();
            println!("| {} | {bytes} | {} |", kind.as_str(), cells.join(" | "));
        }
    }
    let met = if worst >= 5.0 { "yes" } else { "no" };
    println!(
        "\n{}, the slowest ratio to {}: {worst:.1} (bar: 5.0, met: {met})",
        ways::OURS,
        ways::REFERENCE
    );
}

/// Seconds per call: for each round, those of every way. Every other round runs in reverse.
fn measure(ways: &[ways::Way], text: &str, rounds: usize) -> Vec<Vec<f64>> {
    let one = |way: &ways::Way| {
        let start = ThreadTime::now();
        let mut calls = 0;
        while calls == 0 || start.elapsed() < SAMPLE {
            black_box((way.count)(black_box(text)));
            calls += 1;
        }
        start.elapsed().as_secs_f64() / f64::from(calls)
    };
    (0..rounds)
        .map(|round| {
            let mut seconds = vec![0.0; ways.len()];
            let mut order: Vec<usize> = (0..ways.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for i in order {
                seconds[i] = one(&ways[i]);
            }
            seconds
        })
        .collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
