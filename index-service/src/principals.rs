//! Who may cache, and whose entries a credential uses.

use std::sync::{Arc, PoisonError, RwLock};

use prompt_cache_core::wire::Fingerprint;

use crate::accounts::AccountMap;
use crate::config::PrincipalsConfig;

/// The principals this service serves.
#[derive(Debug)]
pub struct Principals {
    config: PrincipalsConfig,
    accounts: RwLock<Arc<Mapped>>,
}

#[derive(Debug, Default)]
struct Mapped {
    accounts: AccountMap,
    digest: [u8; 32],
}

impl Principals {
    /// As configured, without accounts yet.
    pub fn new(config: PrincipalsConfig) -> Self {
        Self {
            config,
            accounts: RwLock::default(),
        }
    }

    /// What the entries of `fingerprint` are kept under, or `None` when it is refused. Without an
    /// account every fingerprint is its own.
    pub fn account_of(&self, fingerprint: &Fingerprint) -> Option<Fingerprint> {
        if let Some(owner) = self.mapped().accounts.owner_of(fingerprint) {
            return Some(owner);
        }
        match &self.config {
            PrincipalsConfig::Any => Some(*fingerprint),
            PrincipalsConfig::Known(known) => known.get(fingerprint).copied(),
        }
    }

    /// Takes another account map; requests in flight finish with the one they began with.
    pub fn replace(&self, accounts: AccountMap) {
        let digest = accounts.digest();
        let mapped = Arc::new(Mapped { accounts, digest });
        *self
            .accounts
            .write()
            .unwrap_or_else(PoisonError::into_inner) = mapped;
    }

    /// Digest of who owns what.
    pub fn digest(&self) -> [u8; 32] {
        self.mapped().digest
    }

    /// Everything the account of that name may have entries under: its own fingerprint, and
    /// those of its keys from before they had an account.
    pub fn owned_by_account(&self, name: &str) -> Option<Vec<Fingerprint>> {
        let mapped = self.mapped();
        let account = mapped.accounts.get(name)?;
        Some(
            std::iter::once(account.owner())
                .chain(account.keys.iter().copied())
                .collect(),
        )
    }

    /// Everything this credential may have entries under: its own fingerprint, and its account's.
    pub fn owned_by(&self, fingerprint: &Fingerprint) -> Vec<Fingerprint> {
        let owner = self.mapped().accounts.owner_of(fingerprint);
        std::iter::once(*fingerprint).chain(owner).collect()
    }

    fn mapped(&self) -> Arc<Mapped> {
        Arc::clone(&self.accounts.read().unwrap_or_else(PoisonError::into_inner))
    }
}
