//! Extends the lives of entries that were read: off the response path, debounced, lossy under
//! pressure.
//!
//! A lost refresh costs an entry some of its life and nothing else, so the queue is bounded and
//! drops what does not fit. Refreshes of the same entry that wait together become one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{LiveEntry, refreshed};
use tokio::sync::{mpsc, oneshot};

use crate::metrics::{Metrics, RefreshOutcome, StoreOperation, Tally};
use crate::store::{BATCH_ENTRIES_MAX, Refresh, Scope, Store};

/// Refreshes that may wait for the next flush.
const REFRESHES_WAITING_MAX: usize = 65_536;

/// The refresh of an entry that is read at `now_ms`, unless it would gain too little.
pub fn refresh_of(
    scope: Scope,
    hash: PrefixHash,
    entry: LiveEntry,
    now_ms: u64,
) -> Option<Refresh> {
    let expires_at_ms = refreshed(entry.tier, entry.expires_at_ms, now_ms)?;
    Some(Refresh {
        scope,
        hash,
        expires_at_ms,
    })
}

enum Message {
    Refresh(Refresh),
    Flush(oneshot::Sender<()>),
}

/// The way in.
pub struct RefreshQueue {
    messages: mpsc::Sender<Message>,
    metrics: Arc<Metrics>,
}

impl RefreshQueue {
    /// Starts the task that writes to `store` every `flush_ms`. It ends with the queue.
    pub fn start(store: Arc<dyn Store>, flush_ms: u64, metrics: Arc<Metrics>) -> Self {
        let (messages, queue) = mpsc::channel(REFRESHES_WAITING_MAX);
        let flusher = Flusher {
            store,
            queue,
            metrics: Arc::clone(&metrics),
            waiting: HashMap::new(),
        };
        tokio::spawn(flusher.run(Duration::from_millis(flush_ms)));
        Self { messages, metrics }
    }

    /// Extends the lives of `read` entries, if that gains enough and the queue has room.
    pub fn push(&self, scope: Scope, read: &[(PrefixHash, LiveEntry)], now_ms: u64) {
        for (hash, entry) in read {
            let Some(refresh) = refresh_of(scope, *hash, *entry, now_ms) else {
                self.metrics.refreshes.count(RefreshOutcome::Skipped);
                continue;
            };
            if self.messages.try_send(Message::Refresh(refresh)).is_err() {
                self.metrics.refreshes.count(RefreshOutcome::Dropped);
            }
        }
    }

    /// Returns when everything pushed before has been handed to the store.
    pub async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        if self.messages.send(Message::Flush(done)).await.is_ok() {
            let _ = is_done.await;
        }
    }
}

struct Flusher {
    store: Arc<dyn Store>,
    queue: mpsc::Receiver<Message>,
    metrics: Arc<Metrics>,
    waiting: HashMap<(Scope, PrefixHash), u64>,
}

impl Flusher {
    async fn run(mut self, pause: Duration) {
        while let Some(message) = self.queue.recv().await {
            let mut waiters = Vec::new();
            self.take(message, &mut waiters);
            if waiters.is_empty() {
                self.gather(pause, &mut waiters).await;
            }
            self.write().await;
            for waiter in waiters {
                let _ = waiter.send(());
            }
        }
    }

    /// Takes what comes within `pause`, less when a batch is full or somebody waits.
    async fn gather(&mut self, pause: Duration, waiters: &mut Vec<oneshot::Sender<()>>) {
        let end = tokio::time::Instant::now() + pause;
        while waiters.is_empty() && self.waiting.len() < BATCH_ENTRIES_MAX {
            match tokio::time::timeout_at(end, self.queue.recv()).await {
                Ok(Some(message)) => self.take(message, waiters),
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn take(&mut self, message: Message, waiters: &mut Vec<oneshot::Sender<()>>) {
        match message {
            Message::Flush(done) => waiters.push(done),
            Message::Refresh(refresh) => {
                let expires = self
                    .waiting
                    .entry((refresh.scope, refresh.hash))
                    .or_default();
                *expires = refresh.expires_at_ms.max(*expires);
            }
        }
    }

    async fn write(&mut self) {
        let batch: Vec<Refresh> = self
            .waiting
            .drain()
            .map(|((scope, hash), expires_at_ms)| Refresh {
                scope,
                hash,
                expires_at_ms,
            })
            .collect();
        if batch.is_empty() {
            return;
        }
        let count = batch.len() as u64;
        let outcome = match self.store.refresh(batch).await {
            Ok(()) => RefreshOutcome::Written,
            Err(error) => {
                tracing::warn!(%error, "refreshes lost");
                self.metrics.store_errors.count(StoreOperation::Refresh);
                RefreshOutcome::StoreError
            }
        };
        self.metrics.refreshes.count_by(outcome, count);
    }
}
