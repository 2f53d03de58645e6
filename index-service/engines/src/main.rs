//! `./just bench-engines`: embedded storage engines on the workload of the ledger, one table in
//! Markdown. Each engine runs in a process of its own, in turns.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `ENGINES` | `redb fjall` | which |
//! | `ENGINE_ENTRIES` | 1000000 | live entries |
//! | `ENGINE_ROUNDS` | 2 | how often each engine runs |
//! | `ENGINE_SECONDS` | 2 | duration of one measurement |
//! | `BENCH_DIR` | the system's | where the ledgers are made |

mod engine;
mod fjall_engine;
mod redb_engine;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::{Engine, Entry, Key};

/// Credentials that share the ledger.
const SCOPES: u64 = 1000;
/// Entries of a conversation.
const DEPTH: u64 = 4;
/// Candidates of a classification of a new prompt.
const CANDIDATES: u64 = 80;
/// Entries of one transaction while the ledger is filled.
const FILL_ENTRIES: u64 = 4096;
/// Entries that a step of a sweep removes.
const SWEEP_ENTRIES: usize = 4096;
/// Refreshes of one transaction.
const REFRESHES: u64 = 1000;

fn main() {
    let mut args = std::env::args().skip(1);
    if let Some(name) = args.next() {
        return match name.as_str() {
            "redb" => measure::<redb_engine::Redb>("redb"),
            "fjall" => measure::<fjall_engine::Fjall>("fjall"),
            other => panic!("{other}"),
        };
    }
    println!(
        "| engine | fill, entries/s | bytes per entry | known prefix, µs (p99) | new prefix, µs (p99) \
         | known prefix beside commits, µs (p99) | commits/s, 1 and 64 at once | refreshes/s \
         | size after them | swept/s | size at the end | RSS, MiB | open, ms |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let engines = setting("ENGINES", "redb fjall");
    let mut engines: Vec<&str> = engines.split_whitespace().collect();
    for _ in 0..number("ENGINE_ROUNDS", 2) {
        for engine in &engines {
            let own = std::env::current_exe().unwrap();
            assert!(Command::new(own).arg(engine).status().unwrap().success());
        }
        engines.reverse();
    }
}

fn measure<E: Engine>(name: &str) {
    let entries = number("ENGINE_ENTRIES", 1_000_000);
    let time = Duration::from_secs(number("ENGINE_SECONDS", 2));
    let root = setting("BENCH_DIR", std::env::temp_dir().to_str().unwrap());
    let dir = tempfile::tempdir_in(root).unwrap();
    let engine = E::open(dir.path());
    let mut random = fastrand::Rng::with_seed(1);

    let start = Instant::now();
    for first in (0..entries).step_by(FILL_ENTRIES as usize) {
        let batch: Vec<Entry> = (first..entries.min(first + FILL_ENTRIES))
            .map(entry)
            .collect();
        engine.write(&batch);
    }
    let filled = entries as f64 / start.elapsed().as_secs_f64();
    drop(engine);
    let start = Instant::now();
    let engine = E::open(dir.path());
    let opened = start.elapsed();
    let size = bytes(dir.path());

    let known = || {
        let n = DEPTH * fastrand::u64(0..entries / DEPTH);
        (n..n + DEPTH).map(|n| entry(n).key).collect::<Vec<Key>>()
    };
    let unknown = || {
        let n = fastrand::u64(entries << 1..u64::MAX >> 1);
        (n..n + CANDIDATES).map(|n| entry(n).key).collect()
    };
    let warm = reads(&engine, time, &known, DEPTH);
    drop(warm);
    let hot = reads(&engine, time, &known, DEPTH);
    let cold = reads(&engine, time, &unknown, 0);
    let resident = resident_bytes();

    let mut next = entries;
    let mut commits = |at_once: u64, until: &dyn Fn() -> bool| {
        let (start, mut done) = (Instant::now(), 0);
        while !until() {
            let count = at_once * DEPTH;
            let batch: Vec<Entry> = (next..next + count).map(entry).collect();
            engine.write(&batch);
            next += count;
            done += at_once;
        }
        done as f64 / start.elapsed().as_secs_f64()
    };
    let for_a_time = |time: Duration| {
        let end = Instant::now() + time;
        move || Instant::now() >= end
    };
    let one = commits(1, &for_a_time(time));
    let many = commits(64, &for_a_time(time));
    let is_over = AtomicBool::new(false);
    let beside = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let latencies = reads(&engine, time, &known, DEPTH);
            is_over.store(true, Ordering::SeqCst);
            latencies
        });
        commits(1, &|| is_over.load(Ordering::SeqCst));
        reader.join().unwrap()
    });

    let (start, mut refreshed) = (Instant::now(), 0);
    while start.elapsed() < time {
        let keys: Vec<Key> = (0..REFRESHES)
            .map(|_| entry(random.u64(0..entries)).key)
            .collect();
        engine.refresh(&keys, [7; 10]);
        refreshed += REFRESHES;
    }
    let refreshed = refreshed as f64 / start.elapsed().as_secs_f64();
    let churned = bytes(dir.path());

    let (start, mut swept) = (Instant::now(), 0);
    while start.elapsed() < time {
        let removed = engine.sweep(SWEEP_ENTRIES);
        assert!(removed > 0, "nothing is left to sweep");
        swept += removed;
    }
    let swept = swept as f64 / start.elapsed().as_secs_f64();
    drop(engine);
    let mib = f64::from(1 << 20);
    println!(
        "| {name} | {filled:.0} | {:.0} | {} | {} | {} | {one:.0}, {many:.0} | {refreshed:.0} \
         | {:.0} MiB | {swept:.0} | {:.0} MiB | {:.0} | {:.0} |",
        size / entries as f64,
        shown(hot),
        shown(cold),
        shown(beside),
        churned / mib,
        bytes(dir.path()) / mib,
        resident / mib,
        opened.as_secs_f64() * 1e3,
    );
}

/// Times of look-ups, each of which must find so many.
fn reads<E: Engine>(
    engine: &E,
    time: Duration,
    keys: &impl Fn() -> Vec<Key>,
    expected: u64,
) -> Vec<Duration> {
    let end = Instant::now() + time;
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let keys = keys();
        let start = Instant::now();
        let found = engine.find(&keys);
        latencies.push(start.elapsed());
        assert_eq!(found as u64, expected);
    }
    latencies
}

/// Median and p99, in microseconds.
fn shown(mut latencies: Vec<Duration>) -> String {
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    format!("{:.1} ({:.1})", micros(at(0.5)), micros(at(0.99)))
}

/// Entry `n`; its place has nothing to do with its number, nor has its expiry with its place.
fn entry(n: u64) -> Entry {
    let mut random = fastrand::Rng::with_seed(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut key = [0; 36];
    random.fill(&mut key);
    let scope = u32::try_from(n / DEPTH % SCOPES).unwrap();
    key[..4].copy_from_slice(&scope.to_be_bytes());
    let mut value = [0; 10];
    random.fill(&mut value);
    let mut due = [0; 12];
    due[..4].copy_from_slice(&random.u32(0..3600).to_be_bytes());
    due[4..].copy_from_slice(&key[..8]);
    Entry { key, value, due }
}

/// Disk that the folder takes, without holes.
fn bytes(dir: &Path) -> f64 {
    use std::os::unix::fs::MetadataExt as _;
    let files = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let sizes = files.map(|file| match file.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes(&file.path()),
        Ok(metadata) => (metadata.blocks() * 512) as f64,
        // A file that a compaction has just removed.
        Err(_) => 0.0,
    });
    sizes.sum()
}

fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn number(name: &str, default: u64) -> u64 {
    setting(name, &default.to_string()).parse().unwrap()
}
