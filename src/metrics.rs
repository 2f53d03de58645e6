//! The filter's Envoy stats. Names here, tags in the shipped Envoy configs' `stats_tags`.
//!
//! A labelled counter is one stat per value, named `promptcache.<name>_<label>=<value>;`, from
//! which Envoy's tag extraction makes `promptcache_<name>{<label>="<value>"}`. Stats are never
//! freed: every label comes from a closed set and is defined when the VM is configured.

use std::cell::Cell;

use prompt_cache_core::{
    edge::{Bypass, Marked},
    ledger::{Outcome, Tier},
    request::RefusalReason,
};
use proxy_wasm::types::MetricType;

use crate::host;

/// How a classification ended, for `classify_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassifyOutcome {
    Ok,
    Error,
    DeadlineExceeded,
    BreakerOpen,
    Abandoned,
}

impl ClassifyOutcome {
    const ALL: [Self; 5] = [
        Self::Ok,
        Self::Error,
        Self::DeadlineExceeded,
        Self::BreakerOpen,
        Self::Abandoned,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::BreakerOpen => "breaker_open",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Why an earned commit was not made, for `commit_vetoed_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Veto {
    Non2xx,
    ErrorFrame,
    NoUsage,
    Disconnect,
}

impl Veto {
    const ALL: [Self; 4] = [
        Self::Non2xx,
        Self::ErrorFrame,
        Self::NoUsage,
        Self::Disconnect,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Non2xx => "non_2xx",
            Self::ErrorFrame => "error_frame",
            Self::NoUsage => "no_usage",
            Self::Disconnect => "disconnect",
        }
    }
}

/// Streams per tick whose counters show when they end. Behind them, under load, counters show on
/// the tick: a request makes half a dozen additions, and each would be a host call.
const SHOWN_AT_ONCE_PER_TICK: u32 = 4;

/// A counter without labels. What is added shows on the next [`Metrics::flush`].
#[derive(Debug)]
pub struct Counter {
    id: Option<u32>,
    added: Cell<u64>,
}

impl Counter {
    fn define(name: &str) -> Self {
        Self {
            id: host::define_metric(MetricType::Counter, &format!("promptcache.{name}")).ok(),
            added: Cell::new(0),
        }
    }

    /// Adds `by`.
    pub fn add(&self, by: u64) {
        self.added.set(self.added.get().saturating_add(by));
    }

    /// Envoy refuses an increment of zero.
    fn flush(&self) {
        if let (Some(id), Ok(by @ 1..)) = (self.id, i64::try_from(self.added.take())) {
            let _ = host::increment(id, by);
        }
    }
}

/// A counter with one label of a closed set.
#[derive(Debug)]
pub struct Labelled(Vec<(&'static str, Counter)>);

impl Labelled {
    fn define(name: &str, label: &str, values: impl IntoIterator<Item = &'static str>) -> Self {
        let counter = |value| (value, Counter::define(&format!("{name}_{label}={value};")));
        Self(values.into_iter().map(counter).collect())
    }

    fn add(&self, value: &str, by: u64) {
        if let Some((_, counter)) = self.0.iter().find(|(label, _)| *label == value) {
            counter.add(by);
        }
    }

    fn flush(&self) {
        for (_, counter) in &self.0 {
            counter.flush();
        }
    }
}

/// A histogram of milliseconds or bytes.
#[derive(Debug)]
pub struct Histogram(Option<u32>);

impl Histogram {
    fn define(name: &str) -> Self {
        Self(host::define_metric(MetricType::Histogram, &format!("promptcache.{name}")).ok())
    }

    pub fn record(&self, value: u64) {
        if let Some(id) = self.0 {
            let _ = host::record(id, value);
        }
    }
}

/// The size of the VM's linear memory, in pages of 64 KiB.
#[cfg(feature = "memory-gauge")]
#[derive(Debug)]
pub struct MemoryGauge(Option<u32>);

#[cfg(feature = "memory-gauge")]
impl MemoryGauge {
    fn define() -> Self {
        Self(host::define_metric(MetricType::Gauge, "promptcache.vm_memory_pages").ok())
    }

    pub fn show(&self) {
        if let Some(id) = self.0 {
            let pages = core::arch::wasm32::memory_size::<0>();
            let _ = host::record(id, pages as u64);
        }
    }
}

/// Every stat of the filter.
#[derive(Debug)]
pub struct Metrics {
    marker_requests: Labelled,
    requests: Labelled,
    markers_rejected: Labelled,
    classify: Labelled,
    pub classify_duration_ms: Histogram,
    pub terminal_hold_ms: Histogram,
    pub held_bytes: Histogram,
    pub read_input_tokens: Counter,
    creation_input_tokens: Labelled,
    /// Tokens that engines say they had cached, of the responses that were rewritten.
    engine_cached_tokens: Counter,
    /// Tokens shown as read in the responses in which engines say so, or could have.
    engine_compared_tokens: Counter,
    /// Whether an engine has ever said so.
    engines_say: Cell<bool>,
    commit: Labelled,
    pub commit_retries: Counter,
    commit_vetoed: Labelled,
    bypass: Labelled,
    pub split_capped: Counter,
    pub body_read_failed: Counter,
    pub volatile_blocks: Counter,
    pub breaker_opened: Counter,
    lease_hits: Counter,
    policy_refresh: Labelled,
    pub policy_first_loads: Counter,
    /// Streams that ended since the last tick; `None` when no tick will come any more.
    ended: Cell<Option<u32>>,
    #[cfg(feature = "memory-gauge")]
    pub vm_memory: MemoryGauge,
}

impl Metrics {
    /// Defines every stat; once per VM.
    pub fn define() -> Self {
        Self {
            marker_requests: Labelled::define(
                "marker_requests_total",
                "marked",
                ["true", "false", "auto"],
            ),
            requests: Labelled::define(
                "requests_total",
                "outcome",
                Outcome::ALL.map(Outcome::as_str),
            ),
            markers_rejected: Labelled::define(
                "markers_rejected_total",
                "reason",
                RefusalReason::ALL.map(RefusalReason::as_str),
            ),
            classify: Labelled::define(
                "classify_total",
                "outcome",
                ClassifyOutcome::ALL.map(ClassifyOutcome::as_str),
            ),
            classify_duration_ms: Histogram::define("classify_duration_ms"),
            terminal_hold_ms: Histogram::define("terminal_hold_ms"),
            held_bytes: Histogram::define("held_bytes"),
            read_input_tokens: Counter::define("read_input_tokens_total"),
            creation_input_tokens: Labelled::define(
                "creation_input_tokens_total",
                "tier",
                Tier::ALL.map(Tier::as_str),
            ),
            engine_cached_tokens: Counter::define("engine_cached_input_tokens_total"),
            engine_compared_tokens: Counter::define("engine_compared_read_input_tokens_total"),
            engines_say: Cell::new(false),
            commit: Labelled::define(
                "commit_total",
                "result",
                ["ok", "error", "timeout", "dropped"],
            ),
            commit_retries: Counter::define("commit_retries_total"),
            commit_vetoed: Labelled::define(
                "commit_vetoed_total",
                "reason",
                Veto::ALL.map(Veto::as_str),
            ),
            bypass: Labelled::define("bypass_total", "reason", Bypass::all().map(Bypass::as_str)),
            split_capped: Counter::define("split_capped_total"),
            body_read_failed: Counter::define("body_read_failed_total"),
            volatile_blocks: Counter::define("volatile_blocks_total"),
            breaker_opened: Counter::define("breaker_opened_total"),
            lease_hits: Counter::define("lease_hits_total"),
            policy_refresh: Labelled::define("policy_refresh_total", "result", ["ok", "error"]),
            policy_first_loads: Counter::define("policy_first_loads_total"),
            ended: Cell::new(Some(0)),
            #[cfg(feature = "memory-gauge")]
            vm_memory: MemoryGauge::define(),
        }
    }

    /// A stream's last addition was made.
    pub fn stream_ended(&self) {
        let ended = self.ended.get().map(|ended| ended.saturating_add(1));
        self.ended.set(ended);
        if ended.is_none_or(|ended| ended <= SHOWN_AT_ONCE_PER_TICK) {
            self.flush();
        }
    }

    /// Time for what the streams under load left.
    pub fn tick(&self) {
        self.ended.set(Some(0));
        self.flush();
    }

    /// The root context goes; streams in flight stay for a while.
    pub fn no_more_ticks(&self) {
        self.ended.set(None);
        self.flush();
    }

    /// Shows what was added since the last time.
    fn flush(&self) {
        for labelled in [
            &self.marker_requests,
            &self.requests,
            &self.markers_rejected,
            &self.classify,
            &self.creation_input_tokens,
            &self.commit,
            &self.commit_vetoed,
            &self.bypass,
            &self.policy_refresh,
        ] {
            labelled.flush();
        }
        for counter in [
            &self.read_input_tokens,
            &self.engine_cached_tokens,
            &self.engine_compared_tokens,
            &self.volatile_blocks,
            &self.commit_retries,
            &self.split_capped,
            &self.body_read_failed,
            &self.breaker_opened,
            &self.lease_hits,
            &self.policy_first_loads,
        ] {
            counter.flush();
        }
    }

    /// A classification from leases is one like any other, only without a callout.
    pub fn leased(&self) {
        self.classified(ClassifyOutcome::Ok);
        self.classify_duration_ms.record(0);
        self.lease_hits.add(1);
    }

    pub fn marker_request(&self, marked: Marked) {
        let marked = match marked {
            Marked::Client => "true",
            Marked::Policy => "auto",
            Marked::No => "false",
        };
        self.marker_requests.add(marked, 1);
    }

    pub fn request(&self, outcome: Outcome) {
        self.requests.add(outcome.as_str(), 1);
    }

    pub fn marker_rejected(&self, reason: RefusalReason) {
        self.markers_rejected.add(reason.as_str(), 1);
    }

    pub fn classified(&self, outcome: ClassifyOutcome) {
        self.classify.add(outcome.as_str(), 1);
    }

    /// What was shown as read beside what the engine says it had cached. Engines that say it leave
    /// the number out where it is 0: once one has said it, none is 0.
    pub fn compare(&self, read: u64, engine_cached: Option<u64>) {
        if engine_cached.is_some() {
            self.engines_say.set(true);
        }
        if self.engines_say.get() {
            self.engine_cached_tokens.add(engine_cached.unwrap_or(0));
            self.engine_compared_tokens.add(read);
        }
    }

    pub fn created(&self, tier: Tier, tokens: u64) {
        self.creation_input_tokens.add(tier.as_str(), tokens);
    }

    pub fn commits(&self, settled: prompt_cache_core::edge::Settled) {
        self.commit.add("ok", settled.ok);
        self.commit.add("error", settled.error);
        self.commit.add("timeout", settled.timeout);
        self.commit.add("dropped", settled.dropped);
    }

    pub fn vetoed(&self, veto: Veto) {
        self.commit_vetoed.add(veto.as_str(), 1);
    }

    pub fn bypassed(&self, bypass: Bypass) {
        self.bypass.add(bypass.as_str(), 1);
    }

    pub fn policy_refreshed(&self, ok: bool) {
        self.policy_refresh.add(if ok { "ok" } else { "error" }, 1);
    }
}
