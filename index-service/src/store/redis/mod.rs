//! The Redis (or Valkey) store: a key per entry on one server or a cluster, shared by any number
//! of processes.
//!
//! Rules that need the stored entry are small scripts, atomic on the server. Whether an entry is
//! live is decided by the caller's time; Redis itself removes an entry some time after its life,
//! by a duration and its own clock, so the two clocks need not agree. What survives a crash or a
//! fail-over is up to the server's settings (docs/operations.md).

mod keys;
mod link;
mod operations;
mod value;
mod walk;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::LiveEntry;
use redis::Script;

use self::keys::Keys;
use self::link::{Connector, Operation};
use self::operations::{FORMAT, LookUp, Ping, ReadFormat, ScopeScripts};
use self::walk::{Count, Place, ReadEpoch, Register, Remove, ReplaceEpoch, Scan, Scopes};
use super::{
    Cursor, Epoch, Page, Refresh, Scope, ScopeInfo, Stats, Store, StoreError, Swept, Write,
};
use crate::config::RedisConfig;

/// A store in Redis.
pub struct RedisStore {
    connector: Connector,
    keys: Keys,
    merge: Script,
    refresh: Script,
    /// The ledger is of a format that this release knows.
    known: AtomicBool,
}

impl RedisStore {
    /// A store that connects when it is first used.
    ///
    /// # Errors
    /// When the configured certificate authorities cannot be read, or the URLs of a cluster do
    /// not go together.
    pub fn open(config: &RedisConfig) -> Result<Self, StoreError> {
        Ok(Self {
            connector: Connector::new(config)?,
            keys: Keys::new(&config.key_prefix),
            merge: Script::new(include_str!("merge.lua")),
            refresh: Script::new(include_str!("refresh.lua")),
            known: AtomicBool::new(false),
        })
    }

    /// Does it, unless the ledger is of a newer format, which is asked once.
    async fn perform<O: Operation>(&self, operation: &O) -> Result<O::Answer, StoreError> {
        if !self.known.load(Ordering::Acquire) {
            let keys = &self.keys;
            let format = self.connector.perform(&ReadFormat { keys }).await?;
            if format > FORMAT {
                return Err(StoreError::Failed(format!(
                    "the ledger is of format {format}, newer than this service, which knows {FORMAT}"
                )));
            }
            self.known.store(true, Ordering::Release);
        }
        self.connector.perform(operation).await
    }
}

fn place(cursor: &Cursor) -> Result<Place, StoreError> {
    Place::of(cursor).ok_or_else(|| StoreError::Failed("a cursor of another store".to_owned()))
}

#[async_trait]
impl Store for RedisStore {
    async fn look_up(
        &self,
        scope: &Scope,
        hashes: &[PrefixHash],
        now_ms: u64,
    ) -> Result<Vec<Option<LiveEntry>>, StoreError> {
        let look_up = LookUp {
            keys: &self.keys,
            scope,
            hashes,
            now_ms,
        };
        self.perform(&look_up).await
    }

    async fn write(&self, writes: Vec<Write>, now_ms: u64) -> Result<(), StoreError> {
        let scripts = ScopeScripts::write(&self.merge, &self.keys, &writes, now_ms);
        self.perform(&scripts).await
    }

    async fn refresh(&self, refreshes: Vec<Refresh>) -> Result<(), StoreError> {
        let scripts = ScopeScripts::refresh(&self.refresh, &self.keys, &refreshes);
        self.perform(&scripts).await
    }

    async fn sweep(&self, _now_ms: u64, _limit: usize) -> Result<Swept, StoreError> {
        Ok(Swept::default())
    }

    async fn register(&self, scopes: &[ScopeInfo]) -> Result<(), StoreError> {
        let register = Register {
            keys: &self.keys,
            infos: scopes,
        };
        self.perform(&register).await
    }

    async fn scopes(&self, from: Cursor, limit: usize) -> Result<Page<ScopeInfo>, StoreError> {
        let scopes = Scopes {
            keys: &self.keys,
            from: place(&from)?,
            limit,
        };
        self.perform(&scopes).await
    }

    async fn purge(&self, scopes: &[Scope]) -> Result<u64, StoreError> {
        let scopes: HashSet<Scope> = scopes.iter().copied().collect();
        let mut removed = 0;
        let mut next = (!scopes.is_empty()).then(Place::default);
        while let Some(from) = next {
            let remove = Remove {
                keys: &self.keys,
                scopes: &scopes,
                from,
            };
            let (count, place) = self.perform(&remove).await?;
            removed += count;
            next = place;
        }
        let replace = ReplaceEpoch {
            keys: &self.keys,
            next: Epoch::random()?,
        };
        self.perform(&replace).await?;
        Ok(removed)
    }

    async fn epoch(&self) -> Result<Epoch, StoreError> {
        let read = ReadEpoch {
            keys: &self.keys,
            fresh: Epoch::random()?,
        };
        let epoch = self.perform(&read).await?;
        epoch.ok_or_else(|| StoreError::Failed("the epoch is not one".to_owned()))
    }

    async fn scan(&self, from: Cursor, limit: usize) -> Result<Page<Write>, StoreError> {
        let scan = Scan {
            keys: &self.keys,
            from: place(&from)?,
            limit,
        };
        self.perform(&scan).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let entries = self.perform(&Count { keys: &self.keys }).await?;
        Ok(Stats {
            entries,
            disk_bytes: 0,
            retries: self.connector.retries(),
        })
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.perform(&Ping { keys: &self.keys }).await
    }

    async fn close(&self) {
        self.connector.close().await;
    }
}
