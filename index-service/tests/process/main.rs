//! The binary as an operator meets it: boot log, restart, signals, crashes, a full disk.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod crash;
mod disk;
mod harness;
mod life;
mod traces;
