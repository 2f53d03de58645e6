//! Accounts: which credentials belong together and share what they have cached.
//!
//! An account owns entries under a fingerprint of its own, so its keys may come and go. Who has
//! no account is left to `unknown_principal`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use prompt_cache_core::ledger::Fingerprint;

/// Accounts one service may know.
pub const ACCOUNTS_MAX: usize = 1_000_000;
/// Keys of one account.
pub const KEYS_PER_ACCOUNT_MAX: usize = 1000;
/// Longest name of an account.
pub const ACCOUNT_NAME_BYTES_MAX: usize = 256;

/// One account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name, for people.
    pub name: String,
    /// Fingerprints of its credentials.
    pub keys: Vec<Fingerprint>,
    /// The fingerprint whose entries it goes on with: of a credential that cached before it had
    /// an account.
    pub continues: Option<Fingerprint>,
}

impl Account {
    /// What its entries are kept under. Depends on no key, so a key that is replaced changes
    /// nothing.
    pub fn owner(&self) -> Fingerprint {
        self.continues.unwrap_or_else(|| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(b"prompt-cache account 1");
            hasher.update(self.name.as_bytes());
            Fingerprint::new(hasher.finalize().into())
        })
    }
}

/// The account that a key belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// What its entries are kept under.
    pub fingerprint: Fingerprint,
    /// The account's name.
    pub name: Arc<str>,
}

/// All accounts, by name and by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountMap {
    accounts: HashMap<String, Account>,
    owners: HashMap<Fingerprint, Owner>,
    digest: [u8; 32],
}

impl AccountMap {
    /// The map of these accounts.
    ///
    /// # Errors
    /// With the index of the account that breaks a rule, and the rule.
    pub fn new(accounts: Vec<Account>) -> Result<Self, (usize, String)> {
        let mut map = Self::default();
        let mut owned: HashMap<Fingerprint, usize> = HashMap::new();
        for (i, account) in accounts.into_iter().enumerate() {
            map.add(account).map_err(|reason| (i, reason))?;
            if i >= ACCOUNTS_MAX {
                return Err((i, format!("more than {ACCOUNTS_MAX} accounts")));
            }
        }
        for (i, account) in map.accounts.values().enumerate() {
            if owned.insert(account.owner(), i).is_some() {
                let reason = format!("{:?} continues what another one has", account.name);
                return Err((i, reason));
            }
            // Another account's key would otherwise be read by both.
            let theirs = account
                .continues
                .and_then(|key| map.owners.get(&key))
                .is_some_and(|owner| owner.fingerprint != account.owner());
            if theirs {
                let reason = format!("{:?} continues a key of another one", account.name);
                return Err((i, reason));
            }
        }
        map.digest = digest(&map.owners);
        Ok(map)
    }

    fn add(&mut self, account: Account) -> Result<(), String> {
        let name = &account.name;
        if name.is_empty() || name.len() > ACCOUNT_NAME_BYTES_MAX {
            return Err(format!("a name has 1 to {ACCOUNT_NAME_BYTES_MAX} bytes"));
        }
        if name.chars().any(char::is_control) {
            return Err("a name has no control characters".to_owned());
        }
        if account.keys.len() > KEYS_PER_ACCOUNT_MAX {
            return Err(format!("more than {KEYS_PER_ACCOUNT_MAX} keys"));
        }
        let owner = Owner {
            fingerprint: account.owner(),
            name: Arc::from(name.as_str()),
        };
        for key in &account.keys {
            if self.owners.insert(*key, owner.clone()).is_some() {
                return Err("a key is listed twice".to_owned());
            }
        }
        match self.accounts.entry(account.name.clone()) {
            Entry::Occupied(_) => Err(format!("{:?} is listed twice", account.name)),
            Entry::Vacant(place) => {
                place.insert(account);
                Ok(())
            }
        }
    }

    /// The account of this credential, if it has one.
    pub fn owner_of(&self, key: &Fingerprint) -> Option<&Owner> {
        self.owners.get(key)
    }

    /// The account of that name.
    pub fn get(&self, name: &str) -> Option<&Account> {
        self.accounts.get(name)
    }

    /// Accounts in the map.
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Digest of who owns what: the same as long as no credential changes hands.
    pub const fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

fn digest(owners: &HashMap<Fingerprint, Owner>) -> [u8; 32] {
    let mut pairs: Vec<_> = owners
        .iter()
        .map(|(key, owner)| (key, owner.fingerprint))
        .collect();
    pairs.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for (key, owner) in pairs {
        hasher.update(key.as_bytes());
        hasher.update(owner.as_bytes());
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Fingerprint {
        Fingerprint::new([n; 32])
    }

    fn account(name: &str, keys: &[u8], continues: Option<u8>) -> Account {
        Account {
            name: name.to_owned(),
            keys: keys.iter().map(|n| key(*n)).collect(),
            continues: continues.map(key),
        }
    }

    #[test]
    fn keys_of_one_account_own_the_same_and_others_do_not() {
        let map = AccountMap::new(vec![
            account("a", &[1, 2], None),
            account("b", &[3], Some(9)),
            account("c", &[], None),
        ])
        .unwrap();
        let owner = |map: &AccountMap, n| map.owner_of(&key(n)).map(|owner| owner.fingerprint);
        assert_eq!(owner(&map, 1), owner(&map, 2));
        assert_ne!(owner(&map, 1), Some(key(1)));
        assert_eq!(owner(&map, 3), Some(key(9)));
        assert_eq!(owner(&map, 4), None);
        assert_eq!(&*map.owner_of(&key(2)).unwrap().name, "a");
        // A rotated key changes neither the owner nor another account.
        let rotated = AccountMap::new(vec![account("a", &[2, 5], None)]).unwrap();
        assert_eq!(owner(&rotated, 5), owner(&map, 1));
        assert_ne!(rotated.digest(), map.digest());
    }

    #[test]
    fn what_would_share_entries_by_mistake_is_refused() {
        let long = "n".repeat(ACCOUNT_NAME_BYTES_MAX + 1);
        let table = [
            (vec![account("", &[1], None)], "1 to 256 bytes"),
            (vec![account(&long, &[1], None)], "1 to 256 bytes"),
            (vec![account("a\n", &[1], None)], "control"),
            (vec![account("a", &[1, 1], None)], "a key is listed twice"),
            (
                vec![account("a", &[1], None), account("b", &[1], None)],
                "a key is listed twice",
            ),
            (
                vec![account("a", &[1], None), account("a", &[2], None)],
                "\"a\" is listed twice",
            ),
            (
                vec![account("a", &[1], Some(7)), account("b", &[2], Some(7))],
                "continues what another one has",
            ),
            (
                vec![account("a", &[1], None), account("b", &[2], Some(1))],
                "continues a key of another one",
            ),
        ];
        for (accounts, reason) in table {
            let refused = AccountMap::new(accounts).unwrap_err().1;
            assert!(refused.contains(reason), "{refused}");
        }
    }
}
