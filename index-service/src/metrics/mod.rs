//! The service's Prometheus metrics: closed label sets, all names start `prompt_cache_index_`.

mod labels;

use std::hash::Hash;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use labels::{
    ClassifyLabels, ClassifyOutcome, CommitLabels, CommitOutcome, CountMethod, MethodLabels,
    ModelLabels, ModelLoadLabels, ModelLoadOutcome, RefreshLabels, RefreshOutcome, Reload,
    ReloadLabels, Shed, ShedLabels, StateLabels, StoreLabels, StoreOperation, TierLabels,
    TokenizeLabels, TokenizeOutcome,
};

/// Content type of [`Metrics::render`].
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of one service.
pub struct Metrics {
    registry: Registry,
    /// Classifications by outcome.
    pub classify: Family<ClassifyLabels, Counter>,
    /// Duration of classifications.
    pub classify_seconds: Histogram,
    /// Duration of look-ups.
    pub look_up_seconds: Histogram,
    /// Counts by outcome.
    pub tokenize: Family<TokenizeLabels, Counter>,
    /// Counts by how they came about.
    pub counted: Family<MethodLabels, Counter>,
    /// Tokenizers loaded while the service runs, by outcome.
    pub model_loads: Family<ModelLoadLabels, Counter>,
    /// Duration of counts, with the wait for a thread.
    pub tokenize_seconds: Histogram,
    /// Duration of commit batches, until they were durable.
    pub commit_seconds: Histogram,
    /// Committed entries by outcome.
    pub commit_entries: Family<CommitLabels, Counter>,
    /// Refreshes by outcome.
    pub refreshes: Family<RefreshLabels, Counter>,
    /// Requests refused to protect the service.
    pub shed: Family<ShedLabels, Counter>,
    /// Failed store operations.
    pub store_errors: Family<StoreLabels, Counter>,
    /// Store operations that were tried again.
    pub store_retries: Gauge<u64, AtomicU64>,
    /// Entries in the store.
    pub entries: Gauge<u64, AtomicU64>,
    /// Bytes the store takes on disk.
    pub store_bytes: Gauge<u64, AtomicU64>,
    /// Completed sweeps.
    pub sweeps: Counter,
    /// Entries removed by sweeps.
    pub swept_entries: Counter,
    /// Entries removed by purges over HTTP.
    pub purged_entries: Counter,
    /// Looks at changed accounts by result.
    pub account_reloads: Family<ReloadLabels, Counter>,
    /// Accounts in use.
    pub accounts: Gauge<u64, AtomicU64>,
    /// Tokens classified as read.
    pub read_tokens: Family<ModelLabels, Counter>,
    /// Tokens classified as created.
    pub created_tokens: Family<TierLabels, Counter>,
    /// Our count of the whole prompt over the upstream's.
    pub drift: Family<ModelLabels, Histogram, fn() -> Histogram>,
    /// 1 for the state that a model's counts are in, 0 for the others.
    pub drift_state: Family<StateLabels, Gauge<u64, AtomicU64>>,
}

impl Metrics {
    /// Fresh metrics, all counters of closed label sets at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("prompt_cache_index");
        let r = &mut registry;
        let build = Info::new(vec![(
            "version".to_owned(),
            env!("CARGO_PKG_VERSION").to_owned(),
        )]);
        r.register("build", "Version of the service", build);
        let metrics = Self {
            classify: add(r, "classify", "Classifications by outcome"),
            classify_seconds: seconds(r, "classify_duration", "Duration of a classification"),
            look_up_seconds: seconds(r, "lookup_duration", "Duration of a look-up in the store"),
            tokenize: add(r, "tokenize", "Counts of new text by outcome"),
            counted: add(r, "counted", "Counts by how they came about"),
            model_loads: add(
                r,
                "model_loads",
                "Tokenizers loaded while running, by outcome",
            ),
            tokenize_seconds: seconds(r, "tokenize_duration", "Duration of a count, with its wait"),
            commit_seconds: seconds(r, "commit_duration", "Duration of a commit batch"),
            commit_entries: add(r, "commit_entries", "Committed entries by outcome"),
            refreshes: add(r, "refreshes", "Refreshes by outcome"),
            shed: add(r, "shed", "Requests refused to protect the service"),
            store_errors: add(r, "store_errors", "Failed store operations"),
            store_retries: add(
                r,
                "store_retries",
                "Store operations tried again since the start",
            ),
            entries: add(
                r,
                "entries",
                "Entries in the store, expired ones until swept",
            ),
            store_bytes: add(r, "store_bytes", "Bytes the store takes on disk"),
            sweeps: add(r, "sweeps", "Completed sweeps"),
            swept_entries: add(r, "swept_entries", "Expired entries removed"),
            purged_entries: add(r, "purged_entries", "Entries removed by purges over HTTP"),
            account_reloads: add(r, "account_reloads", "Looks at changed accounts by result"),
            accounts: add(r, "accounts", "Accounts in use"),
            read_tokens: add(r, "read_tokens", "Tokens classified as read"),
            created_tokens: add(r, "created_tokens", "Tokens classified as created"),
            drift: drift(r),
            drift_state: add(
                r,
                "counts_state",
                "1 for how well a model's counts follow the upstream's",
            ),
            registry,
        };
        metrics.start_at_zero();
        metrics
    }

    fn start_at_zero(&self) {
        zero(&self.classify, ClassifyOutcome::ALL);
        zero(&self.tokenize, TokenizeOutcome::ALL);
        zero(&self.counted, CountMethod::ALL);
        zero(&self.model_loads, ModelLoadOutcome::ALL);
        zero(&self.commit_entries, CommitOutcome::ALL);
        zero(&self.refreshes, RefreshOutcome::ALL);
        zero(&self.shed, Shed::ALL);
        zero(&self.account_reloads, Reload::ALL);
        zero(&self.store_errors, StoreOperation::ALL);
    }

    /// The metrics as text ([`METRICS_CONTENT_TYPE`]).
    ///
    /// # Errors
    /// When a metric cannot be written.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn add<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: Default + Clone + prometheus_client::registry::Metric,
{
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// Buckets from 20 µs to 10 s.
fn seconds(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let histogram = Histogram::new([
        2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0,
        5.0, 10.0,
    ]);
    let unit = prometheus_client::registry::Unit::Seconds;
    registry.register_with_unit(name, help, unit, histogram.clone());
    histogram
}

fn drift(registry: &mut Registry) -> Family<ModelLabels, Histogram, fn() -> Histogram> {
    let buckets: fn() -> Histogram = || {
        Histogram::new([
            0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0, 1.01, 1.02, 1.05, 1.1, 1.25, 1.5,
        ])
    };
    let family = Family::new_with_constructor(buckets);
    let help = "Our count of the whole prompt over the upstream's prompt_tokens";
    registry.register("counted_prompt_ratio", help, family.clone());
    family
}

fn zero<L, V>(family: &Family<L, Counter>, values: &[V])
where
    L: Clone + Hash + Eq + From<V>,
    V: Copy,
{
    for value in values {
        drop(family.get_or_create(&L::from(*value)));
    }
}

/// Counting by the value of a single label.
pub trait Tally<V> {
    /// Counts one.
    fn count(&self, value: V) {
        self.count_by(value, 1);
    }

    /// Counts `by`.
    fn count_by(&self, value: V, by: u64);

    /// What has been counted.
    fn counted(&self, value: V) -> u64;
}

impl<L, V> Tally<V> for Family<L, Counter>
where
    L: Clone + Hash + Eq + From<V>,
{
    fn count_by(&self, value: V, by: u64) {
        self.get_or_create(&value.into()).inc_by(by);
    }

    fn counted(&self, value: V) -> u64 {
        self.get_or_create(&value.into()).get()
    }
}
