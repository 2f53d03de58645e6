//! The root context: configuration, policy refresh, delivery of the outbox, the breaker's probe.

use std::{collections::HashMap, rc::Rc};

use prompt_cache_core::{
    config::FilterConfig,
    edge::{Delivery, PolicyView},
    ledger::FingerprintKey,
    wire::CommitAnswer,
};
use proxy_wasm::{
    traits::{Context, HttpContext, RootContext},
    types::ContextType,
};

use crate::{
    callout::{self, Answer},
    host,
    metrics::Metrics,
    shared::Shared,
    stream::Stream,
};

/// First pause between two attempts to get the first policy, in milliseconds; doubles up to
/// `policy_refresh_ms`.
const POLICY_RETRY_MIN_MS: u64 = 50;
/// When a policy request counts as lost, in milliseconds: well past the time a callout may take.
const POLICY_LOST_MS: u64 = 15_000;

/// What the module was built from; set by `just build`.
const COMMIT: Option<&str> = option_env!("PROMPT_CACHE_GIT_COMMIT");

/// One plugin configuration on one worker.
#[derive(Default)]
pub struct Root {
    metrics: Option<Rc<Metrics>>,
    running: Option<Running>,
}

/// A configured root context.
struct Running {
    shared: Rc<Shared>,
    policy: PolicyRefresh,
    /// Callouts of this context in flight, by token.
    callouts: HashMap<u32, Purpose>,
}

/// Keeps the policy fresh.
struct PolicyRefresh {
    etag: Option<String>,
    /// Failures since the last answer.
    failures: u32,
    due_at_ms: u64,
    /// When the request in flight was made.
    asked_at_ms: u64,
    loaded: bool,
}

/// What a callout of the root context is for.
#[derive(Clone, Copy)]
enum Purpose {
    Policy,
    Commit,
    Probe,
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_bytes: usize, _: usize) {
        let Some(running) = &mut self.running else {
            return;
        };
        let Some(purpose) = running.callouts.remove(&token) else {
            return;
        };
        let answer = Answer::read(headers, body_bytes);
        match purpose {
            Purpose::Policy => running.policy_answered(&answer),
            Purpose::Commit => running.commit_answered(&answer),
            Purpose::Probe => running.probed(answer.status == Some(200)),
        }
    }

    fn on_done(&mut self) -> bool {
        if let Some(metrics) = &self.metrics {
            metrics.no_more_ticks();
        }
        true
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let json = host::plugin_configuration().unwrap_or_default();
        let config = match FilterConfig::parse(&json) {
            Ok(config) => config,
            Err(error) => {
                log::error!("prompt-cache-filter: {error}");
                return false;
            }
        };
        if host::set_tick_period(config.commit_flush_ms).is_err() {
            log::error!("prompt-cache-filter: no tick");
            return false;
        }
        if config.fingerprint_key.is_empty() {
            log::warn!(
                "prompt-cache-filter: fingerprint_key is empty, fingerprints are not secret"
            );
        }
        let Some(key) = FingerprintKey::new(config.fingerprint_key.as_bytes()) else {
            log::error!("prompt-cache-filter: fingerprint_key cannot be used");
            return false;
        };
        let metrics = self
            .metrics
            .get_or_insert_with(|| Rc::new(Metrics::define()));
        self.running = Some(Running {
            shared: Rc::new(Shared::new(config, key, Rc::clone(metrics))),
            policy: PolicyRefresh {
                etag: None,
                failures: 0,
                due_at_ms: 0,
                asked_at_ms: 0,
                loaded: false,
            },
            callouts: HashMap::new(),
        });
        log::info!(
            "prompt-cache-filter {} ({}) configured",
            env!("CARGO_PKG_VERSION"),
            COMMIT.unwrap_or("commit unknown")
        );
        true
    }

    fn on_tick(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        let now_ms = running.shared.now_ms();
        running.refresh_policy(now_ms);
        running.collect_reads(now_ms);
        running.deliver(now_ms);
        running.shared.metrics.tick();
        running.probe(now_ms);
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        let shared = self
            .running
            .as_ref()
            .map(|running| Rc::clone(&running.shared));
        Some(Box::new(Stream::new(shared)))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Running {
    fn refresh_policy(&mut self, now_ms: u64) {
        if now_ms < self.policy.due_at_ms {
            return;
        }
        // Its answer sets the next time; without one it is asked again all the same.
        self.policy.due_at_ms = now_ms.saturating_add(POLICY_LOST_MS);
        self.policy.asked_at_ms = now_ms;
        match callout::policy(&self.shared.config, self.policy.etag.as_deref()) {
            Ok(token) => {
                self.callouts.insert(token, Purpose::Policy);
            }
            Err(_) => self.policy_failed(),
        }
    }

    fn policy_answered(&mut self, answer: &Answer) {
        match answer.status {
            Some(304) if self.policy.etag.is_some() => {
                let asked_at_ms = self.policy.asked_at_ms;
                self.shared.leases.borrow_mut().confirm(asked_at_ms);
            }
            Some(200) => {
                let Some(view) = answer.body().and_then(|body| PolicyView::parse(&body)) else {
                    return self.policy_failed();
                };
                self.policy.etag = host::callout_header("etag")
                    .ok()
                    .flatten()
                    .and_then(|etag| String::from_utf8(etag).ok());
                self.replace_policy(view);
            }
            _ => return self.policy_failed(),
        }
        if !self.policy.loaded {
            self.policy.loaded = true;
            self.shared.metrics.policy_first_loads.add(1);
        }
        self.policy.failures = 0;
        let now_ms = self.shared.now_ms();
        self.policy.due_at_ms = now_ms + jittered(self.shared.config.policy_refresh_ms);
        self.shared.metrics.policy_refreshed(true);
    }

    /// What was leased under another policy is void: it may have been purged.
    fn replace_policy(&self, view: PolicyView) {
        let asked_at_ms = self.policy.asked_at_ms;
        let mut leases = self.shared.leases.borrow_mut();
        if *self.shared.policy.borrow() == view {
            leases.confirm(asked_at_ms);
        } else {
            leases.renew(view.epoch(), asked_at_ms);
            if view == PolicyView::Foreign {
                log::warn!("prompt-cache-filter: index service speaks another version");
            }
            self.shared.policy.replace(view);
        }
    }

    /// Keeps the policy it has: a service that is away makes classifications fail, not models
    /// disappear.
    fn policy_failed(&mut self) {
        let refresh_ms = self.shared.config.policy_refresh_ms;
        let pause_ms = if self.policy.loaded {
            refresh_ms
        } else {
            POLICY_RETRY_MIN_MS
                .saturating_mul(1 << self.policy.failures.min(16))
                .min(refresh_ms)
        };
        self.policy.failures = self.policy.failures.saturating_add(1);
        self.policy.due_at_ms = self.shared.now_ms() + jittered(pause_ms);
        self.shared.metrics.policy_refreshed(false);
    }

    fn collect_reads(&self, now_ms: u64) {
        let mut leases = self.shared.leases.borrow_mut();
        while let Some(aged) = leases.untold(now_ms) {
            self.shared.read(aged.message, aged.at_ms);
        }
    }

    fn deliver(&mut self, now_ms: u64) {
        let (settled, batch) = self.shared.outbox.borrow_mut().next_batch(now_ms);
        self.shared.metrics.commits(settled);
        let Some(batch) = batch else { return };
        match callout::commit(&self.shared.config, &batch) {
            Ok(token) => {
                self.callouts.insert(token, Purpose::Commit);
            }
            Err(_) => self.delivered(Delivery::Failed, &CommitAnswer::default()),
        }
    }

    fn commit_answered(&self, answer: &Answer) {
        let delivery = match answer.status {
            Some(200..=299) => Delivery::Delivered,
            Some(400 | 413) => Delivery::Refused,
            _ => Delivery::Failed,
        };
        self.delivered(delivery, &answer.commit().unwrap_or_default());
    }

    fn delivered(&self, delivery: Delivery, answer: &CommitAnswer) {
        let now_ms = self.shared.now_ms();
        let arrived = self.shared.outbox.borrow_mut().settle(delivery, now_ms);
        {
            let mut leases = self.shared.leases.borrow_mut();
            leases.committed(&arrived.commits, answer, now_ms);
            leases.extended(&arrived.reads, answer, now_ms);
        }
        self.shared.metrics.commits(arrived.settled);
        if delivery == Delivery::Failed {
            self.shared.metrics.commit_retries.add(1);
        }
    }

    fn probe(&mut self, now_ms: u64) {
        if !self.shared.breaker.borrow_mut().start_probe(now_ms) {
            return;
        }
        match callout::probe(&self.shared.config) {
            Ok(token) => {
                self.callouts.insert(token, Purpose::Probe);
            }
            Err(_) => self.probed(false),
        }
    }

    fn probed(&self, healthy: bool) {
        let now_ms = self.shared.now_ms();
        self.shared.breaker.borrow_mut().probed(healthy, now_ms);
        if healthy {
            log::info!("prompt-cache-filter: index service healthy, breaker closed");
        }
    }
}

/// A period shortened by up to a tenth, so that workers and proxies do not ask in step.
fn jittered(period_ms: u64) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(period_ms);
    period_ms - random % (period_ms / 10 + 1)
}
