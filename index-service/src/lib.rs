//! The index service: which prefixes are live, until when, and how many tokens they hold.
//!
//! The filter asks it to classify a request and later commits what a successful request earned.
//! `docs/configuration-index.md` is the reference of its configuration, metrics and HTTP API.
#![forbid(unsafe_code)]

pub mod accounts;
pub mod announce;
pub mod bearer;
pub mod boot;
pub mod classify;
pub mod cli;
pub mod clock;
pub mod commit;
pub mod config;
pub mod connections;
pub mod count;
pub mod drift;
pub mod gates;
pub mod http;
mod leased;
pub mod metrics;
pub mod policy;
pub mod principals;
pub mod purge;
pub mod readiness;
pub mod refresh;
pub mod registry;
pub mod server;
pub mod state;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod tokens;
pub mod traces;
pub mod transfer;
pub mod upkeep;
pub mod version;
