//! What planning one request allocates: the column `max alloc` is the most it holds at once,
//! beside the body itself.
//!
//! `cargo bench -p prompt-cache-core --bench memory`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod corpus;

use corpus::cases::Planning;
use divan::{AllocProfiler, Bencher, counter::BytesCount};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// Scan, markers, hashes, candidates and the edited body of a chat.
#[divan::bench(args = [10_000, 100_000, 1_000_000])]
fn plan(bencher: Bencher<'_, '_>, bytes: usize) {
    let planning = Planning::of(bytes);
    bencher
        .counter(BytesCount::of_slice(&planning.body))
        .bench_local(|| planning.run());
}
