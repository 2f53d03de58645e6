//! `accounts`: list, add, remove, and the fingerprint of a key. Never prints a key.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use prompt_cache_core::PrefixHash;
use prompt_cache_core::wire::Fingerprint;

use super::Failed;
use crate::accounts::{Account, AccountsFile};

/// Longest credential or fingerprint key that is read.
const SECRET_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Subcommand)]
pub(super) enum AccountsCommand {
    /// One line per key: account, fingerprint.
    List(FileArgs),
    /// Add an account, or keys to one.
    Add {
        #[command(flatten)]
        file: FileArgs,
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
        file: FileArgs,
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
pub(super) struct FileArgs {
    /// The accounts file.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
}

impl AccountsCommand {
    pub(super) fn run(self) -> Result<(), Failed> {
        match self {
            Self::List(args) => list(&AccountsFile::load(&args.file)?),
            Self::Add {
                file,
                account,
                fingerprints,
                continues,
            } => {
                let mut accounts = AccountsFile::load_or_new(&file.file)?;
                add(&mut accounts, account, fingerprints, continues)?;
                Ok(accounts.save()?)
            }
            Self::Remove {
                file,
                account,
                fingerprints,
            } => {
                let mut accounts = AccountsFile::load(&file.file)?;
                remove(&mut accounts, &account, &fingerprints)?;
                Ok(accounts.save()?)
            }
            Self::Fingerprint { key_file } => print_fingerprint(&key_file),
        }
    }
}

fn list(file: &AccountsFile) -> Result<(), Failed> {
    let mut out = std::io::stdout().lock();
    for account in &file.accounts {
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
    file: &mut AccountsFile,
    name: String,
    keys: Vec<Fingerprint>,
    continues: Option<Fingerprint>,
) -> Result<(), Failed> {
    match file
        .accounts
        .iter_mut()
        .find(|account| account.name == name)
    {
        Some(_) if continues.is_some() => Err(Failed::other(
            "the account exists: --continues would take its entries away",
        )),
        Some(account) => {
            account.keys.extend(keys);
            Ok(())
        }
        None => {
            file.accounts.push(Account {
                name,
                keys,
                continues,
            });
            Ok(())
        }
    }
}

fn remove(file: &mut AccountsFile, name: &str, keys: &[Fingerprint]) -> Result<(), Failed> {
    let Some(account) = file
        .accounts
        .iter_mut()
        .find(|account| account.name == name)
    else {
        return Err(Failed::other("there is no such account"));
    };
    if keys.is_empty() {
        file.accounts.retain(|account| account.name != name);
        return Ok(());
    }
    if let Some(missing) = keys.iter().find(|key| !account.keys.contains(key)) {
        return Err(Failed::other(format!("{missing} is not a key of {name:?}")));
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
