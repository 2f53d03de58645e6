//! What the status page shows: what this process has seen since it started, in bounded memory.
//!
//! Tokens are noted as they are classified. Reasons are not noted a second time: the counters of
//! the metrics are looked at every [`TICK_MS`], and what they have grown by is history.

mod accounts;
mod history;
mod reasons;
mod report;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prompt_cache_core::ledger::{Split, Tier};

use accounts::AccountTotals;
use history::History;
pub use reasons::Reason;
pub use report::{Around, REPORT_VERSION, Report, report};

use crate::config::{Config, Prices};
use crate::metrics::Metrics;

/// Pause between two looks at the counters; also the finest bucket of the history.
pub const TICK_MS: u64 = 10_000;

/// What a request that was classified, or reads that an edge answered from its leases, came to.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// A configured model.
    pub model: &'a str,
    /// The account's name; `None` for a credential that has none.
    pub account: Option<Arc<str>>,
    /// Tokens.
    pub split: &'a Split,
    /// Of the entry that was read.
    pub tier: Option<Tier>,
    /// How many requests.
    pub requests: u64,
}

/// Requests and tokens, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub requests: u64,
    pub hits: u64,
    pub read: u64,
    pub created: u64,
}

impl Totals {
    fn add(&mut self, seen: &Seen<'_>) {
        self.requests += seen.requests;
        self.hits += if seen.split.read > 0 {
            seen.requests
        } else {
            0
        };
        self.read += seen.split.read;
        self.created += seen.split.creation.total();
    }

    const fn tokens(&self) -> u64 {
        self.read.saturating_add(self.created)
    }
}

/// One configured model.
struct ModelTotals {
    model: String,
    default_tier: Tier,
    prices: Option<Prices>,
    totals: Totals,
    /// Tokens read and created, by tier.
    tiers: [(u64, u64); 3],
}

struct Inner {
    history: History,
    models: Vec<ModelTotals>,
    accounts: AccountTotals,
    /// What the counters of the reasons stood at, at the last look.
    counted: [u64; Reason::COUNT],
}

/// What has been seen.
pub struct Status {
    started_at_ms: u64,
    store_kind: &'static str,
    currency: Option<String>,
    by_name: HashMap<String, usize>,
    inner: Mutex<Inner>,
    /// When a proxy last asked for the policy, and for anything.
    policy_at_ms: AtomicU64,
    classify_at_ms: AtomicU64,
    /// Requests that wrote nothing because their prefix was below the floor.
    below_floor: AtomicU64,
    /// Requests that wrote nothing because their model's counts have drifted.
    writes_stopped: AtomicU64,
}

impl Status {
    /// Nothing seen yet.
    pub fn new(config: &Config, now_ms: u64) -> Self {
        let models: Vec<ModelTotals> = config
            .models
            .iter()
            .map(|model| ModelTotals {
                model: model.model.clone(),
                default_tier: model.default_tier,
                prices: model.prices,
                totals: Totals::default(),
                tiers: [(0, 0); 3],
            })
            .collect();
        let names = models.iter().map(|model| model.model.clone());
        Self {
            started_at_ms: now_ms,
            store_kind: config.store.kind(),
            currency: config.currency.clone(),
            by_name: names.zip(0..).collect(),
            inner: Mutex::new(Inner {
                history: History::new(now_ms),
                models,
                accounts: AccountTotals::default(),
                counted: [0; Reason::COUNT],
            }),
            policy_at_ms: AtomicU64::new(0),
            classify_at_ms: AtomicU64::new(0),
            below_floor: AtomicU64::new(0),
            writes_stopped: AtomicU64::new(0),
        }
    }

    /// Takes what one request, or a few reads, came to.
    pub fn saw(&self, seen: &Seen<'_>, now_ms: u64) {
        let Some(at) = self.by_name.get(seen.model).copied() else {
            return;
        };
        let mut inner = self.lock();
        inner.history.add(seen, now_ms);
        if let Some(model) = inner.models.get_mut(at) {
            model.totals.add(seen);
            let read_tier = seen.tier.unwrap_or(model.default_tier);
            for (tier, (read, created)) in Tier::ALL.into_iter().zip(&mut model.tiers) {
                *read += if tier == read_tier {
                    seen.split.read
                } else {
                    0
                };
                *created += seen.split.creation.get(tier);
            }
        }
        if let Some(account) = &seen.account {
            inner.accounts.add(account, at, seen);
        }
    }

    /// A proxy asked for the policy.
    pub fn polled(&self, now_ms: u64) {
        self.policy_at_ms.store(now_ms, Ordering::Relaxed);
    }

    /// A proxy asked for a classification.
    pub fn asked(&self, now_ms: u64) {
        self.classify_at_ms.store(now_ms, Ordering::Relaxed);
    }

    /// A prefix was too short to be written.
    pub fn fell_below_floor(&self) {
        self.below_floor.fetch_add(1, Ordering::Relaxed);
    }

    /// A prefix was not written because its model's counts have drifted.
    pub fn stopped_write(&self) {
        self.writes_stopped.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes what the counters have grown by since the last look.
    pub fn look(&self, metrics: &Metrics, now_ms: u64) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        for (reason, counted) in Reason::ALL.into_iter().zip(&mut inner.counted) {
            let total = reason.total(metrics, self);
            let grown = total.saturating_sub(*counted);
            *counted = total;
            inner.history.note(reason, grown, now_ms);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
