//! Delivery: from Envoy's buffer through the rewriter and back.
//!
//! A rewriter keeps what it cannot let go yet: a piece of an event, or a terminal usage frame
//! that waits for the classification. Those bytes may stay in Envoy's buffer too (a pause), or
//! only in the VM while everything before them leaves ([`Place`]). Only bytes under a pause can
//! still be edited when trailers arrive; but a pause holds back the whole chunk, and Envoy resets
//! a response whose next read does not fit its buffer beside what is paused.

use prompt_cache_core::response::{Answer, BodyKind, Completion, Output, Rewriter};
use proxy_wasm::types::Action;

use crate::host;

/// Most bytes left under a pause while more may follow: one HTTP/2 frame.
const PAUSED_PIECE_BYTES_MAX: usize = 16 << 10;
/// Most bytes left under a pause when hardly more can follow than trailers: half of Envoy's
/// default buffer limit.
const PAUSED_END_BYTES_MAX: usize = 512 << 10;

/// A body on its way through the rewriter.
pub(super) struct Delivery {
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
pub(super) enum Place {
    /// `content-length`, or until an HTTP/1 connection closes, no trailers: in the VM. The end of
    /// the body is sure to follow.
    Vm,
    /// HTTP/1.1 in chunks, trailers only if somebody enabled them and none announced: a pause only
    /// for what ends the body, where it holds nothing else back.
    Chunked,
    /// HTTP/2, as far as can be told: also a pause for a piece of an event, where it holds nothing
    /// else back.
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

impl Delivery {
    pub const fn new(rewriter: Rewriter, kind: BodyKind, place: Place) -> Self {
        Self {
            rewriter,
            kind,
            place,
            released: Vec::new(),
            paused_bytes: 0,
            end: End::Open,
            hold: Hold::Never,
        }
    }

    pub fn body(&mut self, size: usize, end_of_stream: bool, now_ms: impl Fn() -> u64) -> Action {
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

    pub fn trailers(&mut self, now_ms: u64) -> Action {
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

    pub fn answered(&mut self, answer: Answer, now_ms: u64) {
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

    /// What the rewriter saw.
    pub fn completion(&self) -> &Completion {
        self.rewriter.completion()
    }

    /// How long a terminal usage frame waited, or waits, in milliseconds; `None` if none did.
    pub const fn held_ms(&self, now_ms: u64) -> Option<u64> {
        match self.hold {
            Hold::Never => None,
            Hold::Since(since_ms) => Some(now_ms.saturating_sub(since_ms)),
            Hold::For(held_ms) => Some(held_ms),
        }
    }

    /// All of the body, or at least `[DONE]`, went to the client.
    pub fn complete(&self) -> bool {
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
