//! What the benchmarks run on, natively and inside Envoy's VM: bodies, our way, the plain way.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod bodies;
pub mod cases;
mod ways;

pub use bodies::{Kind, body, deltas};
pub use ways::{all, all_plain, edit, edit_plain, hash, hash_plain, read_events_plain, rewriter};
