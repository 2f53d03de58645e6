//! `load overload` and `load soak [REQUESTS]`: see docs/reliability.md. Started by `./just`.
//!
//! Settings of `overload`, from the environment: `OVERLOAD_ROUNDS` (3), `OVERLOAD_SECONDS` of one
//! load (15), `OVERLOAD_ENVOY_CORE` (0). Of `soak`: `SOAK_SEED` (1), `SOAK_CONNECTIONS` (48),
//! `SOAK_PLOT` (file; none).

use std::{path::PathBuf, process::ExitCode, str::FromStr, time::Duration};

use prompt_cache_e2e::{
    layout::Layout,
    load::{overload, soak},
    machine,
    process::follow_parent,
};

const USAGE: &str = "usage: load overload | load soak [REQUESTS]";
const SOAK_REQUESTS: u64 = 2_000_000;
/// Pause between two samples of a soak.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);

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
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["overload"] => {
            let settings = overload::Settings {
                rounds: setting("OVERLOAD_ROUNDS", 3)?,
                time: Duration::from_secs(setting("OVERLOAD_SECONDS", 15)?),
                envoy_core: setting("OVERLOAD_ENVOY_CORE", 0)?,
            };
            overload::run(&layout, &settings).await
        }
        ["soak"] => soak(&layout, SOAK_REQUESTS).await,
        ["soak", requests] => {
            let requests = requests.parse().map_err(|_| USAGE.to_owned())?;
            soak(&layout, requests).await
        }
        _ => Err(USAGE.to_owned()),
    }
}

async fn soak(layout: &Layout, requests: u64) -> Result<(), String> {
    let settings = soak::Settings {
        requests,
        seed: setting("SOAK_SEED", 1)?,
        connections: setting("SOAK_CONNECTIONS", 48)?,
        every: SAMPLE_EVERY,
        plot: std::env::var_os("SOAK_PLOT").map(PathBuf::from),
    };
    println!("{}", machine::line(layout));
    let report = soak::run(layout, &settings).await?;
    println!("{report}");
    let wrong = [report.wrong_answers(), report.growing()].concat();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(wrong.join("; "))
}

fn setting<T: FromStr>(name: &str, default: T) -> Result<T, String> {
    match std::env::var(name) {
        Err(_) => Ok(default),
        Ok(text) => text
            .parse()
            .map_err(|_| format!("{name}={text}: no number")),
    }
}
