//! What client, upstream and judge know together.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    answer::Answer, clock::Clocks, delivered::UsageOnly, journal::Journal, ledger::Ledger, prompt,
    script::Script, settings::Plant, starved::Starved,
};

/// Looks at Envoy's own delay that are kept.
const LAGS_MAX: usize = 3_000;

/// What the upstream did about a request.
#[derive(Clone, Debug)]
pub struct Sent {
    pub answer: Answer,
    pub usage_only: UsageOnly,
    pub arrived_ms: i64,
    /// The first event is about to be written.
    pub first_event_ms: Option<i64>,
    /// The last byte is about to be written.
    pub last_ms: Option<i64>,
    /// It broke off.
    pub broke: bool,
    /// What is wrong with what was forwarded.
    pub problem: Option<String>,
}

/// All of it.
#[derive(Debug)]
pub struct State {
    pub clocks: Clocks,
    pub ledger: Ledger,
    pub journal: Journal,
    pub sent: HashMap<u64, Sent>,
    /// When a request that nothing holds back was answered, and after how long.
    lags: VecDeque<(i64, i64)>,
    /// Processes without which nothing moves: Envoy, and this one.
    watched: Vec<Starved>,
}

/// Shared by everybody in this process.
#[derive(Clone, Debug)]
pub struct Books {
    pub seed: u64,
    pub plant: Option<Plant>,
    state: Arc<Mutex<State>>,
}

impl Books {
    pub fn open(seed: u64, plant: Option<Plant>, leases: bool) -> Self {
        let state = State {
            clocks: Clocks::start(),
            ledger: Ledger::new(leases),
            journal: Journal::default(),
            sent: HashMap::new(),
            lags: VecDeque::new(),
            watched: Vec::new(),
        };
        Self {
            seed,
            plant,
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now_ms(&self) -> i64 {
        self.lock().clocks.now_ms()
    }

    pub fn note(&self, what: &str) {
        let mut state = self.lock();
        let now_ms = state.clocks.now_ms();
        state.journal.note(now_ms, what);
    }

    pub fn violation(&self, what: &str) {
        let mut state = self.lock();
        let now_ms = state.clocks.now_ms();
        state.journal.violation(self.seed, now_ms, what);
    }

    /// The request is about to be complete: what it marked is paid for.
    pub fn paid(&self, script: &Script) {
        let (Some(tenant), true) = (script.tenant, script.billable()) else {
            return;
        };
        let counts = prompt::cumulative(&script.blocks);
        let mut state = self.lock();
        let State { clocks, ledger, .. } = &mut *state;
        let now_ms = clocks.now_ms();
        for mark in &script.marks {
            if counts[mark.depth] >= script.model.floor() {
                let key = (tenant, script.model, script.blocks[..=mark.depth].to_vec());
                ledger.paid(key, script.tier(mark), script.number, now_ms, clocks);
            }
        }
    }

    /// The request is, or was until now, in flight: it may extend what it may read.
    pub fn used(&self, script: &Script) {
        let (Some(tenant), true) = (script.tenant, script.billable()) else {
            return;
        };
        let mut state = self.lock();
        let State { clocks, ledger, .. } = &mut *state;
        let now_ms = clocks.now_ms();
        let deepest = script.marks.last().map_or(0, |mark| mark.depth + 1);
        for depth in 0..deepest {
            let key = (tenant, script.model, script.blocks[..=depth].to_vec());
            ledger.used(&key, script.number, now_ms, clocks);
        }
    }

    /// From now on, what `processes` wait for a processor is a delay that nobody can help.
    pub fn watch(&self, processes: [u32; 2]) {
        self.lock().watched = processes.map(Starved::of).into();
    }

    /// Envoy took `lag_ms` for a request that nothing holds back.
    pub fn lagged(&self, lag_ms: i64) {
        let mut state = self.lock();
        let now_ms = state.clocks.now_ms();
        state.lagged(now_ms, lag_ms);
    }
}

impl State {
    /// Asks how long the watched processes have waited since they were asked last.
    pub fn look(&mut self) {
        let waited = self.watched.iter_mut().map(Starved::since_last_ms);
        let lag_ms = waited.max().unwrap_or(0);
        let now_ms = self.clocks.now_ms();
        self.lagged(now_ms, lag_ms);
    }

    fn lagged(&mut self, now_ms: i64, lag_ms: i64) {
        if self.lags.len() == LAGS_MAX {
            self.lags.pop_front();
        }
        self.lags.push_back((now_ms, lag_ms));
    }

    /// The most that a busy machine added between two moments.
    pub fn lag_ms(&self, from_ms: i64, to_ms: i64) -> i64 {
        let near = self.lags.iter();
        // A look is noted at its end.
        let near = near.filter(|(at, lag)| *at >= from_ms && at - lag <= to_ms);
        near.map(|(_, lag)| *lag).max().unwrap_or(0)
    }
}
