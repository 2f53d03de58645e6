//! Chat templates of every family that is in wide use, in our own words: what they render, where
//! the prefixes of their conversations end, and that hostile ones stay within bounds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod boundaries;
mod bounds;
mod conversations;
mod costs;
mod golden;
#[path = "../../../core/tests/hostile_cost/linear.rs"]
mod linear;
mod passes;
mod zoo;
