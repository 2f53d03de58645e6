//! The circuit breaker in front of the classification: a service that is down costs no stream
//! its deadline.

/// Opens after a run of failures; closes after a successful probe.
#[derive(Debug)]
pub struct Breaker {
    failures_max: u32,
    open_ms: u64,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Callouts pass; this many failed in a row.
    Closed { failures: u32 },
    /// No callouts until the probe at `probe_at_ms`.
    Open { probe_at_ms: u64 },
    /// The probe is in flight; still no callouts.
    Probing,
}

impl Breaker {
    /// A closed breaker that opens for `open_ms` after `failures_max` failures in a row.
    pub const fn new(failures_max: u32, open_ms: u64) -> Self {
        Self {
            failures_max,
            open_ms,
            state: State::Closed { failures: 0 },
        }
    }

    /// Whether callouts may be made.
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// A callout was answered. Late answers do not close an open breaker: its probe does.
    pub const fn succeeded(&mut self) {
        if let State::Closed { failures } = &mut self.state {
            *failures = 0;
        }
    }

    /// A callout failed. True if that opened the breaker.
    pub const fn failed(&mut self, now_ms: u64) -> bool {
        let State::Closed { failures } = &mut self.state else {
            return false;
        };
        *failures = failures.saturating_add(1);
        if *failures < self.failures_max {
            return false;
        }
        self.state = State::Open {
            probe_at_ms: now_ms.saturating_add(self.open_ms),
        };
        true
    }

    /// True once per open period, when it is time to probe; the caller reports with
    /// [`Self::probed`].
    pub const fn start_probe(&mut self, now_ms: u64) -> bool {
        match self.state {
            State::Open { probe_at_ms } if now_ms >= probe_at_ms => {
                self.state = State::Probing;
                true
            }
            _ => false,
        }
    }

    /// The probe's result: closes the breaker or leaves it open for another period.
    pub const fn probed(&mut self, healthy: bool, now_ms: u64) {
        self.state = if healthy {
            State::Closed { failures: 0 }
        } else {
            State::Open {
                probe_at_ms: now_ms.saturating_add(self.open_ms),
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_in_a_row_and_closes_by_its_probe() {
        let mut breaker = Breaker::new(3, 100);
        assert!(!breaker.failed(0) && !breaker.failed(0));
        breaker.succeeded();
        assert!(!breaker.failed(0) && !breaker.failed(0) && breaker.is_closed());
        assert!(breaker.failed(10) && !breaker.is_closed());
        assert!(!breaker.failed(20), "already open");
        breaker.succeeded();
        assert!(!breaker.is_closed(), "a late answer does not close it");
        assert!(!breaker.start_probe(109) && breaker.start_probe(110) && !breaker.start_probe(111));
        breaker.probed(false, 120);
        assert!(!breaker.start_probe(219) && breaker.start_probe(220) && !breaker.is_closed());
        breaker.probed(true, 230);
        assert!(breaker.is_closed() && !breaker.failed(240));
    }
}
