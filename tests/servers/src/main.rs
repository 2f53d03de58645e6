//! `with-stores COMMAND…`: starts PostgreSQL, Redis and a three-node Redis Cluster, runs the
//! command with their URLs in the environment, ends the servers, and exits like the command.
//! `with-stores --check` only says whether everything for that is installed.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode};

use prompt_cache_test_servers::postgres::Postgres;
use prompt_cache_test_servers::process::find;
use prompt_cache_test_servers::redis::{Cluster, Redis};

/// Exit code when something to run is missing.
const EXIT_MISSING: u8 = 3;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprintln!("usage: with-stores --check | COMMAND [ARGUMENT…]");
        return ExitCode::from(2);
    };
    for (name, is_installed) in [
        ("PostgreSQL", Postgres::is_installed()),
        ("Redis", Redis::is_installed()),
        ("openssl", find(&["openssl"], &[]).is_some()),
        ("setpriv", find(&["setpriv"], &[]).is_some()),
    ] {
        if !is_installed {
            eprintln!("{name} is not installed");
            return ExitCode::from(EXIT_MISSING);
        }
    }
    if program == "--check" {
        return ExitCode::SUCCESS;
    }
    let postgres = Postgres::start();
    let redis = Redis::start();
    let cluster = Cluster::start(0);
    let status = Command::new(program)
        .args(words)
        .env("TEST_POSTGRES_URL", postgres.url())
        .env("TEST_REDIS_URL", redis.url())
        .env("TEST_REDIS_CLUSTER_URLS", cluster.urls())
        .status();
    match status {
        Ok(status) => {
            let code = status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        Err(error) => {
            eprintln!("with-stores: {error}");
            ExitCode::FAILURE
        }
    }
}
