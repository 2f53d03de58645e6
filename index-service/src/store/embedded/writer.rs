//! The writer thread: takes every job that waits, runs them in one transaction, answers them all.

use std::sync::Arc;

use redb::Database;
use tokio::sync::{mpsc, oneshot};

use super::file::LedgerFile;
use super::tables::Tables;
use crate::store::{Epoch, Refresh, Scope, ScopeInfo, StoreError, Swept, Write};

/// Jobs in one transaction: bounds how long the first of them waits for the others.
const JOBS_PER_TRANSACTION_MAX: usize = 1024;

/// What a ping writes after a failure, at least and at most.
const PROBE_BYTES_MIN: usize = 64 << 10;
const PROBE_BYTES_MAX: usize = 4 << 20;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

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
    /// After a transaction that failed: the bytes that a ping must be able to write before writes
    /// count as working again. A disk that is too full for that transaction may well have room
    /// for a smaller one.
    unproven_bytes: usize,
}

impl Writer {
    pub fn new(file: Arc<LedgerFile>, queue: mpsc::Receiver<Job>) -> Self {
        Self {
            file,
            queue,
            unproven_bytes: 0,
        }
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
            let outcome = self.run_batch(&jobs);
            if outcome.is_err() {
                self.unproven_bytes = self.unproven_bytes.max(bytes(&jobs));
            } else if jobs.iter().any(|job| matches!(job, Job::Ping { .. })) {
                self.unproven_bytes = 0;
            }
            match outcome {
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
        let is_idle = |job: &Job| matches!(job, Job::Ping { .. } | Job::Close { .. });
        if jobs.iter().all(is_idle) && self.unproven_bytes == 0 {
            self.file.database()?;
            return Ok(vec![Swept::default(); jobs.len()]);
        }
        let database = self.file.database()?;
        let outcomes = transact(&database, jobs, self.unproven_bytes)
            .map_err(|error| StoreError::Failed(error.to_string()))?;
        self.file.publish()?;
        Ok(outcomes)
    }
}

/// About what the jobs write: each entry has a place in two tables, on pages of 4 KiB.
fn bytes(jobs: &[Job]) -> usize {
    let entries = jobs.iter().map(|job| match job {
        Job::Write { writes, .. } => writes.len(),
        Job::Refresh { refreshes, .. } => refreshes.len(),
        Job::Sweep { limit, .. } | Job::Purge { limit, .. } => *limit,
        Job::Register { scopes, .. } => scopes.len(),
        Job::Ping { .. } | Job::Close { .. } => 0,
    });
    let bytes = entries.sum::<usize>().saturating_mul(2 * 4096);
    bytes.clamp(PROBE_BYTES_MIN, PROBE_BYTES_MAX)
}

/// One transaction, durable when this returns (redb's default durability is an fsync).
fn transact(
    database: &Database,
    jobs: &[Job],
    probe_bytes: usize,
) -> Result<Vec<Swept>, redb::Error> {
    let transaction = database.begin_write()?;
    let mut outcomes = Vec::with_capacity(jobs.len());
    {
        let mut tables = Tables::open(&transaction)?;
        for job in jobs {
            outcomes.push(run(&mut tables, job, probe_bytes)?);
        }
    }
    transaction.commit()?;
    Ok(outcomes)
}

fn run(tables: &mut Tables<'_>, job: &Job, probe_bytes: usize) -> Result<Swept, redb::Error> {
    match job {
        Job::Write { writes, now_ms, .. } => {
            for write in writes {
                tables.write(write, *now_ms)?;
            }
        }
        Job::Refresh { refreshes, .. } => {
            for refresh in refreshes {
                tables.refresh(refresh)?;
            }
        }
        Job::Sweep { now_ms, limit, .. } => return tables.sweep(*now_ms, *limit),
        Job::Register { scopes, .. } => {
            for info in scopes {
                tables.register(info)?;
            }
        }
        Job::Purge {
            scopes,
            limit,
            next,
            ..
        } => return tables.purge(scopes, *limit, next),
        Job::Ping { .. } => tables.probe(probe_bytes)?,
        Job::Close { .. } => {}
    }
    Ok(Swept::default())
}
