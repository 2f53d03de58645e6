//! The writer thread: takes every job that waits, runs them in one transaction, answers them all.

use std::sync::Arc;

use redb::{Database, ReadableTable, Table};
use tokio::sync::{mpsc, oneshot};

use super::file::{DUE, ENTRIES, EPOCH, LedgerFile, SCOPES};
use super::record::{
    DUE_BYTES, KEY_BYTES, VALUE_BYTES, decode, due, due_end, due_key, encode, encode_info, key,
    key_bounds,
};
use crate::store::{Epoch, Refresh, Scope, ScopeInfo, StoreError, Swept, Write, is_live, merge};

/// Jobs in one transaction: bounds how long the first of them waits for the others.
const JOBS_PER_TRANSACTION_MAX: usize = 1024;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;
type Entries<'t> = Table<'t, &'static [u8; KEY_BYTES], &'static [u8; VALUE_BYTES]>;
type DueRows<'t> = Table<'t, &'static [u8; DUE_BYTES], ()>;

/// Something for the writer thread to do.
pub(super) enum Job {
    Write {
        writes: Vec<Write>,
        now_ms: u64,
        answer: Answer<()>,
    },
    Refresh {
        refreshes: Vec<Refresh>,
        answer: Answer<()>,
    },
    Sweep {
        now_ms: u64,
        limit: usize,
        answer: Answer<Swept>,
    },
    Register {
        scopes: Vec<ScopeInfo>,
        answer: Answer<()>,
    },
    /// One step of a purge: removes at most `limit` entries, and replaces the epoch when there
    /// are no more.
    Purge {
        scopes: Vec<Scope>,
        limit: usize,
        next: Epoch,
        answer: Answer<Swept>,
    },
    Ping {
        answer: Answer<()>,
    },
    /// The last job: the thread ends after it.
    Close {
        answer: Answer<()>,
    },
}

impl Job {
    fn answer(self, outcome: Result<Swept, StoreError>) {
        // A waiter that has gone away needs no answer.
        match self {
            Self::Sweep { answer, .. } | Self::Purge { answer, .. } => drop(answer.send(outcome)),
            Self::Write { answer, .. }
            | Self::Refresh { answer, .. }
            | Self::Register { answer, .. }
            | Self::Ping { answer }
            | Self::Close { answer } => drop(answer.send(outcome.map(drop))),
        }
    }
}

/// The thread's state.
pub(super) struct Writer {
    file: Arc<LedgerFile>,
    queue: mpsc::Receiver<Job>,
}

impl Writer {
    pub fn new(file: Arc<LedgerFile>, queue: mpsc::Receiver<Job>) -> Self {
        Self { file, queue }
    }

    /// Runs until [`Job::Close`], or until the store is dropped.
    pub fn run(mut self) {
        let mut jobs = Vec::new();
        while self
            .queue
            .blocking_recv_many(&mut jobs, JOBS_PER_TRANSACTION_MAX)
            > 0
        {
            let closing = jobs.iter().any(|job| matches!(job, Job::Close { .. }));
            match self.run_batch(&jobs) {
                Ok(outcomes) => {
                    for (job, outcome) in jobs.drain(..).zip(outcomes) {
                        job.answer(Ok(outcome));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, jobs = jobs.len(), "ledger transaction failed");
                    for job in jobs.drain(..) {
                        job.answer(Err(error.clone()));
                    }
                }
            }
            if closing {
                return;
            }
        }
    }

    /// Runs the jobs in one transaction. A failure gets one more try on a freshly opened file:
    /// nothing of the first has reached it.
    fn run_batch(&self, jobs: &[Job]) -> Result<Vec<Swept>, StoreError> {
        self.try_batch(jobs).or_else(|first| {
            tracing::warn!(error = %first, "ledger is reopened");
            self.file.reopen()?;
            self.try_batch(jobs)
        })
    }

    fn try_batch(&self, jobs: &[Job]) -> Result<Vec<Swept>, StoreError> {
        if jobs
            .iter()
            .all(|job| matches!(job, Job::Ping { .. } | Job::Close { .. }))
        {
            self.file.database()?;
            return Ok(vec![Swept::default(); jobs.len()]);
        }
        let database = self.file.database()?;
        let outcomes =
            transact(&database, jobs).map_err(|error| StoreError::Failed(error.to_string()))?;
        self.file.publish()?;
        Ok(outcomes)
    }
}

/// One transaction, durable when this returns (redb's default durability is an fsync).
fn transact(database: &Database, jobs: &[Job]) -> Result<Vec<Swept>, redb::Error> {
    let transaction = database.begin_write()?;
    let mut outcomes = Vec::with_capacity(jobs.len());
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut rows = transaction.open_table(DUE)?;
        for job in jobs {
            outcomes.push(match job {
                Job::Write { writes, now_ms, .. } => {
                    for write in writes {
                        apply_write(&mut entries, &mut rows, write, *now_ms)?;
                    }
                    Swept::default()
                }
                Job::Refresh { refreshes, .. } => {
                    for refresh in refreshes {
                        apply_refresh(&mut entries, refresh)?;
                    }
                    Swept::default()
                }
                Job::Sweep { now_ms, limit, .. } => {
                    apply_sweep(&mut entries, &mut rows, *now_ms, *limit)?
                }
                Job::Register { scopes, .. } => {
                    let mut registry = transaction.open_table(SCOPES)?;
                    for info in scopes {
                        if let Some(row) = encode_info(info) {
                            registry.insert(info.scope().as_bytes(), row.as_slice())?;
                        }
                    }
                    Swept::default()
                }
                Job::Purge {
                    scopes,
                    limit,
                    next,
                    ..
                } => {
                    let step = apply_purge(&mut entries, scopes, *limit)?;
                    if !step.more {
                        transaction.open_table(EPOCH)?.insert((), next.as_bytes())?;
                    }
                    step
                }
                Job::Ping { .. } | Job::Close { .. } => Swept::default(),
            });
        }
    }
    transaction.commit()?;
    Ok(outcomes)
}

fn apply_write(
    entries: &mut Entries<'_>,
    rows: &mut DueRows<'_>,
    write: &Write,
    now_ms: u64,
) -> Result<(), redb::Error> {
    let key = key(&write.scope, &write.entry.hash);
    let stored = entries.get(&key)?.map(|value| *value.value());
    let merged = encode(&merge(stored.as_ref().and_then(decode), write, now_ms));
    if stored == Some(merged) {
        return Ok(());
    }
    entries.insert(&key, &merged)?;
    if stored.is_none() {
        rows.insert(&due(write.expires_at_ms, &key), ())?;
    }
    Ok(())
}

fn apply_refresh(entries: &mut Entries<'_>, refresh: &Refresh) -> Result<(), redb::Error> {
    let key = key(&refresh.scope, &refresh.hash);
    let stored = entries.get(&key)?.and_then(|value| decode(value.value()));
    if let Some(mut entry) = stored.filter(|entry| entry.expires_at_ms < refresh.expires_at_ms) {
        entry.expires_at_ms = refresh.expires_at_ms;
        entries.insert(&key, &encode(&entry))?;
    }
    Ok(())
}

fn apply_sweep(
    entries: &mut Entries<'_>,
    rows: &mut DueRows<'_>,
    now_ms: u64,
    limit: usize,
) -> Result<Swept, redb::Error> {
    let end = due_end(now_ms);
    let mut found = Vec::new();
    for row in rows.range::<&[u8; DUE_BYTES]>(..&end)?.take(limit) {
        found.push(*row?.0.value());
    }
    let mut removed = 0;
    for row in &found {
        let key = due_key(row);
        rows.remove(row)?;
        let stored = entries.get(&key)?.and_then(|value| decode(value.value()));
        match stored.filter(|entry| is_live(entry, now_ms)) {
            Some(live) => {
                rows.insert(&due(live.expires_at_ms, &key), ())?;
            }
            None => removed += usize::from(entries.remove(&key)?.is_some()),
        }
    }
    Ok(Swept {
        removed,
        more: found.len() == limit,
    })
}

/// Rows of `due` stay until the sweep finds nothing behind them.
fn apply_purge(
    entries: &mut Entries<'_>,
    scopes: &[Scope],
    limit: usize,
) -> Result<Swept, redb::Error> {
    let mut removed = 0;
    for scope in scopes {
        let (first, last) = key_bounds(scope);
        let mut found = Vec::new();
        for row in entries
            .range::<&[u8; KEY_BYTES]>(&first..=&last)?
            .take(limit.saturating_sub(removed))
        {
            found.push(*row?.0.value());
        }
        for key in &found {
            entries.remove(key)?;
        }
        removed += found.len();
        if removed >= limit {
            return Ok(Swept {
                removed,
                more: true,
            });
        }
    }
    Ok(Swept {
        removed,
        more: false,
    })
}
