//! `chaos MINUTES SEED [STORE]`: the whole system under load while everything around it fails,
//! and a checker that knows only the rules. Exit code 1 when a promise was broken.
//!
//! `--plant LIE` makes one part lie, to see the checker find it out: then the exit code is 0 only
//! if it did.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod answer;
mod books;
mod caller;
mod clock;
mod delivered;
mod episode;
mod journal;
mod judge;
mod ledger;
mod listener;
mod llm;
mod plant;
mod prompt;
mod replica;
mod script;
mod settings;
mod split;
mod stage;
mod starved;
mod store;
mod ways;
mod weather;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use prompt_cache_e2e::{layout::Layout, process::follow_parent};

use episode::{Episode, play};
use journal::Journal;
use settings::Settings;

/// About the length of an episode.
const EPISODE: Duration = Duration::from_secs(110);

// One thread: children are tied to the life of the thread that spawned them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as it should be.
async fn run() -> Result<bool, String> {
    follow_parent().map_err(|e| format!("cannot follow the parent process: {e}"))?;
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let settings = Settings::read(&arguments)?;
    let layout = Layout::of_program()?;
    if !replica::clocks_move() {
        println!("clocks: stand still, libfaketime is not installed");
    }
    let begin = Instant::now();
    let mut journal = Journal::default();
    for (number, episode) in episodes(&settings).iter().enumerate() {
        println!(
            "episode {number}: {} store, leases {}, {} s, seed {}",
            episode.store.as_str(),
            if episode.leases { "on" } else { "off" },
            episode.time.as_secs(),
            episode.seed
        );
        let books = play(&layout, episode).await?;
        let state = books.lock();
        println!(
            "  {} requests, {} prefixes paid for, {} violations",
            state.journal.counted("requests"),
            state.ledger.len(),
            state.journal.violations()
        );
        journal.absorb(&state.journal);
    }
    println!(
        "\nseed {}, {:.1} minutes",
        settings.seed,
        begin.elapsed().as_secs_f64() / 60.0
    );
    for (what, count) in journal.counts() {
        println!("{count:>9}  {what}");
    }
    for (what, value) in journal.largest() {
        println!("{value:>9}  {what} at most");
    }
    println!("{:>9}  violations", journal.violations());
    if settings.plant.is_some() {
        return Ok(journal.violations() > 0);
    }
    let all = [judge::Ended::Read, judge::Ended::Created];
    if let Some(missing) = all
        .iter()
        .find(|ended| journal.counted(ended.as_str()) == 0)
    {
        return Err(format!("nothing was seen: no {}", missing.as_str()));
    }
    Ok(journal.violations() == 0)
}

/// Each store in turn, with leases and without.
fn episodes(settings: &Settings) -> Vec<Episode> {
    let stores = settings.stores();
    let wanted = settings.time.as_secs_f64() / EPISODE.as_secs_f64();
    let rounds = (wanted / stores.len() as f64).round().max(1.0) as usize;
    let count = rounds * stores.len();
    let mut random = fastrand::Rng::with_seed(settings.seed);
    (0..count)
        .map(|number| Episode {
            seed: random.u64(..1 << 32),
            store: stores[number % stores.len()],
            time: settings.time / u32::try_from(count).unwrap_or(1),
            // Alternates for each store, beginning with what shows more.
            leases: (number / stores.len() + number % stores.len()) % 2 == 1,
            plant: settings.plant,
        })
        .collect()
}
