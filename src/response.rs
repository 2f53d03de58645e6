//! The response side: from Envoy's buffer through the rewriter and back.
//!
//! A rewriter keeps what it cannot let go yet: a piece of an event, or a terminal usage frame
//! that waits for the classification. Those bytes may stay in Envoy's buffer too (a pause), or
//! only in the VM while everything before them leaves ([`Place`]). Only bytes under a pause can
//! still be edited when trailers arrive; but a pause holds back the whole chunk, and Envoy resets
//! a response whose next read does not fit its buffer beside what is paused.

use prompt_cache_core::{
    edge::Bypass,
    ledger::{Cap, Split},
    response::{Answer, BodyKind, Output, RewriteOptions, Rewriter},
};
use proxy_wasm::types::Action;

use crate::{host, metrics::Veto};

/// Most bytes left under a pause while more may follow: one HTTP/2 frame.
const PAUSED_PIECE_BYTES_MAX: usize = 16 << 10;
/// Most bytes left under a pause when hardly more can follow than trailers: half of Envoy's
/// default buffer limit.
const PAUSED_END_BYTES_MAX: usize = 512 << 10;
/// Headers that no longer describe a body which may change.
const BODY_HEADERS: [&str; 6] = [
    "content-length",
    "etag",
    "digest",
    "content-digest",
    "repr-digest",
    "content-md5",
];

/// What is known when the response's headers arrive.
pub struct Expected {
    pub answer: Option<Answer>,
    pub scrub: bool,
    pub event_bytes_max: usize,
    pub held_bytes_max: usize,
}

/// The response of one exchange.
pub struct Response {
    drop_usage_only: bool,
    success: bool,
    state: State,
}

enum State {
    /// No headers yet.
    Ahead,
    /// Passes as it is.
    Passing { complete: bool },
    /// Goes through the rewriter.
    Rewriting(Box<Rewriting>),
}

struct Rewriting {
    rewriter: Rewriter,
    kind: BodyKind,
    place: Place,
    /// Let go by the rewriter while Envoy gave no occasion to write it.
    released: Vec<u8>,
    /// Bytes in Envoy's buffer, under a pause, that the rewriter already has.
    paused_bytes: usize,
    end: End,
    hold: Hold,
}

/// Where bytes wait that the rewriter keeps, by how likely trailers are.
///
/// A pause while more follows is dangerous over HTTP/1.1, where Envoy reads up to a mebibyte at
/// once; HTTP/2 comes frame by frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// `content-length`, no trailers: in the VM. The end of the body is sure to follow.
    Vm,
    /// HTTP/1.1 in chunks, trailers only if somebody enabled them and none announced: a pause only
    /// for what ends the body, where it holds nothing else back.
    Chunked,
    /// HTTP/2, or until the connection closes: also a pause for a piece of an event, where it
    /// holds nothing else back.
    Unframed,
    /// Trailers are announced: always a pause.
    Announced,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// The end was seen; true if it is held by a pause.
    Seen {
        paused: bool,
    },
}

/// How long a terminal usage frame waited.
#[derive(Clone, Copy)]
enum Hold {
    Never,
    Since(u64),
    For(u64),
}

impl Response {
    /// A response that has not begun.
    pub const fn ahead(drop_usage_only: bool) -> Self {
        Self {
            drop_usage_only,
            success: false,
            state: State::Ahead,
        }
    }

    /// The response's headers: decides whether it is rewritten. Returns why not, if that is
    /// worth counting.
    pub fn headers(&mut self, expected: &Expected, end_of_stream: bool) -> Option<Bypass> {
        let headers = host::response_headers().unwrap_or_default();
        let header = |name| headers.get(name);
        self.success = header(":status").is_some_and(|s| s.len() == 3 && s.starts_with(b"2"));
        self.state = State::Passing {
            complete: end_of_stream,
        };
        if end_of_stream {
            return None;
        }
        let inactive = expected.answer == Some(Answer::Inactive);
        let kind = BodyKind::from_content_type(header("content-type").as_deref());
        let drops = self.drop_usage_only && kind == Some(BodyKind::Sse);
        if inactive && !drops && !expected.scrub {
            return None;
        }
        let Some(kind) = kind else {
            return Some(Bypass::ContentType);
        };
        let encoded = header("content-encoding")
            .is_some_and(|e| !e.is_empty() && !e.eq_ignore_ascii_case(b"identity"));
        if encoded {
            return Some(Bypass::Encoded);
        }
        let place = if header("trailer").is_some() {
            Place::Announced
        } else if header("content-length").is_some() {
            Place::Vm
        } else if header("transfer-encoding").is_some() {
            Place::Chunked
        } else {
            Place::Unframed
        };
        for name in BODY_HEADERS.iter().filter(|name| headers.has(name)) {
            let _ = host::remove_response_header(name);
        }
        let options = RewriteOptions {
            kind,
            drop_usage_only: self.drop_usage_only,
            event_bytes_max: expected.event_bytes_max,
            held_bytes_max: expected.held_bytes_max,
            scrub: expected.scrub,
        };
        self.state = State::Rewriting(Box::new(Rewriting {
            rewriter: Rewriter::new(options, expected.answer),
            kind,
            place,
            released: Vec::new(),
            paused_bytes: 0,
            end: End::Open,
            hold: Hold::Never,
        }));
        None
    }

    /// A body callback.
    pub fn body(&mut self, size: usize, end_of_stream: bool, now_ms: impl Fn() -> u64) -> Action {
        match &mut self.state {
            State::Ahead => Action::Continue,
            State::Passing { complete } => {
                *complete |= end_of_stream;
                Action::Continue
            }
            State::Rewriting(rewriting) => rewriting.body(size, end_of_stream, now_ms),
        }
    }

    /// The trailers callback: the end of the body, too.
    pub fn trailers(&mut self, now_ms: u64) -> Action {
        match &mut self.state {
            State::Ahead => Action::Continue,
            State::Passing { complete } => {
                *complete = true;
                Action::Continue
            }
            State::Rewriting(rewriting) => rewriting.trailers(now_ms),
        }
    }

    /// The classification is there, or will not come.
    pub fn answered(&mut self, answer: Answer, now_ms: u64) {
        if let State::Rewriting(rewriting) = &mut self.state {
            rewriting.answered(answer, now_ms);
        }
    }

    /// Why nothing of this response may be committed.
    pub fn veto(&self) -> Option<Veto> {
        let complete = match &self.state {
            State::Ahead => false,
            State::Passing { complete } => *complete,
            State::Rewriting(rewriting) => rewriting.complete(),
        };
        let completion = self.rewriter().map(Rewriter::completion);
        if matches!(self.state, State::Ahead) {
            Some(Veto::Disconnect)
        } else if !self.success {
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
    pub fn readable(&self) -> bool {
        self.rewriter().is_some()
    }

    /// The split as the client saw it.
    pub fn shown(&self) -> Option<Split> {
        self.rewriter()?.completion().shown()
    }

    /// What the shown split had to give up.
    pub fn cap(&self) -> Cap {
        self.rewriter().map_or(Cap::None, |r| r.completion().cap())
    }

    /// The upstream's own count.
    pub fn prompt_tokens(&self) -> Option<u64> {
        self.rewriter()?.completion().prompt_tokens()
    }

    /// How long a terminal usage frame waited, or waits, in milliseconds; `None` if none did.
    pub fn held_ms(&self, now_ms: u64) -> Option<u64> {
        let State::Rewriting(rewriting) = &self.state else {
            return None;
        };
        match rewriting.hold {
            Hold::Never => None,
            Hold::Since(since_ms) => Some(now_ms.saturating_sub(since_ms)),
            Hold::For(held_ms) => Some(held_ms),
        }
    }

    /// Parts of the response that passed unedited, once each.
    pub fn bypasses(&self) -> impl Iterator<Item = Bypass> {
        let completion = self.rewriter().map(Rewriter::completion);
        let oversize = completion.is_some_and(|c| c.oversize_events() > 0);
        let overflow = completion.is_some_and(|c| c.released_unedited() > 0);
        [
            oversize.then_some(Bypass::OversizeEvent),
            overflow.then_some(Bypass::HeldOverflow),
        ]
        .into_iter()
        .flatten()
    }

    fn rewriter(&self) -> Option<&Rewriter> {
        match &self.state {
            State::Rewriting(rewriting) => Some(&rewriting.rewriter),
            State::Ahead | State::Passing { .. } => None,
        }
    }
}

impl Rewriting {
    fn body(&mut self, size: usize, end_of_stream: bool, now_ms: impl Fn() -> u64) -> Action {
        let fresh_bytes = size.saturating_sub(self.paused_bytes);
        let Ok(chunk) = host::response_body(self.paused_bytes, fresh_bytes) else {
            return Action::Continue;
        };
        let output = self.rewriter.push(&chunk);
        let untouched = output == Output::Unchanged
            && self.released.is_empty()
            && self.paused_bytes == 0
            && !end_of_stream;
        if untouched {
            return Action::Continue;
        }
        match output {
            Output::Unchanged => self.released.extend_from_slice(&chunk),
            Output::Replace(bytes) => append(&mut self.released, bytes),
        }
        if end_of_stream {
            self.end();
        }
        self.note_hold(now_ms);
        if self.stays(size, end_of_stream) {
            self.paused_bytes = size;
            if end_of_stream {
                self.end = End::Seen { paused: true };
            }
            return Action::Pause;
        }
        if end_of_stream {
            self.end = End::Seen { paused: false };
        }
        self.write(&chunk);
        Action::Continue
    }

    fn trailers(&mut self, now_ms: u64) -> Action {
        self.end();
        self.note_hold(|| now_ms);
        let to_write = !self.released.is_empty() || self.rewriter.held_bytes() > 0;
        if to_write && self.paused_bytes == 0 {
            // Nothing under a pause, nothing can be written any more.
            log::warn!("prompt-cache-filter: unannounced trailers cut a response short");
            self.end = End::Seen { paused: false };
            return Action::Continue;
        }
        if self.rewriter.waiting() {
            self.end = End::Seen { paused: true };
            return Action::Pause;
        }
        self.end = End::Seen { paused: false };
        self.write(&[]);
        Action::Continue
    }

    fn answered(&mut self, answer: Answer, now_ms: u64) {
        let bytes = self.rewriter.answer(answer);
        append(&mut self.released, bytes);
        if let Hold::Since(since_ms) = self.hold {
            self.hold = Hold::For(now_ms.saturating_sub(since_ms));
        }
        // Before the end was seen the next body callback writes it: to resume earlier loses the
        // next chunk on Envoys before 1.39.1.
        if self.end == (End::Seen { paused: true }) {
            self.end = End::Seen { paused: false };
            self.write(&[]);
            if host::resume_response().is_err() {
                log::error!("prompt-cache-filter: a held response could not be resumed");
            }
        }
    }

    /// The body is over: whatever is only a piece of an event is let go.
    fn end(&mut self) {
        match self.rewriter.end() {
            Output::Unchanged => {}
            Output::Replace(bytes) => append(&mut self.released, bytes),
        }
    }

    /// Whether Envoy's buffer is to stay under a pause.
    fn stays(&self, size: usize, end_of_stream: bool) -> bool {
        if end_of_stream {
            return self.rewriter.waiting();
        }
        if self.rewriter.held_bytes() == 0 {
            return false;
        }
        let at_end = self.rewriter.at_end();
        // Nobody reads half a JSON document.
        let free = self.released.is_empty() || self.kind == BodyKind::Json;
        let bytes_max = if at_end {
            PAUSED_END_BYTES_MAX
        } else {
            PAUSED_PIECE_BYTES_MAX
        };
        let (pauses, bytes_max) = match self.place {
            Place::Vm => (false, 0),
            Place::Chunked => (at_end && free, PAUSED_PIECE_BYTES_MAX),
            Place::Unframed => (at_end || free, bytes_max),
            Place::Announced => (true, bytes_max),
        };
        pauses && size <= bytes_max
    }

    /// Replaces what Envoy has at hand by what was released, unless it is the same.
    fn write(&mut self, chunk: &[u8]) {
        let released = std::mem::take(&mut self.released);
        let same = self.paused_bytes == 0 && released == chunk;
        self.paused_bytes = 0;
        if !same && host::set_response_body(&released).is_err() {
            log::error!("prompt-cache-filter: a response could not be edited");
        }
    }

    /// Reads the clock, a host call, only where a hold begins.
    fn note_hold(&mut self, now_ms: impl Fn() -> u64) {
        if matches!(self.hold, Hold::Never) && self.rewriter.waiting() {
            self.hold = Hold::Since(now_ms());
        }
    }

    /// All of the body, or at least `[DONE]`, went to the client.
    fn complete(&self) -> bool {
        let completion = self.rewriter.completion();
        let done = completion.done() && self.released.is_empty() && self.paused_bytes == 0;
        done || self.end == (End::Seen { paused: false })
    }
}

/// Appends without a copy where there is nothing before it.
fn append(buffer: &mut Vec<u8>, bytes: Vec<u8>) {
    if buffer.is_empty() {
        *buffer = bytes;
    } else {
        buffer.extend_from_slice(&bytes);
    }
}
