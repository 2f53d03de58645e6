//! What happened on the response: the facts the commit gate and the metrics ask for.

use crate::ledger::{Cap, Split};

/// The facts of one response so far. Everything is known by byte content alone, so it does not
/// depend on how the body was cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    usage_seen: bool,
    error_seen: bool,
    done: bool,
    ended: bool,
    prompt_tokens: Option<u64>,
    engine_cached: Option<u64>,
    shown: Option<(Split, Cap)>,
    oversize_events: u64,
    released_unedited: u64,
    held_bytes_max: usize,
}

impl Completion {
    pub(super) const fn new() -> Self {
        Self {
            usage_seen: false,
            error_seen: false,
            done: false,
            ended: false,
            prompt_tokens: None,
            engine_cached: None,
            shown: None,
            oversize_events: 0,
            released_unedited: 0,
            held_bytes_max: 0,
        }
    }

    /// A usage object was seen. In a JSON body: known at its end, if the body is JSON at all.
    pub const fn usage_seen(&self) -> bool {
        self.usage_seen
    }

    /// An error was seen: a top-level `error` that is not null, or an event named `error`.
    pub const fn error_seen(&self) -> bool {
        self.error_seen
    }

    /// `data: [DONE]` has left (not merely arrived: it may be held behind a waiting frame).
    pub const fn done(&self) -> bool {
        self.done
    }

    /// The end of the body was seen.
    pub const fn ended(&self) -> bool {
        self.ended
    }

    /// `prompt_tokens` of the last usage object, if it was a non-negative integer there. Not
    /// read from a JSON body that an inactive answer lets pass without a look.
    pub const fn prompt_tokens(&self) -> Option<u64> {
        self.prompt_tokens
    }

    /// The tokens of the prompt that the upstream itself said it had cached, by the last usage
    /// object that says so. Known where [`Self::prompt_tokens`] is.
    pub const fn engine_cached(&self) -> Option<u64> {
        self.engine_cached
    }

    /// The split of the last usage object that was rewritten, after the cap. A usage-only frame
    /// that was not delivered counts as rewritten: its split is what the request is billed.
    pub fn shown(&self) -> Option<Split> {
        self.shown.map(|(split, _)| split)
    }

    /// What the cap took from [`Self::shown`].
    pub fn cap(&self) -> Cap {
        self.shown.map_or(Cap::None, |(_, cap)| cap)
    }

    /// Events longer than `event_bytes_max`, passed on unread.
    pub const fn oversize_events(&self) -> u64 {
        self.oversize_events
    }

    /// Usage objects that left unedited because `held_bytes_max` was reached.
    pub const fn released_unedited(&self) -> u64 {
        self.released_unedited
    }

    /// Most bytes that were kept at once for the answer (SSE) or the end of the body (JSON); 0 when
    /// nothing had to wait. Never more than the cap.
    pub const fn held_bytes_max(&self) -> usize {
        self.held_bytes_max
    }

    pub(super) fn see_held(&mut self, bytes: usize) {
        self.held_bytes_max = self.held_bytes_max.max(bytes);
    }

    pub(super) const fn see_usage(&mut self) {
        self.usage_seen = true;
    }

    pub(super) const fn see_error(&mut self) {
        self.error_seen = true;
    }

    pub(super) const fn see_done(&mut self) {
        self.done = true;
    }

    pub(super) const fn see_end(&mut self) {
        self.ended = true;
    }

    pub(super) const fn see_prompt_tokens(&mut self, prompt_tokens: Option<u64>) {
        self.prompt_tokens = prompt_tokens;
    }

    pub(super) fn see_engine_cached(&mut self, tokens: Option<u64>) {
        self.engine_cached = tokens.or(self.engine_cached);
    }

    pub(super) const fn show(&mut self, shown: (Split, Cap)) {
        self.shown = Some(shown);
    }

    pub(super) const fn count_oversize(&mut self) {
        self.oversize_events = self.oversize_events.saturating_add(1);
    }

    pub(super) const fn count_released(&mut self, frames: u64) {
        self.released_unedited = self.released_unedited.saturating_add(frames);
    }
}
