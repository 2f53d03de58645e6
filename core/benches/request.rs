//! The request path beside the plain way: a tree of the body, edited and written again, SHA-256.
//!
//! `cargo bench -p prompt-cache-core --bench request`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod corpus;

use corpus::{Kind, all, all_plain, body, edit, edit_plain, hash, hash_plain};
use divan::{Bencher, black_box, counter::BytesCount};
use prompt_cache_core::request::scan;

fn main() {
    divan::main();
}

const KINDS: [Kind; 5] = Kind::ALL;

fn run<T>(bencher: Bencher<'_, '_>, body: &[u8], work: impl Fn(&[u8]) -> T + Sync) {
    bencher
        .counter(BytesCount::of_slice(body))
        .bench(|| work(black_box(body)));
}

/// Scan, breakpoints and splice of 100 KB.
#[divan::bench(args = KINDS)]
fn edit_100k(bencher: Bencher<'_, '_>, kind: Kind) {
    run(bencher, &body(kind, 100_000), edit);
}

/// The plain way to the same bytes: parse to a tree, delete, write.
#[divan::bench(args = KINDS)]
fn edit_100k_plain(bencher: Bencher<'_, '_>, kind: Kind) {
    run(bencher, &body(kind, 100_000), edit_plain);
}

/// Scan and hash of 100 KB.
#[divan::bench(args = KINDS)]
fn hash_100k(bencher: Bencher<'_, '_>, kind: Kind) {
    run(bencher, &body(kind, 100_000), hash);
}

/// The plain way to such hashes: parse to a tree, write each message, SHA-256.
#[divan::bench(args = KINDS)]
fn hash_100k_plain(bencher: Bencher<'_, '_>, kind: Kind) {
    run(bencher, &body(kind, 100_000), hash_plain);
}

/// Everything a marked request costs, by size.
#[divan::bench(args = [1_000, 10_000, 100_000, 1_000_000])]
fn all_of_chat(bencher: Bencher<'_, '_>, bytes: usize) {
    run(bencher, &body(Kind::Chat, bytes), all);
}

/// The same, the plain way.
#[divan::bench(args = [1_000, 10_000, 100_000, 1_000_000])]
fn all_of_chat_plain(bencher: Bencher<'_, '_>, bytes: usize) {
    run(bencher, &body(Kind::Chat, bytes), all_plain);
}

/// The scan alone.
#[divan::bench(args = KINDS)]
fn scan_100k(bencher: Bencher<'_, '_>, kind: Kind) {
    run(bencher, &body(kind, 100_000), |body| {
        scan(body).unwrap().block_count()
    });
}

/// What reading without keeping anything costs in `serde_json`.
#[divan::bench(args = KINDS)]
fn scan_100k_serde_ignored(bencher: Bencher<'_, '_>, kind: Kind) {
    run(bencher, &body(kind, 100_000), |body| {
        serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
    });
}
