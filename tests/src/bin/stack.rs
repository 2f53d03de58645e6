//! `stack up` runs the whole stack in the foreground, `stack demo` shows it at work.

use std::process::ExitCode;

use prompt_cache_e2e::{
    layout::Layout,
    process::follow_parent,
    stack::{self, Settings, demo},
};

const USAGE: &str = "usage: stack up | stack demo";

// One thread: children are tied to the life of the thread that spawned them.
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
        ["up"] => {
            let settings = Settings::read(|name| std::env::var(name).ok())?;
            stack::up(&layout, &settings).await
        }
        ["demo"] => demo::run(&layout).await,
        _ => Err(USAGE.to_owned()),
    }
}
