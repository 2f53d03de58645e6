//! Who may cache, and whose entries a credential uses.

use std::sync::{Arc, PoisonError, RwLock};

use prompt_cache_core::wire::Fingerprint;

use crate::accounts::AccountMap;
use crate::config::PrincipalsConfig;
use crate::store::StoreError;

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
        if let Some(owner) = self.accounts().owner_of(fingerprint) {
            return Some(owner);
        }
        match &self.config {
            PrincipalsConfig::Any => Some(*fingerprint),
            PrincipalsConfig::Known(known) => known.get(fingerprint).copied(),
        }
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
        let owner = self.accounts().owner_of(fingerprint);
        std::iter::once(*fingerprint).chain(owner).collect()
    }

    fn accounts(&self) -> Arc<AccountMap> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.as_ref().map(Arc::clone).unwrap_or_default()
    }
}
