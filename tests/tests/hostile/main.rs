//! Hostile clients and upstreams. What Envoy alone would answer comes back, no VM is lost, and a
//! valid request afterwards is served and counted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod answers;
mod memory;
mod pair;
mod poison;
mod requests;
mod slow;
