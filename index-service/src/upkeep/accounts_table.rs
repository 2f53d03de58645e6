//! The accounts table as a source: one row says whether there is something to read.

use async_trait::async_trait;

use super::accounts::{AccountSource, Loaded};
use crate::accounts::AccountMap;
use crate::config::PostgresConfig;
use crate::store::StoreError;
use crate::store::postgres::AccountsTable;

/// The accounts beside the ledger in PostgreSQL.
pub struct TableSource {
    table: AccountsTable,
    seen: Option<String>,
}

impl TableSource {
    /// The accounts of the database that is configured as the store.
    ///
    /// # Errors
    /// When the configured certificate authorities cannot be read.
    pub fn open(config: &PostgresConfig) -> Result<Self, StoreError> {
        let table = AccountsTable::open(config)?;
        Ok(Self { table, seen: None })
    }
}

#[async_trait]
impl AccountSource for TableSource {
    async fn load(&mut self) -> Result<Loaded, String> {
        let words = |error: StoreError| format!("accounts table: {error}");
        // The version first: accounts that change in between are read again at the next look.
        let version = self.table.version().await.map_err(words)?;
        if self.seen.as_ref() == Some(&version) {
            return Ok(Loaded::Unchanged);
        }
        let accounts = self.table.read().await.map_err(words)?;
        // Many accounts take a while, and this thread serves requests.
        let map = tokio::task::spawn_blocking(move || AccountMap::new(accounts));
        let map = map.await.map_err(|error| error.to_string())?;
        let map = map.map_err(|(_, reason)| format!("accounts table: {reason}"))?;
        self.seen = Some(version);
        Ok(Loaded::Changed(map))
    }
}
