//! The ledger file: opening it, the snapshot that readers share, reopening after an I/O error.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{Breakpoint, Candidate, LiveEntry};
use redb::{
    Builder, Database, ReadOnlyTable, ReadableDatabase, ReadableTableMetadata, TableDefinition,
};

use super::record::{DUE_BYTES, KEY_BYTES, VALUE_BYTES, decode, key, scope_number};
use crate::store::{EPOCH_BYTES, Epoch, SCOPE_BYTES, Scope, Stats, StoreError, is_live};

/// Key → value of every entry.
pub(super) const ENTRIES: TableDefinition<&[u8; KEY_BYTES], &[u8; VALUE_BYTES]> =
    TableDefinition::new("entries");
/// The expiry index.
pub(super) const DUE: TableDefinition<&[u8; DUE_BYTES], ()> = TableDefinition::new("due");
/// Scope → its number in keys, and whose it is.
pub(super) const SCOPES: TableDefinition<&[u8; SCOPE_BYTES], &[u8]> =
    TableDefinition::new("scopes");
/// Its one row is the epoch.
pub(super) const EPOCH: TableDefinition<(), &[u8; EPOCH_BYTES]> = TableDefinition::new("epoch");
/// What the file is, and the number of the next scope.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
pub(super) const NEXT_SCOPE_KEY: &str = "next_scope";
/// Version of the layout in `record`. 1 had the scope itself in the keys.
const FORMAT: u64 = 2;
/// What a probe writes, in its one row.
pub(super) const PROBE: TableDefinition<(), &[u8]> = TableDefinition::new("probe");

/// What readers share: the tables as of one transaction.
struct Snapshot {
    entries: ReadOnlyTable<&'static [u8; KEY_BYTES], &'static [u8; VALUE_BYTES]>,
    scopes: ReadOnlyTable<&'static [u8; SCOPE_BYTES], &'static [u8]>,
}

impl Snapshot {
    /// The number of a scope that has entries.
    fn number(&self, scope: &Scope) -> Result<Option<u32>, StoreError> {
        let row = self.scopes.get(scope.as_bytes()).map_err(unread)?;
        Ok(row.and_then(|row| scope_number(row.value())))
    }

    fn get(
        &self,
        number: u32,
        hash: &PrefixHash,
        now_ms: u64,
    ) -> Result<Option<LiveEntry>, StoreError> {
        let found = self.entries.get(&key(number, hash)).map_err(unread)?;
        Ok(found
            .and_then(|value| decode(value.value()))
            .filter(|entry| is_live(entry, now_ms)))
    }
}

fn unread(error: redb::StorageError) -> StoreError {
    StoreError::Failed(error.to_string())
}

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
    snapshot: Arc<Snapshot>,
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
                    "{path}: ledger format {format}, this version reads {FORMAT}: move the file away \
                 and start with an empty ledger, or run the version that wrote it"
                ))
            })?;
        let snapshot = Arc::new(snapshot(&database).map_err(failed)?);
        Ok(Self {
            snapshot,
            database: Arc::new(database),
        })
    }
}

/// Creates the tables of a new file; of an old one, checks the format (`Err(found)`) and writes
/// nothing: it must also open on a full disk.
fn prepare(database: &Database, first: Epoch) -> Result<Result<(), u64>, redb::Error> {
    match format(database)? {
        Some(FORMAT) => return Ok(Ok(())),
        Some(other) => return Ok(Err(other)),
        None => {}
    }
    let transaction = database.begin_write()?;
    {
        transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT)?;
        transaction.open_table(ENTRIES)?;
        transaction.open_table(DUE)?;
        transaction.open_table(SCOPES)?;
        transaction
            .open_table(EPOCH)?
            .insert((), first.as_bytes())?;
    }
    transaction.commit()?;
    Ok(Ok(()))
}

/// The format of a file that has one.
fn format(database: &Database) -> Result<Option<u64>, redb::Error> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get(FORMAT_KEY)?.map(|format| format.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn snapshot(database: &Database) -> Result<Snapshot, redb::Error> {
    let transaction = database.begin_read()?;
    Ok(Snapshot {
        entries: transaction.open_table(ENTRIES)?,
        scopes: transaction.open_table(SCOPES)?,
    })
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
        let snapshot = self.snapshot()?;
        let Some(number) = snapshot.number(scope)? else {
            return Ok(vec![None; hashes.len()]);
        };
        let get = |hash| snapshot.get(number, hash, now_ms);
        hashes.iter().map(get).collect()
    }

    /// From the deepest candidate up, and only breakpoints once one is live: a known prefix costs
    /// as many look-ups as it has breakpoints, not twenty times that.
    pub fn find(
        &self,
        scope: &Scope,
        breakpoints: &[Breakpoint],
        candidates: &[Candidate],
        now_ms: u64,
    ) -> Result<Vec<Option<LiveEntry>>, StoreError> {
        let mut found = vec![None; candidates.len()];
        let snapshot = self.snapshot()?;
        let Some(number) = snapshot.number(scope)? else {
            return Ok(found);
        };
        let mut hit = false;
        for (candidate, entry) in candidates.iter().zip(&mut found).rev() {
            if !hit || breakpoints.iter().any(|b| b.block == candidate.block) {
                *entry = snapshot.get(number, &candidate.hash, now_ms)?;
                hit |= entry.is_some();
            }
        }
        Ok(found)
    }

    pub fn stats(&self) -> Result<Stats, StoreError> {
        let entries = self
            .snapshot()?
            .entries
            .len()
            .map_err(|error| StoreError::Failed(error.to_string()))?;
        // What the file takes, not how long it is: it grows in steps and has holes.
        let disk_bytes = std::fs::metadata(&self.path).map_or(0, |file| file.blocks() * 512);
        Ok(Stats {
            entries,
            disk_bytes,
            retries: self.reopened.load(Ordering::Relaxed),
        })
    }

    fn snapshot(&self) -> Result<Arc<Snapshot>, StoreError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.as_ref()
            .map(|open| Arc::clone(&open.snapshot))
            .ok_or(StoreError::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_format_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.redb");
        for format in [1, FORMAT + 1] {
            {
                let database = Builder::new().create(&path).unwrap();
                let transaction = database.begin_write().unwrap();
                let mut meta = transaction.open_table(META).unwrap();
                meta.insert(FORMAT_KEY, format).unwrap();
                drop(meta);
                transaction.commit().unwrap();
            }
            for _ in 0..2 {
                let error = LedgerFile::open(&path, 1 << 20).err().unwrap().to_string();
                let says = format!("ledger format {format}, this version reads {FORMAT}");
                assert!(error.contains(&says), "{error}");
            }
        }
    }
}
