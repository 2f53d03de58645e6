//! The PostgreSQL store: one table in a schema of its own, shared by any number of processes.
//!
//! An operation is one statement on a pooled connection, hence atomic, and may safely be done
//! twice; a purge is many, and so is a batch that repeats the key of a write that came too late.
//! The database is not waited for at the start: the first operation that reaches it runs the
//! migrations.

mod accounts;
mod batch;
mod connection;
mod migrate;
mod operations;
mod upkeep;

use async_trait::async_trait;
use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::LiveEntry;

pub use self::accounts::{AccountsTable, EditError};
use self::batch::{RefreshBatch, rounds};
use self::connection::Connector;
use self::operations::{LookUp, WriteRound};
use self::upkeep::{Measure, Ping, ReadEpoch, Register, Remove, ReplaceEpoch, Scan, Scopes, Sweep};
use super::{
    Cursor, Epoch, Page, Refresh, Scope, ScopeInfo, Stats, Store, StoreError, Swept, Write,
};
use crate::config::PostgresConfig;

/// Entries one step of a purge removes: well within an operation's time.
const PURGE_STEP_ENTRIES: usize = 5000;

/// A store in a PostgreSQL database.
pub struct PostgresStore {
    connector: Connector,
}

impl PostgresStore {
    /// A store that connects when it is first used.
    ///
    /// # Errors
    /// When the configured certificate authorities cannot be read.
    pub fn open(config: &PostgresConfig) -> Result<Self, StoreError> {
        let connector = Connector::new(config)?;
        Ok(Self { connector })
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn look_up(
        &self,
        scope: &Scope,
        hashes: &[PrefixHash],
        now_ms: u64,
    ) -> Result<Vec<Option<LiveEntry>>, StoreError> {
        let look_up = LookUp {
            scope,
            hashes,
            now_ms,
        };
        self.connector.perform(&look_up).await
    }

    async fn write(&self, writes: Vec<Write>, now_ms: u64) -> Result<(), StoreError> {
        for round in &rounds(&writes, now_ms) {
            self.connector
                .perform(&WriteRound { round, now_ms })
                .await?;
        }
        Ok(())
    }

    async fn refresh(&self, refreshes: Vec<Refresh>) -> Result<(), StoreError> {
        self.connector.perform(&RefreshBatch::new(&refreshes)).await
    }

    async fn sweep(&self, now_ms: u64, limit: usize) -> Result<Swept, StoreError> {
        self.connector.perform(&Sweep { now_ms, limit }).await
    }

    async fn register(&self, scopes: &[ScopeInfo]) -> Result<(), StoreError> {
        self.connector.perform(&Register::new(scopes)).await
    }

    async fn scopes(&self, from: Cursor, limit: usize) -> Result<Page<ScopeInfo>, StoreError> {
        self.connector.perform(&Scopes { from, limit }).await
    }

    async fn purge(&self, scopes: &[Scope]) -> Result<u64, StoreError> {
        let limit = PURGE_STEP_ENTRIES;
        let mut removed = 0;
        loop {
            let step = self.connector.perform(&Remove { scopes, limit }).await?;
            if step == 0 {
                break;
            }
            removed += step;
        }
        let next = ReplaceEpoch(Epoch::random()?);
        self.connector.perform(&next).await?;
        Ok(removed)
    }

    async fn epoch(&self) -> Result<Epoch, StoreError> {
        let epoch = self.connector.perform(&ReadEpoch).await?;
        epoch.ok_or_else(|| StoreError::Failed("the epoch is not one".to_owned()))
    }

    async fn scan(&self, from: Cursor, limit: usize) -> Result<Page<Write>, StoreError> {
        self.connector.perform(&Scan { from, limit }).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        Ok(Stats {
            retries: self.connector.retries(),
            ..self.connector.perform(&Measure).await?
        })
    }

    async fn ping(&self) -> Result<(), StoreError> {
        if self.connector.perform(&Ping).await? {
            Ok(())
        } else {
            Err(StoreError::Failed("the server takes no writes".to_owned()))
        }
    }

    async fn close(&self) {
        self.connector.close();
    }
}
