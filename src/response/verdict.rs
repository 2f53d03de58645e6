//! What a response turned out to be: whether it earns its commit, and what is counted of it.

use prompt_cache_core::{
    edge::Bypass,
    ledger::{Cap, Split},
    response::Completion,
};

use super::{Response, State};
use crate::metrics::Veto;

impl Response {
    /// Why nothing of this response may be committed.
    pub fn veto(&self) -> Option<Veto> {
        let complete = match &self.state {
            State::Ahead => return Some(Veto::Disconnect),
            State::Passing { complete } => *complete,
            State::Rewriting(delivery) => delivery.complete(),
        };
        let completion = self.completion();
        if !self.success {
            Some(Veto::Non2xx)
        } else if completion.is_some_and(|c| c.error_seen()) {
            Some(Veto::ErrorFrame)
        } else if !complete {
            Some(Veto::Disconnect)
        } else if !completion.is_some_and(|c| c.usage_seen()) {
            Some(Veto::NoUsage)
        } else {
            None
        }
    }

    /// Whether usage could be read from this response at all.
    pub const fn readable(&self) -> bool {
        matches!(self.state, State::Rewriting(_))
    }

    /// The split as the client saw it.
    pub fn shown(&self) -> Option<Split> {
        self.completion()?.shown()
    }

    /// What the shown split had to give up.
    pub fn cap(&self) -> Cap {
        self.completion().map_or(Cap::None, Completion::cap)
    }

    /// The upstream's own count.
    pub fn prompt_tokens(&self) -> Option<u64> {
        self.completion()?.prompt_tokens()
    }

    /// The tokens that the upstream says it had cached.
    pub fn engine_cached(&self) -> Option<u64> {
        self.completion()?.engine_cached()
    }

    /// How long a terminal usage frame waited, or waits, in milliseconds; `None` if none did.
    pub fn held_ms(&self, now_ms: u64) -> Option<u64> {
        match &self.state {
            State::Ahead | State::Passing { .. } => None,
            State::Rewriting(delivery) => delivery.held_ms(now_ms),
        }
    }

    /// Most bytes that were held back at once; `None` if none were.
    pub fn held_bytes(&self) -> Option<u64> {
        let bytes = self.completion()?.held_bytes_max();
        u64::try_from(bytes).ok().filter(|bytes| *bytes > 0)
    }

    /// Parts of the response that passed unedited, once each.
    pub fn bypasses(&self) -> impl Iterator<Item = Bypass> {
        let oversize = self.completion().is_some_and(|c| c.oversize_events() > 0);
        let overflow = self.completion().is_some_and(|c| c.released_unedited() > 0);
        [
            oversize.then_some(Bypass::OversizeEvent),
            overflow.then_some(Bypass::HeldOverflow),
        ]
        .into_iter()
        .flatten()
    }

    fn completion(&self) -> Option<&Completion> {
        match &self.state {
            State::Ahead | State::Passing { .. } => None,
            State::Rewriting(delivery) => Some(delivery.completion()),
        }
    }
}
