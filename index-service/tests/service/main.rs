//! The real router on a loopback port, with a clock that the tests move and a store that they
//! can break.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod accounts;
mod apis;
mod classification;
mod commits;
mod counting;
mod faults;
mod harness;
mod hostile;
mod http;
mod leases;
#[path = "../sources/files.rs"]
mod model_files;
mod reload;
mod simulation;
mod status;
mod worked_examples;
