//! Removes what the ledger holds of an account, a credential or a model, by request of a person.

use prompt_cache_core::ledger::Fingerprint;
use serde::Serialize;

use crate::store::{Cursor, Scope, ScopeInfo, Store, StoreError};

/// Scopes read in one page of the registry and purged in one call.
const SCOPES_PER_STEP: usize = 1000;

/// What is purged: the scopes that match everything that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Whose entries: any of these.
    pub owners: Option<Vec<Fingerprint>>,
    /// Entries of which model.
    pub model: Option<String>,
}

impl Selection {
    fn takes(&self, info: &ScopeInfo) -> bool {
        let owner = self.owners.as_ref();
        let model = self.model.as_ref();
        owner.is_none_or(|owners| owners.contains(&info.account))
            && model.is_none_or(|model| *model == info.model)
    }
}

/// What a purge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Purged {
    /// Scopes that matched.
    pub scopes: u64,
    /// Entries that were removed.
    pub entries: u64,
}

/// Purges the selection. Ends with a new epoch even where nothing matched, so that edges forget.
///
/// # Errors
/// When the store fails; then part of it may be done, and it can be asked again.
pub async fn purge(store: &dyn Store, selection: &Selection) -> Result<Purged, StoreError> {
    let mut purged = Purged::default();
    let mut from = Cursor::default();
    loop {
        let page = store.scopes(from, SCOPES_PER_STEP).await?;
        let scopes: Vec<Scope> = page
            .items
            .iter()
            .filter(|info| selection.takes(info))
            .map(ScopeInfo::scope)
            .collect();
        if !scopes.is_empty() || page.next.is_none() {
            purged.entries += store.purge(&scopes).await?;
            purged.scopes += scopes.len() as u64;
        }
        match page.next {
            Some(next) => from = next,
            None => return Ok(purged),
        }
    }
}
