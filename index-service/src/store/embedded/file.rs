//! The ledger file: opening it, the snapshot that readers share, reopening after an I/O error.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::LiveEntry;
use redb::{
    Builder, Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition,
};

use super::record::{DUE_BYTES, KEY_BYTES, VALUE_BYTES, decode, key};
use crate::store::{EPOCH_BYTES, Epoch, SCOPE_BYTES, Scope, Stats, StoreError, is_live};

/// Key → value of every entry.
pub(super) const ENTRIES: TableDefinition<&[u8; KEY_BYTES], &[u8; VALUE_BYTES]> =
    TableDefinition::new("entries");
/// The expiry index.
pub(super) const DUE: TableDefinition<&[u8; DUE_BYTES], ()> = TableDefinition::new("due");
/// Scope → whose it is.
pub(super) const SCOPES: TableDefinition<&[u8; SCOPE_BYTES], &[u8]> =
    TableDefinition::new("scopes");
/// Its one row is the epoch.
pub(super) const EPOCH: TableDefinition<(), &[u8; EPOCH_BYTES]> = TableDefinition::new("epoch");
/// What the file is.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
/// Version of the layout in `record`.
const FORMAT: u64 = 1;

type Entries = ReadOnlyTable<&'static [u8; KEY_BYTES], &'static [u8; VALUE_BYTES]>;

/// An open ledger file.
pub(super) struct LedgerFile {
    path: PathBuf,
    cache_bytes: usize,
    /// `None` after [`LedgerFile::close`] or while an I/O error has not been recovered from.
    open: RwLock<Option<Open>>,
    reopened: AtomicU64,
}

/// Field order matters: the snapshot lets go of the database before it closes.
struct Open {
    snapshot: Arc<Entries>,
    database: Arc<Database>,
}

impl Open {
    fn new(path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        let failed =
            |error: redb::Error| StoreError::Failed(format!("{}: {error}", path.display()));
        let database = Builder::new()
            .set_cache_size(cache_bytes)
            .create(path)
            .map_err(|error| failed(error.into()))?;
        prepare(&database, Epoch::random()?)
            .map_err(failed)?
            .map_err(|format| {
                let path = path.display();
                StoreError::Failed(format!(
                    "{path}: ledger format {format}, this version reads {FORMAT}"
                ))
            })?;
        let snapshot = Arc::new(snapshot(&database).map_err(failed)?);
        Ok(Self {
            snapshot,
            database: Arc::new(database),
        })
    }
}

/// Creates the tables of a new file; of an old one, checks the format (`Err(found)`).
fn prepare(database: &Database, first: Epoch) -> Result<Result<(), u64>, redb::Error> {
    let transaction = database.begin_write()?;
    let found = {
        let mut meta = transaction.open_table(META)?;
        let found = meta.get(FORMAT_KEY)?.map(|format| format.value());
        if found.is_none() {
            meta.insert(FORMAT_KEY, FORMAT)?;
        }
        transaction.open_table(ENTRIES)?;
        transaction.open_table(DUE)?;
        transaction.open_table(SCOPES)?;
        let mut epoch = transaction.open_table(EPOCH)?;
        if epoch.get(())?.is_none() {
            epoch.insert((), first.as_bytes())?;
        }
        found
    };
    match found {
        Some(format) if format != FORMAT => Ok(Err(format)),
        _ => {
            transaction.commit()?;
            Ok(Ok(()))
        }
    }
}

fn snapshot(database: &Database) -> Result<Entries, redb::Error> {
    Ok(database.begin_read()?.open_table(ENTRIES)?)
}

impl LedgerFile {
    pub fn open(path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        Ok(Self {
            path: path.to_owned(),
            cache_bytes,
            open: RwLock::new(Some(Open::new(path, cache_bytes)?)),
            reopened: AtomicU64::new(0),
        })
    }

    /// The database, for the writer thread.
    pub fn database(&self) -> Result<Arc<Database>, StoreError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.as_ref()
            .map(|open| Arc::clone(&open.database))
            .ok_or(StoreError::Closed)
    }

    /// Lets readers see what has been committed.
    pub fn publish(&self) -> Result<(), StoreError> {
        let fresh = snapshot(&*self.database()?).map_err(|e| StoreError::Failed(e.to_string()))?;
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.as_mut() {
            open.snapshot = Arc::new(fresh);
        }
        Ok(())
    }

    /// Closes and opens the file: redb refuses to go on after an I/O error, also when its cause
    /// (a full disk) is gone.
    pub fn reopen(&self) -> Result<(), StoreError> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        // The lock on the file is released with the last handle; readers hold none for long.
        *open = None;
        *open = Some(Open::new(&self.path, self.cache_bytes)?);
        self.reopened.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    pub fn close(&self) {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn look_up(
        &self,
        scope: &Scope,
        hashes: &[PrefixHash],
        now_ms: u64,
    ) -> Result<Vec<Option<LiveEntry>>, StoreError> {
        let entries = self.snapshot()?;
        hashes
            .iter()
            .map(|hash| match entries.get(&key(scope, hash)) {
                Ok(found) => Ok(found
                    .and_then(|value| decode(value.value()))
                    .filter(|entry| is_live(entry, now_ms))),
                Err(error) => Err(StoreError::Failed(error.to_string())),
            })
            .collect()
    }

    pub fn stats(&self) -> Result<Stats, StoreError> {
        let entries = self
            .snapshot()?
            .len()
            .map_err(|error| StoreError::Failed(error.to_string()))?;
        let disk_bytes = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        Ok(Stats {
            entries,
            disk_bytes,
            retries: self.reopened.load(Ordering::Relaxed),
        })
    }

    fn snapshot(&self) -> Result<Arc<Entries>, StoreError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.as_ref()
            .map(|open| Arc::clone(&open.snapshot))
            .ok_or(StoreError::Closed)
    }
}
