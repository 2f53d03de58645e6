//! Who may cache, and whose entries a credential uses.

use std::sync::{Arc, PoisonError, RwLock};

use prompt_cache_core::ledger::Fingerprint;

use crate::accounts::AccountMap;
use crate::config::PrincipalsConfig;
use crate::store::StoreError;

/// Who is served.
#[derive(Clone, Debug)]
pub struct Holder {
    /// What the entries are kept under.
    pub owner: Fingerprint,
    /// The account's name, if there is an account.
    pub account: Option<Arc<str>>,
}

/// The principals this service serves.
#[derive(Debug)]
pub struct Principals {
    config: PrincipalsConfig,
    /// `None` before they have been read for the first time.
    accounts: RwLock<Option<Arc<AccountMap>>>,
}

impl Principals {
    /// As configured, without accounts.
    pub fn new(config: PrincipalsConfig) -> Self {
        Self {
            config,
            accounts: RwLock::new(Some(Arc::default())),
        }
    }

    /// As configured; nobody is served before the first [`Self::replace`], because a credential
    /// that has an account would be taken for one that has none.
    pub fn awaiting_accounts(config: PrincipalsConfig) -> Self {
        Self {
            config,
            accounts: RwLock::new(None),
        }
    }

    /// Whether it is known who has an account.
    ///
    /// # Errors
    /// Before the first map of [`Self::awaiting_accounts`].
    pub fn check_loaded(&self) -> Result<(), StoreError> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        match *accounts {
            Some(_) => Ok(()),
            None => Err(StoreError::Failed(
                "the accounts have not been read yet".to_owned(),
            )),
        }
    }

    /// What the entries of `fingerprint` are kept under, or `None` when it is refused. Without an
    /// account every fingerprint is its own.
    pub fn account_of(&self, fingerprint: &Fingerprint) -> Option<Fingerprint> {
        self.holder_of(fingerprint).map(|holder| holder.owner)
    }

    /// The same, with the account's name.
    pub fn holder_of(&self, fingerprint: &Fingerprint) -> Option<Holder> {
        if let Some(owner) = self.accounts().owner_of(fingerprint) {
            return Some(Holder {
                owner: owner.fingerprint,
                account: Some(Arc::clone(&owner.name)),
            });
        }
        let owner = match &self.config {
            PrincipalsConfig::Any => Some(*fingerprint),
            PrincipalsConfig::Known(known) => known.get(fingerprint).copied(),
        };
        owner.map(|owner| Holder {
            owner,
            account: None,
        })
    }

    /// Whether there is an account of that name.
    pub fn has_account(&self, name: &str) -> bool {
        self.accounts().get(name).is_some()
    }

    /// Takes another account map; requests in flight finish with the one they began with.
    pub fn replace(&self, accounts: AccountMap) {
        *self
            .accounts
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(accounts));
    }

    /// Digest of who owns what.
    pub fn digest(&self) -> [u8; 32] {
        self.accounts().digest()
    }

    /// Everything the account of that name may have entries under: its own fingerprint, and
    /// those of its keys from before they had an account.
    pub fn owned_by_account(&self, name: &str) -> Option<Vec<Fingerprint>> {
        let accounts = self.accounts();
        let account = accounts.get(name)?;
        Some(
            std::iter::once(account.owner())
                .chain(account.keys.iter().copied())
                .collect(),
        )
    }

    /// Everything this credential may have entries under: its own fingerprint, and its account's.
    pub fn owned_by(&self, fingerprint: &Fingerprint) -> Vec<Fingerprint> {
        let accounts = self.accounts();
        let owner = accounts
            .owner_of(fingerprint)
            .map(|owner| owner.fingerprint);
        std::iter::once(*fingerprint).chain(owner).collect()
    }

    fn accounts(&self) -> Arc<AccountMap> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.as_ref().map(Arc::clone).unwrap_or_default()
    }
}
