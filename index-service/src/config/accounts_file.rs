//! The accounts file: YAML that people and the `accounts` command edit.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use prompt_cache_core::ledger::Fingerprint;
use serde::Deserialize;

use super::error::ConfigError;
use super::yaml::parse as parse_yaml;
use crate::accounts::{Account, AccountMap};

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 256 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    accounts: Vec<RawAccount>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAccount {
    account: String,
    #[serde(default)]
    keys: Vec<Fingerprint>,
    continues: Option<Fingerprint>,
}

/// The accounts of a file, in its order.
#[derive(Debug)]
pub struct AccountsFile {
    path: PathBuf,
    /// The accounts.
    pub accounts: Vec<Account>,
}

impl AccountsFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// With the file, the key and the reason.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read(path)?, path)
    }

    /// Reads the file at `path`, or starts one that is not there yet.
    ///
    /// # Errors
    /// With the file, the key and the reason.
    pub fn load_or_new(path: &Path) -> Result<Self, ConfigError> {
        if path.exists() {
            return Self::load(path);
        }
        Ok(Self {
            path: path.to_owned(),
            accounts: Vec::new(),
        })
    }

    /// Checks `text` as the contents of the file at `path`.
    ///
    /// # Errors
    /// With the file, the key and the reason.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let raw: Raw = parse_yaml(text, path)?;
        let accounts = raw.accounts.into_iter().map(|raw| Account {
            name: raw.account,
            keys: raw.keys,
            continues: raw.continues,
        });
        let file = Self {
            path: path.to_owned(),
            accounts: accounts.collect(),
        };
        file.map().map(|_| file)
    }

    /// The accounts as a map.
    ///
    /// # Errors
    /// When they contradict each other.
    pub fn map(&self) -> Result<AccountMap, ConfigError> {
        AccountMap::new(self.accounts.clone()).map_err(|(i, reason)| {
            ConfigError::new(&self.path, Some(&format!("accounts[{i}]")), reason)
        })
    }

    /// Replaces the file at its path, all of it or nothing: a running service reads it at any
    /// time.
    ///
    /// # Errors
    /// When the accounts contradict each other or the file cannot be written.
    pub fn save(&self) -> Result<(), ConfigError> {
        self.map()?;
        let failed = |error: std::io::Error| {
            ConfigError::new(&self.path, None, format!("cannot be written: {error}"))
        };
        let new = self.path.with_extension("new");
        let mut file = File::create(&new).map_err(failed)?;
        file.write_all(self.to_yaml().as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&new, &self.path).map_err(failed)
    }

    fn to_yaml(&self) -> String {
        let mut yaml = String::from("# Edited by hand or by `prompt-cache-index accounts`.\n");
        yaml.push_str(if self.accounts.is_empty() {
            "accounts: []\n"
        } else {
            "accounts:\n"
        });
        for account in &self.accounts {
            // A JSON string is a YAML string, whatever is in it.
            let name = serde_json::Value::from(account.name.as_str());
            let _ = writeln!(yaml, "  - account: {name}");
            if let Some(continues) = account.continues {
                let _ = writeln!(yaml, "    continues: \"{continues}\"");
            }
            let _ = match account.keys.as_slice() {
                [] => writeln!(yaml, "    keys: []"),
                keys => {
                    let _ = writeln!(yaml, "    keys:");
                    keys.iter()
                        .try_for_each(|key| writeln!(yaml, "      - \"{key}\""))
                }
            };
        }
        yaml
    }
}

/// The file's text.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let failed =
        |error: std::io::Error| ConfigError::new(path, None, format!("cannot be read: {error}"));
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        let reason = format!("{bytes} bytes, at most {FILE_BYTES_MAX} are read");
        return Err(ConfigError::new(path, None, reason));
    }
    std::fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accounts.yaml");
        let key = |n: u8| Fingerprint::new([n; 32]);
        let names = ["acme", "", "a: b # \"quoted\" \u{e9}", "null", "- x"];
        let accounts: Vec<Account> = names
            .iter()
            .skip(2)
            .chain(["acme"].iter())
            .enumerate()
            .map(|(i, name)| Account {
                name: (*name).to_owned(),
                keys: (0..i as u8).map(|n| key(10 * i as u8 + n)).collect(),
                continues: (i == 2).then(|| key(200)),
            })
            .collect();
        for accounts in [Vec::new(), accounts] {
            let file = AccountsFile {
                path: path.clone(),
                accounts: accounts.clone(),
            };
            file.save().unwrap();
            assert_eq!(AccountsFile::load(&path).unwrap().accounts, accounts);
        }
    }

    #[test]
    fn a_bad_file_is_one_line_that_names_the_key() {
        let path = Path::new("a.yaml");
        let key = "ab".repeat(32);
        for (text, starts) in [
            (
                "accounts: [{account: a, keys: [xy]}]".to_owned(),
                "a.yaml: accounts[0].keys[0]: ",
            ),
            (
                "accounts: [{acount: a}]".to_owned(),
                "a.yaml: accounts[0].acount: ",
            ),
            ("acounts: []".to_owned(), "a.yaml: acounts: "),
            (
                format!("accounts: [{{account: a, keys: [{key}, {key}]}}]"),
                "a.yaml: accounts[0]: a key is listed twice",
            ),
        ] {
            let error = AccountsFile::parse(&text, path).unwrap_err().to_string();
            assert!(error.starts_with(starts), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
