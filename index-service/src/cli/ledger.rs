//! `purge`, `export`, `import`: what a person does to a whole ledger.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use prompt_cache_core::ledger::Fingerprint;

use super::{Failed, block_on};
use crate::accounts::AccountMap;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::principals::Principals;
use crate::purge::{Selection, purge};
use crate::store::Store;
use crate::{boot, transfer};

#[derive(Debug, Args)]
pub(super) struct PurgeArgs {
    /// The service's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Entries of this account.
    #[arg(long, value_name = "NAME", conflicts_with = "principal")]
    account: Option<String>,
    /// Entries of the credential with this fingerprint, and of its account.
    #[arg(long, value_name = "HEX", value_parser = super::accounts::fingerprint)]
    principal: Option<Fingerprint>,
    /// Entries of this model; together with one of the others: only what matches both.
    #[arg(long, value_name = "NAME", required_unless_present_any = ["account", "principal"])]
    model: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The service's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where to write; must not exist.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The service's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// An export.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
}

impl PurgeArgs {
    pub(super) fn run(self) -> Result<(), Failed> {
        let config = Config::load(&self.config)?;
        let principals = Principals::new(config.principals.clone());
        let accounts = AccountMap::new(super::accounts::configured(&config)?);
        principals.replace(accounts.map_err(|(_, reason)| Failed::Other(reason))?);
        let owners = match (&self.account, &self.principal) {
            (Some(name), _) => Some(
                principals
                    .owned_by_account(name)
                    .ok_or_else(|| Failed::other("there is no such account"))?,
            ),
            (None, Some(principal)) => Some(principals.owned_by(principal)),
            (None, None) => None,
        };
        let selection = Selection {
            owners,
            model: self.model,
        };
        with_store(&config, async |store| {
            let purged = purge(store, &selection).await.map_err(Failed::other)?;
            print(&format!(
                "purged {} entries of {} scopes",
                purged.entries, purged.scopes
            ))
        })
    }
}

impl ExportArgs {
    pub(super) fn run(self) -> Result<(), Failed> {
        let config = Config::load(&self.config)?;
        let named = |error: std::io::Error| named(&self.out, error);
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(&self.out)
            .map_err(named)?;
        let mut out = BufWriter::new(file);
        let moved = with_store(&config, async |store| {
            let moved = transfer::export(store, SystemClock.now_ms(), &mut out).await;
            moved.map_err(Failed::other)
        })?;
        out.flush().map_err(named)?;
        out.get_ref().sync_all().map_err(named)?;
        print(&format!(
            "exported {} entries of {} scopes",
            moved.entries, moved.scopes
        ))
    }
}

impl ImportArgs {
    pub(super) fn run(self) -> Result<(), Failed> {
        let config = Config::load(&self.config)?;
        let file = File::open(&self.from).map_err(|error| named(&self.from, error))?;
        let moved = with_store(&config, async |store| {
            let lines = BufReader::new(file);
            let moved = transfer::import(store, SystemClock.now_ms(), lines).await;
            moved.map_err(|error| Failed::other(format!("{}: {error}", self.from.display())))
        })?;
        print(&format!(
            "imported {} entries of {} scopes, {} had expired",
            moved.entries, moved.scopes, moved.expired
        ))
    }
}

/// Opens the configured store, runs `work`, closes the store.
fn with_store<T>(
    config: &Config,
    work: impl AsyncFnOnce(&dyn Store) -> Result<T, Failed>,
) -> Result<T, Failed> {
    block_on(async {
        let store: Arc<dyn Store> = boot::open_store(&config.store).map_err(Failed::other)?;
        let outcome = work(&*store).await;
        store.close().await;
        outcome
    })?
}

fn named(path: &Path, error: std::io::Error) -> Failed {
    Failed::other(format!("{}: {error}", path.display()))
}

fn print(line: &str) -> Result<(), Failed> {
    writeln!(std::io::stdout(), "{line}").map_err(Failed::other)
}
