//! `bench core` times `core` natively and inside Envoy's VM; `bench system` compares Envoy with
//! and without the filter under load. Both print Markdown. Started by `./just`, which pins them.
//!
//! Settings, from the environment: `BENCH_ROUNDS` (5), `BENCH_SECONDS` of one measurement (2),
//! `BENCH_ONLY` (of `requests`, `streams`, `flood`, `latency`; all), `BENCH_ENVOY_CORE` (0),
//! `BENCH_OTHER_FILTER` (absolute path of another build of the filter; none), `BENCH_PLOT` (file
//! that the requests' ratios are drawn in, as SVG; none).

mod answer;
mod client;
mod core_table;
mod envoys;
mod latency;
mod plot;
mod prompts;
mod requests;
mod streams;
mod upstream;
mod vm;
mod world;

use std::{path::PathBuf, process::ExitCode};

use prompt_cache_e2e::{layout::Layout, process::follow_parent};

// The very cases of the native benchmarks.
#[path = "../../../core/benches/corpus/mod.rs"]
mod corpus;

/// How long and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Rounds: in each, every variant is measured once.
    pub rounds: usize,
    /// Duration of one measurement, in seconds.
    pub seconds: f64,
    /// The one part to run, if not all.
    pub only: Option<String>,
    /// The core that every Envoy runs on.
    pub envoy_core: usize,
    /// Another build of the filter to run beside this one.
    pub other_filter: Option<PathBuf>,
    /// Where to draw the requests' ratios.
    pub plot: Option<PathBuf>,
}

// One thread: children are tied to the life of the thread that spawned them, and the load must
// not take more than the core it is pinned to.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    follow_parent().map_err(|e| format!("cannot follow the parent process: {e}"))?;
    let layout = Layout::of_program()?;
    let settings = Settings::read()?;
    match std::env::args().nth(1).as_deref() {
        Some("core") => core_table::print(&layout, &settings).await,
        Some("system") => world::run(&layout, &settings).await,
        _ => Err("usage: bench core | bench system".to_owned()),
    }
}

impl Settings {
    fn read() -> Result<Self, String> {
        Ok(Self {
            rounds: number("BENCH_ROUNDS", 5)?,
            seconds: number("BENCH_SECONDS", 2.0)?,
            only: std::env::var("BENCH_ONLY").ok(),
            envoy_core: number("BENCH_ENVOY_CORE", 0)?,
            other_filter: std::env::var_os("BENCH_OTHER_FILTER").map(PathBuf::from),
            plot: std::env::var_os("BENCH_PLOT").map(PathBuf::from),
        })
    }

    /// Whether the part called `name` is to run.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == name)
    }
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> Result<T, String> {
    match std::env::var(name) {
        Err(_) => Ok(default),
        Ok(text) => text
            .parse()
            .map_err(|_| format!("{name}={text}: no number")),
    }
}
