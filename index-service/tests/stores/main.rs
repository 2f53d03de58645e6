//! What is particular to each real store, and what the service does when one of them is away,
//! slow or full. `./just test-stores` runs these.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod accounts;
mod cluster;
mod faults;
#[path = "postgres.rs"]
mod postgres_server;
#[path = "redis.rs"]
mod redis_server;
mod samples;
mod service;
mod transfer;
