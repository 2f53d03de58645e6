//! `load overload`: twice what the index service can take, and twice what Envoy can take, beside
//! Envoy alone at the same load. Prints Markdown; `Err` when a promise was broken.

mod envoy_full;
mod service;
mod service_full;
mod stage;

use std::time::Duration;

use tokio::task::LocalSet;

use crate::{layout::Layout, machine};

use stage::Stage;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Rounds: in each, both Envoys are loaded once, every other time in reverse order.
    pub rounds: usize,
    /// Duration of one load.
    pub time: Duration,
    /// The core that every Envoy runs on; everything else stays where it was started.
    pub envoy_core: usize,
}

/// Runs it all.
pub async fn run(layout: &Layout, settings: &Settings) -> Result<(), String> {
    LocalSet::new().run_until(measure(layout, settings)).await
}

async fn measure(layout: &Layout, settings: &Settings) -> Result<(), String> {
    println!("{}", machine::line(layout));
    println!(
        "{} rounds of {:.0} s each; a cell is the median of the rounds (least–greatest).",
        settings.rounds,
        settings.time.as_secs_f64()
    );
    let mut stage = Stage::start(layout, settings).await?;
    let broken = [
        service_full::run(&mut stage, settings).await?,
        envoy_full::run(&mut stage, settings).await?,
    ];
    stage.stop().await;
    let broken = broken.concat();
    if broken.is_empty() {
        return Ok(());
    }
    Err(broken.join("; "))
}
