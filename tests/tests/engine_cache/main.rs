//! The engines' own caches: that they follow the ledger where requests are routed by prefix, and
//! keep tenants apart where requests are salted.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod cache_salt;
mod death;
mod fleet;
mod hit_ratio;
mod routing;
mod workload;
