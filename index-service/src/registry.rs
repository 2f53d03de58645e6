//! Which scopes are known to be registered in the store: asked for every commit, so kept in memory.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::{Scope, ScopeInfo, Store, StoreError};

/// Scopes that are remembered; beyond that all are forgotten and registered again as they come,
/// which is harmless.
const SCOPES_REMEMBERED_MAX: usize = 65_536;

/// The scopes this process has registered.
#[derive(Debug, Default)]
pub struct Registry(Mutex<HashSet<Scope>>);

impl Registry {
    /// Whether this process has registered the scope.
    pub fn knows(&self, scope: &Scope) -> bool {
        self.lock().contains(scope)
    }

    /// Registers `scopes`. Durable when it returns.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn register(
        &self,
        store: &dyn Store,
        scopes: &[ScopeInfo],
    ) -> Result<(), StoreError> {
        if scopes.is_empty() {
            return Ok(());
        }
        store.register(scopes).await?;
        let mut known = self.lock();
        if known.len() + scopes.len() > SCOPES_REMEMBERED_MAX {
            known.clear();
        }
        known.extend(scopes.iter().map(ScopeInfo::scope));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Scope>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
