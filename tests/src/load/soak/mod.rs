//! `load soak`: mixed requests for as long as it takes, and what memory, descriptors,
//! connections, stats and the ledger's file do meanwhile.

mod plot;
mod report;
mod run;
pub mod sample;
pub mod slope;
mod stage;
pub mod traffic;

use std::{path::PathBuf, time::Duration};

use crate::layout::Layout;

pub use report::Report;

/// How long, and how closely watched.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Requests in all.
    pub requests: u64,
    /// Decides which.
    pub seed: u64,
    /// Connections, each of which sends its next request when it has its answer.
    pub connections: usize,
    /// Pause between two samples.
    pub every: Duration,
    /// The picture.
    pub plot: Option<PathBuf>,
}

/// Runs it; `Err` when it could not be run. What was found is in the report.
pub async fn run(layout: &Layout, settings: &Settings) -> Result<Report, String> {
    let local = tokio::task::LocalSet::new();
    let report = local.run_until(run::run(layout, settings)).await?;
    if let Some(path) = &settings.plot {
        plot::draw(path, &report)?;
    }
    Ok(report)
}
