//! The embedded store: one redb file, many readers, one writer thread.
//!
//! Reads are snapshots taken on the caller's thread (the working set is in memory). Writes,
//! refreshes and sweeps queue for the writer thread, which puts everything that waits into one
//! transaction and answers after its fsync: group commit. `kill -9` at any moment leaves either
//! all of a transaction or nothing of it.

mod file;
pub(super) mod record;
mod scan;
mod tables;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use async_trait::async_trait;
use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{Breakpoint, Candidate, LiveEntry};
use tokio::sync::{mpsc, oneshot};

use self::file::LedgerFile;
use self::writer::{Job, Writer};
use super::{
    Cursor, Epoch, Page, Refresh, Scope, ScopeInfo, Stats, Store, StoreError, Swept, Write,
};
use crate::config::{EmbeddedConfig, LEDGER_FILE};

/// Jobs that may wait for the writer thread.
const JOBS_WAITING_MAX: usize = 4096;
/// Entries one step of a purge removes: commits wait no longer than that takes.
const PURGE_STEP_ENTRIES: usize = 4096;

/// A store in one file of this machine, for one process.
pub struct EmbeddedStore {
    file: Arc<LedgerFile>,
    jobs: mpsc::Sender<Job>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedStore {
    /// Opens or creates the ledger in the configured directory.
    ///
    /// # Errors
    /// When the directory cannot be created, the file is not a ledger, or another process has
    /// it open.
    pub fn open(config: &EmbeddedConfig) -> Result<Self, StoreError> {
        let failed = |error: std::io::Error| {
            StoreError::Failed(format!("{}: {error}", config.data_dir.display()))
        };
        std::fs::create_dir_all(&config.data_dir).map_err(failed)?;
        let store = Self::open_file(&config.data_dir.join(LEDGER_FILE), config.cache_bytes)?;
        // A new file's name must outlive a power loss as well as its contents.
        std::fs::File::open(&config.data_dir)
            .and_then(|dir| dir.sync_all())
            .map_err(failed)?;
        Ok(store)
    }

    fn open_file(path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        let file = Arc::new(LedgerFile::open(path, cache_bytes)?);
        let (jobs, queue) = mpsc::channel(JOBS_WAITING_MAX);
        let writer = Writer::new(Arc::clone(&file), queue);
        let thread = std::thread::Builder::new()
            .name("ledger-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::Failed(format!("writer thread: {error}")))?;
        Ok(Self {
            file,
            jobs,
            writer: Mutex::new(Some(thread)),
        })
    }

    async fn submit<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.jobs
            .try_send(job(answer))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => StoreError::Busy,
                mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
            })?;
        answered.await.unwrap_or(Err(StoreError::Closed))
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn look_up(
        &self,
        scope: &Scope,
        hashes: &[PrefixHash],
        now_ms: u64,
    ) -> Result<Vec<Option<LiveEntry>>, StoreError> {
        self.file.look_up(scope, hashes, now_ms)
    }

    async fn find(
        &self,
        scope: &Scope,
        breakpoints: &[Breakpoint],
        candidates: &[Candidate],
        now_ms: u64,
    ) -> Result<Vec<Option<LiveEntry>>, StoreError> {
        self.file.find(scope, breakpoints, candidates, now_ms)
    }

    async fn write(&self, writes: Vec<Write>, now_ms: u64) -> Result<(), StoreError> {
        self.submit(|answer| Job::Write {
            writes,
            now_ms,
            answer,
        })
        .await
    }

    async fn refresh(&self, refreshes: Vec<Refresh>) -> Result<(), StoreError> {
        self.submit(|answer| Job::Refresh { refreshes, answer })
            .await
    }

    async fn sweep(&self, now_ms: u64, limit: usize) -> Result<Swept, StoreError> {
        self.submit(|answer| Job::Sweep {
            now_ms,
            limit,
            answer,
        })
        .await
    }

    async fn register(&self, scopes: &[ScopeInfo]) -> Result<(), StoreError> {
        let scopes = scopes.to_vec();
        self.submit(|answer| Job::Register { scopes, answer }).await
    }

    async fn scopes(&self, from: Cursor, limit: usize) -> Result<Page<ScopeInfo>, StoreError> {
        scan::scopes(&*self.file.database()?, &from, limit)
    }

    async fn purge(&self, scopes: &[Scope]) -> Result<u64, StoreError> {
        let next = Epoch::random()?;
        let mut removed = 0;
        loop {
            let step = self
                .submit(|answer| Job::Purge {
                    scopes: scopes.to_vec(),
                    limit: PURGE_STEP_ENTRIES,
                    next,
                    answer,
                })
                .await?;
            removed += step.removed as u64;
            if !step.more {
                return Ok(removed);
            }
        }
    }

    async fn epoch(&self) -> Result<Epoch, StoreError> {
        scan::epoch(&*self.file.database()?)
    }

    async fn scan(&self, from: Cursor, limit: usize) -> Result<Page<Write>, StoreError> {
        scan::entries(&*self.file.database()?, &from, limit)
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.file.stats()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.file.stats()?;
        self.submit(|answer| Job::Ping { answer }).await
    }

    async fn close(&self) {
        // The answer comes after everything queued before it; the thread ends with it.
        let _ = self.submit(|answer| Job::Close { answer }).await;
        let thread = self.writer.lock().ok().and_then(|mut writer| writer.take());
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        self.file.close();
    }
}
