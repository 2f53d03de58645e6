//! Entry point of `prompt-cache-index`: parses the command line and hands over to the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use prompt_cache_index::cli::Cli;
use prompt_cache_index::version::Build;

/// The C library's allocator keeps what a burst of work took, and what dies at different ages leaves
/// holes that it fills badly: memory then creeps up under a steady load (docs/reliability.md, Soak).
/// This one keeps sizes apart and gives unused pages back.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Set by `just build` and by the Dockerfile.
    let build = Build::of(option_env!("PROMPT_CACHE_GIT_COMMIT"));
    Cli::parse().run(build)
}
