//! The report: the JSON that the page draws. `docs/configuration-index.md` describes its shape.

use std::sync::atomic::Ordering;

use prompt_cache_core::ledger::Tier;
use serde::Serialize;

use super::history::Series;
use super::{ModelTotals, Reason, Status, Totals};
use crate::drift::Drift;
use crate::metrics::{Metrics, StoreOperation, Tally as _};
use crate::policy::Models;
use crate::principals::Principals;
use crate::store::Stats;

/// Version of the report's shape; a new member is no new version.
pub const REPORT_VERSION: u32 = 1;
/// Models in a report: those with the most tokens.
const MODELS_SHOWN_MAX: usize = 50;
/// Pairs of account and model in a report.
const ACCOUNTS_SHOWN_MAX: usize = 20;

/// What this process has seen since it started. Times are milliseconds since the Unix epoch.
#[derive(Debug, Serialize)]
pub struct Report {
    v: u32,
    version: &'static str,
    now_ms: u64,
    started_at_ms: u64,
    /// `ok`, or the code that `/readyz` refuses with.
    ready: &'static str,
    currency: Option<String>,
    store: StoreReport,
    proxies: Proxies,
    totals: TotalsReport,
    /// How many are configured; `models` may be fewer.
    models_configured: usize,
    models: Vec<ModelReport>,
    hour: Series,
    day: Series,
    accounts_configured: u64,
    accounts: Vec<AccountReport>,
    /// Only those that have happened, the most frequent of the last hour first.
    reasons: Vec<ReasonReport>,
}

#[derive(Debug, Serialize)]
struct StoreReport {
    kind: &'static str,
    /// Whether it answered now.
    answers: bool,
    /// Live entries, expired ones until they are swept; `null` when it did not answer.
    entries: Option<u64>,
    disk_bytes: Option<u64>,
    retries: Option<u64>,
    errors: u64,
}

#[derive(Debug, Serialize)]
struct Proxies {
    /// When one last asked for the policy; `null` before the first time.
    policy_at_ms: Option<u64>,
    classify_at_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct TotalsReport {
    requests: u64,
    hits: u64,
    read: u64,
    created: u64,
}

#[derive(Debug, Serialize)]
struct ModelReport {
    model: String,
    /// Whether its tokenizer is loaded.
    loaded: bool,
    counts: Counts,
    #[serde(flatten)]
    totals: TotalsReport,
    /// Beside plain input; `null` without prices. The sum over `tiers`.
    saved: Option<f64>,
    tiers: Vec<TierReport>,
}

#[derive(Debug, Serialize)]
struct Counts {
    /// `trusted`, `drifting` or `unmapped`.
    state: &'static str,
    /// Our count over the upstream's, of recent prompts; `null` before the first.
    ratio: Option<f64>,
    comparisons: u32,
}

#[derive(Debug, Serialize)]
struct TierReport {
    tier: &'static str,
    read: u64,
    created: u64,
    saved: Option<f64>,
}

#[derive(Debug, Serialize)]
struct AccountReport {
    account: String,
    model: String,
    #[serde(flatten)]
    totals: TotalsReport,
}

#[derive(Debug, Serialize)]
struct ReasonReport {
    reason: &'static str,
    hour: u64,
    day: u64,
    total: u64,
}

impl From<Totals> for TotalsReport {
    fn from(totals: Totals) -> Self {
        Self {
            requests: totals.requests,
            hits: totals.hits,
            read: totals.read,
            created: totals.created,
        }
    }
}

/// What else the report shows: of the moment, and of other parts of the service.
pub struct Around<'a> {
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// `ok`, or the code that `/readyz` refuses with.
    pub ready: &'static str,
    /// What the store said of itself; `None` when it did not answer.
    pub stats: Option<Stats>,
    /// The counters.
    pub metrics: &'a Metrics,
    /// Whose tokenizers are loaded.
    pub models: &'a Models,
    /// How counts follow the upstream's.
    pub drift: &'a Drift,
    /// Which accounts are still known.
    pub principals: &'a Principals,
}

/// The report of now.
pub fn report(status: &Status, around: &Around<'_>) -> Report {
    let now_ms = around.now_ms;
    status.look(around.metrics, now_ms);
    let at = |time: u64| (time > 0).then_some(time);

    let mut inner = status.lock();
    let [hour, day] = inner.history.series(now_ms);
    let mut totals = Totals::default();
    for model in &inner.models {
        totals.requests += model.totals.requests;
        totals.hits += model.totals.hits;
        totals.read += model.totals.read;
        totals.created += model.totals.created;
    }
    let mut busiest: Vec<&ModelTotals> = inner.models.iter().collect();
    busiest.sort_by_key(|model| std::cmp::Reverse(model.totals.tokens()));
    busiest.truncate(MODELS_SHOWN_MAX);
    let known = |name: &str| around.principals.has_account(name);
    let accounts = inner.accounts.top(ACCOUNTS_SHOWN_MAX, known);
    let mut reasons: Vec<ReasonReport> = Reason::ALL
        .into_iter()
        .zip(inner.counted)
        .filter(|(_, total)| *total > 0)
        .map(|(reason, total)| {
            let [hour, day] = inner.history.counted(reason);
            let reason = reason.as_str();
            ReasonReport {
                reason,
                hour,
                day,
                total,
            }
        })
        .collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse((reason.hour, reason.day, reason.total)));
    Report {
        v: REPORT_VERSION,
        version: env!("CARGO_PKG_VERSION"),
        now_ms,
        started_at_ms: status.started_at_ms,
        ready: around.ready,
        currency: status.currency.clone(),
        store: store_report(status, around),
        proxies: Proxies {
            policy_at_ms: at(status.policy_at_ms.load(Ordering::Relaxed)),
            classify_at_ms: at(status.classify_at_ms.load(Ordering::Relaxed)),
        },
        totals: totals.into(),
        models_configured: inner.models.len(),
        models: busiest
            .into_iter()
            .map(|model| model_report(around, model))
            .collect(),
        hour,
        day,
        accounts_configured: around.metrics.accounts.get(),
        accounts: accounts
            .into_iter()
            .filter_map(|(account, model, totals)| {
                let model = inner.models.get(model)?.model.clone();
                Some(AccountReport {
                    account: account.as_ref().to_owned(),
                    model,
                    totals: totals.into(),
                })
            })
            .collect(),
        reasons,
    }
}

fn store_report(status: &Status, around: &Around<'_>) -> StoreReport {
    let stats = around.stats.as_ref();
    let errors = StoreOperation::ALL.iter();
    StoreReport {
        kind: status.store_kind,
        answers: stats.is_some(),
        entries: stats.map(|stats| stats.entries),
        disk_bytes: stats.map(|stats| stats.disk_bytes),
        retries: stats.map(|stats| stats.retries),
        errors: errors
            .map(|operation| around.metrics.store_errors.counted(*operation))
            .sum(),
    }
}

fn model_report(around: &Around<'_>, model: &ModelTotals) -> ModelReport {
    let saved = |tier, read, created| Some(model.prices?.saved(tier, read, created));
    let of_tier = |(tier, (read, created)): (Tier, (u64, u64))| TierReport {
        tier: tier.as_str(),
        read,
        created,
        saved: saved(tier, read, created),
    };
    let used = |tier: &TierReport| tier.read > 0 || tier.created > 0;
    let tiers: Vec<TierReport> = Tier::ALL
        .into_iter()
        .zip(model.tiers)
        .map(of_tier)
        .filter(used)
        .collect();
    let (state, ratio, comparisons) = around.drift.view(&model.model);
    ModelReport {
        model: model.model.clone(),
        loaded: around.models.get(&model.model).is_some(),
        counts: Counts {
            state: state.as_str(),
            ratio,
            comparisons,
        },
        totals: model.totals.into(),
        saved: model
            .prices
            .map(|_| tiers.iter().filter_map(|tier| tier.saved).sum()),
        tiers,
    }
}
