//! What the streams of one root context share. Borrows never span a host call: Envoy may
//! re-enter the VM from inside one.

use std::{cell::RefCell, rc::Rc, time::Instant};

use prompt_cache_core::{
    config::FilterConfig,
    edge::{Breaker, Flights, Leases, Outbox, PolicyView},
    ledger::FingerprintKey,
    wire::{Commit, LeasedRead},
};

use crate::metrics::Metrics;

/// One configured root context. A new configuration makes a new one; streams in flight keep
/// theirs.
#[derive(Debug)]
pub struct Shared {
    pub config: FilterConfig,
    pub fingerprint_key: FingerprintKey,
    pub metrics: Rc<Metrics>,
    pub policy: RefCell<PolicyView>,
    pub leases: RefCell<Leases>,
    pub flights: RefCell<Flights>,
    pub breaker: RefCell<Breaker>,
    pub outbox: RefCell<Outbox>,
    started: Instant,
}

impl Shared {
    pub fn new(
        config: FilterConfig,
        fingerprint_key: FingerprintKey,
        metrics: Rc<Metrics>,
    ) -> Self {
        Self {
            fingerprint_key,
            policy: RefCell::default(),
            leases: RefCell::new(Leases::new(config.lease_bytes_max, config.lease_trust_ms)),
            flights: RefCell::default(),
            breaker: RefCell::new(Breaker::new(
                config.breaker_failures,
                config.breaker_open_ms,
            )),
            outbox: RefCell::new(Outbox::new(
                config.commit_queue_max,
                config.commit_deadline_ms,
            )),
            config,
            metrics,
            started: Instant::now(),
        }
    }

    /// Milliseconds on a clock that never goes back.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Queues an earned commit; the root context delivers it on its next tick.
    pub fn commit(&self, commit: Commit) {
        let settled = self.outbox.borrow_mut().commit(commit, self.now_ms());
        self.metrics.commits(settled);
    }

    /// Queues a read that was answered from leases at `at_ms`.
    pub fn read(&self, read: LeasedRead, at_ms: u64) {
        self.outbox.borrow_mut().read(read, at_ms);
    }

    /// Reports a classification callout to the breaker.
    pub fn classification(&self, answered: bool) {
        let now_ms = self.now_ms();
        let opened = {
            let mut breaker = self.breaker.borrow_mut();
            if answered {
                breaker.succeeded();
                false
            } else {
                breaker.failed(now_ms)
            }
        };
        if opened {
            self.metrics.breaker_opened.add(1);
            log::warn!("prompt-cache-filter: index service failing, breaker opened");
        }
    }
}
