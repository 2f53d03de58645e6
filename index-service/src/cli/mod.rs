//! The command line: `serve`, `check-config`, and what operators do to accounts and ledgers.

mod accounts;
mod check;
mod count;
mod health;
mod ledger;
mod places;

use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::boot;
use crate::clock::SystemClock;
use crate::config::{Config, ConfigError, StoreConfig};
use crate::telemetry;
use crate::tokens::source::SourceError;
use crate::traces::Traces;
use crate::version::Build;

/// Exit code for a configuration that the service does not start with.
const EXIT_BAD_CONFIG: u8 = 2;

/// The ledger behind the prompt-cache filter: which prefixes are live, until when, and how many
/// tokens they hold.
#[derive(Debug, Parser)]
#[command(name = "prompt-cache-index", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Serve {
        /// YAML file; without it one model, `demo`, is active and everybody is accepted.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Where to listen; port 0 takes a free one, shown in the log.
        #[arg(long, value_name = "ADDR")]
        listen: Option<SocketAddr>,
        /// Directory of the embedded store.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Show and edit accounts. A running service takes the change within seconds.
    #[command(subcommand)]
    Accounts(accounts::AccountsCommand),
    /// Remove what the configured store holds of an account, a credential or a model. The
    /// embedded store of a running service is purged by POST /v1/purge instead.
    Purge(ledger::PurgeArgs),
    /// Write all live entries of the configured store as lines of JSON.
    Export(ledger::ExportArgs),
    /// Write the entries of an export into the configured store, by the rules of a commit.
    Import(ledger::ImportArgs),
    /// Show the blocks of a request and their tokens. Nothing is sent anywhere.
    Count(count::CountArgs),
    /// Ask a running service whether it is ready: exit code 0, or 1 and one line that says why not.
    Health(health::HealthArgs),
    /// Check configuration files: exit code 0, or 2 and one line that says what is wrong.
    CheckConfig(check::CheckArgs),
    /// Print the JSON Schema of a configuration, for editors.
    Schema {
        /// Whose.
        which: check::Which,
    },
}

impl Cli {
    /// Runs the command; `build` is who serves.
    pub fn run(self, build: Build) -> ExitCode {
        match self.command {
            Command::CheckConfig(args) => finish(args.run()),
            Command::Schema { which } => finish(which.print()),
            Command::Count(args) => finish(args.run()),
            Command::Health(args) => finish(args.run()),
            Command::Accounts(command) => finish(command.run()),
            Command::Purge(args) => finish(args.run()),
            Command::Export(args) => finish(args.run()),
            Command::Import(args) => finish(args.run()),
            Command::Serve {
                config,
                listen,
                data_dir,
            } => {
                let loaded = match &config {
                    Some(path) => Config::load(path),
                    None => Config::builtin(),
                };
                let file = config.unwrap_or_else(|| "built-in defaults".into());
                let mut config = match loaded {
                    Ok(config) => config,
                    Err(error) => return bad_config(&error),
                };
                if let Some(listen) = listen {
                    config.listen = listen;
                }
                if let Some(data_dir) = data_dir {
                    match &mut config.store {
                        StoreConfig::Embedded(embedded) => embedded.data_dir = data_dir,
                        other => {
                            say(&format!("--data-dir: the store is {}", other.kind()));
                            return ExitCode::from(EXIT_BAD_CONFIG);
                        }
                    }
                }
                serve(config, &file, build)
            }
        }
    }
}

/// Why a command failed, for people.
enum Failed {
    /// A file is not what it should be: exit code 2.
    Config(ConfigError),
    /// Anything else: exit code 1.
    Other(String),
}

impl Failed {
    fn other(error: impl fmt::Display) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<ConfigError> for Failed {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// Runs `work` on this thread.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failed::other)?;
    Ok(runtime.block_on(work))
}

fn finish(outcome: Result<(), Failed>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Config(error)) => bad_config(&error),
        Err(Failed::Other(error)) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

fn bad_config(error: &ConfigError) -> ExitCode {
    say(&error.to_string());
    ExitCode::from(EXIT_BAD_CONFIG)
}

fn serve(config: Config, file: &Path, build: Build) -> ExitCode {
    let traces = match Traces::start(&config.telemetry) {
        Ok(traces) => traces,
        Err(reason) => {
            return bad_config(&ConfigError::new(file, Some("telemetry"), reason));
        }
    };
    telemetry::init(&config.log, &traces);
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| boot::BootError::Other(format!("cannot start threads: {error}")))
        .and_then(|runtime| {
            runtime.block_on(boot::serve(
                config,
                build,
                Arc::new(SystemClock),
                stop_signal(),
            ))
        });
    traces.stop();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(boot::BootError::Model(error)) => {
            finish(Err(source_error(file, error.index, &error.error)))
        }
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// A model's files that do not load are an error of the configuration.
fn source_error(file: &Path, model: usize, error: &SourceError) -> Failed {
    let key = format!("models[{model}].tokenizer");
    ConfigError::new(file, Some(&key), error.to_string()).into()
}

/// Resolves on SIGTERM or SIGINT.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        // Without handlers the default action ends the process, which the store survives.
        _ => std::future::pending().await,
    }
}

/// One line on standard error; a closed one is no reason to fail.
fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "prompt-cache-index: {message}");
}
