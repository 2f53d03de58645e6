//! Entry point of `prompt-cache-index`: parses the command line and hands over to the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use prompt_cache_index::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
