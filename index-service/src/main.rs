//! Entry point of `prompt-cache-index`: parses the command line and hands over to the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use prompt_cache_index::cli::Cli;
use prompt_cache_index::version::Build;

fn main() -> ExitCode {
    // Set by `just build` and by the Dockerfile.
    let build = Build::of(option_env!("PROMPT_CACHE_GIT_COMMIT"));
    Cli::parse().run(build)
}
