//! The response side: usage of any stream or JSON body rewritten, whatever the chunks.
//!
//! [`Rewriter`] is a state machine without I/O. The host pushes each byte of the body once and
//! sends on what comes out. Nothing is kept but
//!
//! - SSE: the event that is not complete yet, as long as it may still be a usage or error frame.
//!   A line is let go as soon as it is complete where that is certain: a comment line before the
//!   first field of an event, and an event whose first non-empty data line does not open a JSON
//!   object (`data: [DONE]`), with all that follows in that event. An event over
//!   `event_bytes_max` (its blank line included) passes unread up to its end;
//! - SSE: a terminal usage frame whose answer is missing, also one that will not be delivered,
//!   and what follows it, up to `held_bytes_max`;
//! - JSON: everything from the value of the top-level `usage` on, up to `held_bytes_max`.
//!
//! The bytes that leave depend on the body and on when the answer came, never on how the body
//! was cut into chunks. An event or a body that is not edited comes out byte for byte.
//!
//! ```
//! use prompt_cache_core::{api::Api, ledger::Split, response::*};
//!
//! let kind = BodyKind::from_content_type(Some(b"text/event-stream")).unwrap();
//! let options = RewriteOptions {
//!     api: Api::Chat,
//!     kind,
//!     drop_usage_only: false,
//!     event_bytes_max: 1 << 20,
//!     held_bytes_max: 1 << 18,
//!     scrub: false,
//! };
//! let mut rewriter = Rewriter::new(options, None);
//! assert_eq!(rewriter.push(b"data: {\"choices\":[{}]}\n\n"), Output::Unchanged);
//! assert_eq!(rewriter.push(b"data: {\"usage\":{}}\n\n"), Output::Replace(Vec::new()));
//! assert!(rewriter.waiting());
//! let frame = rewriter.answer(Answer::Split(Split { read: 7, ..Split::default() }));
//! assert!(frame.starts_with(b"data: {\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":7,"));
//! ```

mod completion;
mod content_type;
mod context;
mod event;
mod frame;
mod held;
mod json;
mod json_lexer;
mod line;
mod outlet;
mod splice;
mod sse;
mod usage;

pub use completion::Completion;
pub use content_type::BodyKind;

use crate::{api::Api, ledger::Split};
use context::Context;
use json::JsonBody;
use sse::SseBody;

/// How a response is to be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RewriteOptions {
    /// The API that the request spoke.
    pub api: Api,
    /// The body's layout.
    pub kind: BodyKind,
    /// The client did not ask for usage in its stream: frames that carry nothing else are not
    /// delivered. Ignored for JSON.
    pub drop_usage_only: bool,
    /// Longest event that is read; longer ones pass unedited. At least 64.
    pub event_bytes_max: usize,
    /// Most bytes that are kept for the answer (SSE) or for the end of the body (JSON).
    pub held_bytes_max: usize,
    /// An inactive response loses the upstream's own cache fields.
    pub scrub: bool,
}

/// A resolved classification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The model is active: this split is written into the usage.
    Split(Split),
    /// Unknown model, no principal, failed or late classification: usage stays as it is.
    Inactive,
}

/// What leaves in place of a pushed chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Exactly the chunk.
    Unchanged,
    /// These bytes, which may be none.
    Replace(Vec<u8>),
}

/// Rewrites the usage of one response. See the module for what is held back.
pub struct Rewriter {
    context: Context,
    body: Body,
}

enum Body {
    Json(JsonBody),
    Sse(SseBody),
}

/// Smallest `event_bytes_max`: room for the lines that are recognised in any event.
const EVENT_BYTES_MIN: usize = 64;

impl Rewriter {
    /// A rewriter for one response; `answer` is `None` while the classification is under way.
    pub fn new(options: RewriteOptions, answer: Option<Answer>) -> Self {
        let event_bytes_max = options.event_bytes_max.max(EVENT_BYTES_MIN);
        let options = RewriteOptions {
            event_bytes_max,
            ..options
        };
        let body = match options.kind {
            BodyKind::Json => Body::Json(JsonBody::new()),
            BodyKind::Sse => Body::Sse(SseBody::new()),
        };
        Self {
            context: Context {
                options,
                answer,
                completion: Completion::new(),
            },
            body,
        }
    }

    /// Takes the next bytes of the body, each byte exactly once. Bytes after [`Self::end`] pass.
    pub fn push(&mut self, chunk: &[u8]) -> Output {
        if chunk.is_empty() || self.context.completion.ended() {
            return Output::Unchanged;
        }
        match &mut self.body {
            Body::Json(body) => body.push(chunk, &mut self.context),
            Body::Sse(body) => body.push(chunk, &mut self.context),
        }
    }

    /// The end of the body (end of stream, or trailers): what leaves now. Bytes that wait for
    /// the answer stay ([`Self::waiting`]). Further calls do nothing.
    pub fn end(&mut self) -> Output {
        if self.context.completion.ended() {
            return Output::Unchanged;
        }
        self.context.completion.see_end();
        let out = match &mut self.body {
            Body::Json(body) => body.end(&mut self.context),
            Body::Sse(body) => body.end(&mut self.context),
        };
        if out.is_empty() {
            Output::Unchanged
        } else {
            Output::Replace(out)
        }
    }

    /// Resolves a pending classification and returns what may leave now. The first answer
    /// counts: further ones change nothing.
    pub fn answer(&mut self, answer: Answer) -> Vec<u8> {
        if self.context.answer.is_some() {
            return Vec::new();
        }
        self.context.answer = Some(answer);
        match &mut self.body {
            Body::Json(body) => body.answered(&mut self.context),
            Body::Sse(body) => body.answered(&mut self.context),
        }
    }

    /// Bytes are held only because the answer is missing: an SSE usage frame is complete, or a
    /// JSON body with usage has ended.
    pub fn waiting(&self) -> bool {
        self.context.answer.is_none()
            && match &self.body {
                Body::Json(body) => self.context.completion.ended() && body.held_bytes() > 0,
                Body::Sse(body) => body.waiting(),
            }
    }

    /// What is kept ends the body, as far as its bytes tell: a terminal usage frame, or the whole
    /// rest of a JSON document. Little follows, if anything.
    pub fn at_end(&self) -> bool {
        match &self.body {
            Body::Json(body) => body.complete(),
            Body::Sse(body) => body.waiting(),
        }
    }

    /// All bytes kept inside: the incomplete event, waiting frames, a JSON body's tail.
    pub fn held_bytes(&self) -> usize {
        match &self.body {
            Body::Json(body) => body.held_bytes(),
            Body::Sse(body) => body.held_bytes(),
        }
    }

    /// What happened so far.
    pub fn completion(&self) -> &Completion {
        &self.context.completion
    }
}
