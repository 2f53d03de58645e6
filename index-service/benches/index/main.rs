//! `./just bench-index`: the service with ledgers of growing size, one table in Markdown.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `BENCH_STORES` | `embedded postgres redis` | kinds of stores; the servers come with the recipe |
//! | `BENCH_ENTRIES` | `10000 1000000 10000000` | live entries of each ledger |
//! | `BENCH_SERVER_ENTRIES_MAX` | 1000000 | the same on PostgreSQL and Redis, at most |
//! | `BENCH_ROUNDS` | 5 | how often each route is measured |
//! | `BENCH_SECONDS` | 1 | duration of one measurement |
//! | `BENCH_SERVICE_CORE` | 0 | the core of the service |
//! | `BENCH_DIR` | the system's | where the ledgers are made |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod client;
mod kind;
mod ledger;
mod service;

use std::time::Duration;

use client::{Load, Measured};
use kind::StoreKind;
use ledger::Ledger;
use service::Service;

/// Bytes of a record's own information: hash, count, tier, expiry.
const RECORD_BYTES: u64 = 32 + 4 + 1 + 8;

fn main() {
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    let stores = setting("BENCH_STORES", "embedded postgres redis");
    let sizes = setting("BENCH_ENTRIES", "10000 1000000 10000000");
    let rounds: usize = setting("BENCH_ROUNDS", "5").parse().unwrap();
    let seconds: f64 = setting("BENCH_SECONDS", "1").parse().unwrap();
    let time = Duration::from_secs_f64(seconds);
    println!(
        "| store | entries | classify/s | per core/s | healthz per core/s | ratio | half load p50, p99 \
         | commits/s, 1 and 64 a batch | RSS | size | bytes per entry |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let is_asked = |store: &StoreKind| stores.split_whitespace().any(|name| name == store.name());
    for store in StoreKind::ALL.into_iter().filter(is_asked) {
        let sizes = sizes.split_whitespace().map(|size| size.parse().unwrap());
        for entries in sizes.filter(|entries| *entries <= store.entries_max()) {
            measure(store, entries, rounds, time);
        }
    }
}

fn measure(store: StoreKind, entries: u64, rounds: usize, time: Duration) {
    let before = store.bytes_before();
    let ledger = Ledger::fill(store, entries);
    store.settle(entries);
    let service = Service::start(&ledger.config);
    let bytes = store.bytes(&service, before);
    let per_entry = bytes / entries as f64;
    let classify = Load::new(service.addr(), ledger.classifications());
    let health = Load::new(service.addr(), vec![client::get("/healthz")]);
    // Every request once, so that each variant runs with what it needs in memory.
    classify.run(&service, time, None);
    let (mut classified, mut probed) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // In turns, each first every other round: the machine drifts.
        for first in [round % 2 == 0, round % 2 == 1] {
            if first {
                classified.push(classify.run(&service, time, None));
            } else {
                probed.push(health.run(&service, time, None));
            }
        }
    }
    let ratio = median(
        classified
            .iter()
            .zip(&probed)
            .map(|(ours, theirs)| ours.per_core() / theirs.per_core()),
    );
    let rate = median(classified.iter().map(Measured::rate));
    let half: Vec<Measured> = (0..rounds)
        .map(|_| classify.run(&service, time, Some(rate / 2.0)))
        .collect();
    let resident = service.resident_bytes();
    let one = Load::new(service.addr(), ledger.commits(1)).run(&service, time, None);
    let many = Load::new(service.addr(), ledger.commits(64)).run(&service, time, None);
    println!(
        "| {} | {entries} | {rate:.0} | {:.0} | {:.0} | {ratio:.2} | {:.0} µs, {:.0} µs | {:.0}, {:.0} \
         | {} MiB | {:.0} MiB | {:.0} ({:.2} ×) |",
        store.name(),
        median(classified.iter().map(Measured::per_core)),
        median(probed.iter().map(Measured::per_core)),
        median(half.iter().map(|m| m.latency_us(0.5))),
        median(half.iter().map(|m| m.latency_us(0.99))),
        one.rate(),
        many.rate() * 64.0,
        resident >> 20,
        bytes / f64::from(1 << 20),
        per_entry,
        per_entry / RECORD_BYTES as f64,
    );
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
