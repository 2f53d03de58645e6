//! `accounts`: list, add, remove, and the fingerprint of a key. Never prints a key. The same for a
//! file and for the table in PostgreSQL.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::Fingerprint;

use super::{Failed, block_on};
use crate::accounts::Account;
use crate::config::accounts_file::AccountsFile;
use crate::config::{AccountsConfig, Config};
use crate::store::postgres::AccountsTable;

/// Longest credential or fingerprint key that is read.
const SECRET_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Subcommand)]
pub(super) enum AccountsCommand {
    /// One line per key: account, fingerprint.
    List(PlaceArgs),
    /// Add an account, or keys to one.
    Add {
        #[command(flatten)]
        place: PlaceArgs,
        /// Name of the account.
        #[arg(long, value_name = "NAME")]
        account: String,
        /// Fingerprint of a credential; may be given several times.
        #[arg(long = "fingerprint", value_name = "HEX", value_parser = fingerprint)]
        fingerprints: Vec<Fingerprint>,
        /// Fingerprint of a credential that cached before it had an account, and whose entries
        /// the account takes over. Only for a new account.
        #[arg(long, value_name = "HEX", value_parser = fingerprint)]
        continues: Option<Fingerprint>,
    },
    /// Remove an account, or keys of one.
    Remove {
        #[command(flatten)]
        place: PlaceArgs,
        /// Name of the account.
        #[arg(long, value_name = "NAME")]
        account: String,
        /// Remove only this key; may be given several times.
        #[arg(long = "fingerprint", value_name = "HEX", value_parser = fingerprint)]
        fingerprints: Vec<Fingerprint>,
    },
    /// Print the fingerprint of the credential on standard input, as the filter computes it.
    Fingerprint {
        /// File that holds the filter's `fingerprint_key`. White space around it is ignored.
        #[arg(long, value_name = "FILE")]
        key_file: PathBuf,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct PlaceArgs {
    /// The accounts file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The service's configuration, which says where its accounts are: in a file or a table.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Where accounts are kept.
enum Place {
    File(PathBuf),
    Table(AccountsTable),
}

impl Place {
    fn of(config: &Config) -> Result<Option<Self>, Failed> {
        Ok(match &config.accounts {
            AccountsConfig::None => None,
            AccountsConfig::File(file) => Some(Self::File(file.clone())),
            AccountsConfig::Table(postgres) => {
                let table = AccountsTable::open(postgres).map_err(Failed::other)?;
                Some(Self::Table(table))
            }
        })
    }

    fn read(&self) -> Result<Vec<Account>, Failed> {
        match self {
            Self::File(file) => Ok(AccountsFile::load(file)?.accounts),
            Self::Table(table) => block_on(table.read())?.map_err(Failed::other),
        }
    }

    fn edit(
        &self,
        change: impl FnOnce(&mut Vec<Account>) -> Result<(), String>,
    ) -> Result<(), Failed> {
        match self {
            Self::File(path) => {
                let mut file = AccountsFile::load_or_new(path)?;
                change(&mut file.accounts).map_err(Failed::Other)?;
                Ok(file.save()?)
            }
            Self::Table(table) => block_on(table.edit(change))?.map_err(Failed::other),
        }
    }
}

impl PlaceArgs {
    fn place(self) -> Result<Place, Failed> {
        match (self.file, self.config) {
            (Some(file), _) => Ok(Place::File(file)),
            (None, Some(config)) => Place::of(&Config::load(&config)?)?
                .ok_or_else(|| Failed::other("the configuration names no accounts")),
            (None, None) => Err(Failed::other("--file or --config is needed")),
        }
    }
}

/// The accounts of the service with that configuration.
pub(super) fn configured(config: &Config) -> Result<Vec<Account>, Failed> {
    Place::of(config)?.map_or_else(|| Ok(Vec::new()), |place| place.read())
}

impl AccountsCommand {
    pub(super) fn run(self) -> Result<(), Failed> {
        match self {
            Self::List(place) => list(&place.place()?.read()?),
            Self::Add {
                place,
                account,
                fingerprints,
                continues,
            } => place
                .place()?
                .edit(|accounts| add(accounts, account, fingerprints, continues)),
            Self::Remove {
                place,
                account,
                fingerprints,
            } => place
                .place()?
                .edit(|accounts| remove(accounts, &account, &fingerprints)),
            Self::Fingerprint { key_file } => print_fingerprint(&key_file),
        }
    }
}

fn list(accounts: &[Account]) -> Result<(), Failed> {
    let mut out = std::io::stdout().lock();
    for account in accounts {
        if account.keys.is_empty() {
            writeln!(out, "{}\t-", account.name).map_err(Failed::other)?;
        }
        for key in &account.keys {
            writeln!(out, "{}\t{key}", account.name).map_err(Failed::other)?;
        }
    }
    Ok(())
}

fn add(
    accounts: &mut Vec<Account>,
    name: String,
    keys: Vec<Fingerprint>,
    continues: Option<Fingerprint>,
) -> Result<(), String> {
    match accounts.iter_mut().find(|account| account.name == name) {
        Some(_) if continues.is_some() => {
            Err("the account exists: --continues would take its entries away".to_owned())
        }
        Some(account) => {
            account.keys.extend(keys);
            Ok(())
        }
        None => {
            accounts.push(Account {
                name,
                keys,
                continues,
            });
            Ok(())
        }
    }
}

fn remove(accounts: &mut Vec<Account>, name: &str, keys: &[Fingerprint]) -> Result<(), String> {
    let Some(account) = accounts.iter_mut().find(|account| account.name == name) else {
        return Err("there is no such account".to_owned());
    };
    if keys.is_empty() {
        accounts.retain(|account| account.name != name);
        return Ok(());
    }
    if let Some(missing) = keys.iter().find(|key| !account.keys.contains(key)) {
        return Err(format!("{missing} is not a key of {name:?}"));
    }
    account.keys.retain(|key| !keys.contains(key));
    Ok(())
}

fn print_fingerprint(key_file: &Path) -> Result<(), Failed> {
    let named = |error| Failed::other(format!("{}: {error}", key_file.display()));
    let key = secret(std::fs::File::open(key_file).map_err(named)?)?;
    let credential = secret(std::io::stdin())?;
    if credential.is_empty() {
        return Err(Failed::other("standard input holds no credential"));
    }
    let fingerprint = Fingerprint::of(&key, &credential)
        .ok_or_else(|| Failed::other("the fingerprint cannot be computed"))?;
    writeln!(std::io::stdout(), "{fingerprint}").map_err(Failed::other)
}

fn secret(from: impl std::io::Read) -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::new();
    let mut limited = from.take(SECRET_BYTES_MAX);
    limited.read_to_end(&mut bytes).map_err(Failed::other)?;
    Ok(bytes.trim_ascii().to_vec())
}

/// 64 hex digits.
pub(super) fn fingerprint(hex: &str) -> Result<Fingerprint, String> {
    PrefixHash::from_hex(hex)
        .map(|hash| Fingerprint::new(*hash.as_bytes()))
        .ok_or_else(|| "a fingerprint is 64 hex digits".to_owned())
}
