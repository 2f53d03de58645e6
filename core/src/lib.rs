//! The host-free logic of prompt-cache-filter: no I/O, no clock, no proxy-wasm.
//!
//! Builds natively (the index service, the tests) and for wasm32 (the filter). See
//! `docs/architecture.md` for the map and the invariants.
#![forbid(unsafe_code)]

pub mod api;
pub mod config;
pub mod edge;
pub mod ledger;
mod object;
mod order;
pub mod prefix_hash;
pub mod request;
pub mod response;
pub mod wire;

pub use prefix_hash::PrefixHash;
