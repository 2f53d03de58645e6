//! A slow, obvious reference of the response side: the whole body at once, parsed naively.

#![allow(dead_code)]

mod json;
pub mod run;
mod sse;
pub mod text;
mod usage;

pub use json::may_be_capped;

use prompt_cache_core::{
    ledger::{Cap, Split},
    response::{Answer, BodyKind, Completion, RewriteOptions},
};

/// Everything that can be observed of a finished rewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub body: Vec<u8>,
    pub usage_seen: bool,
    pub error_seen: bool,
    pub done: bool,
    pub prompt_tokens: Option<u64>,
    pub shown: Option<Split>,
    pub cap: Cap,
    pub oversize_events: u64,
    pub released_unedited: u64,
}

impl Observed {
    fn nothing() -> Self {
        Self {
            body: Vec::new(),
            usage_seen: false,
            error_seen: false,
            done: false,
            prompt_tokens: None,
            shown: None,
            cap: Cap::None,
            oversize_events: 0,
            released_unedited: 0,
        }
    }

    pub fn new(body: Vec<u8>, completion: &Completion) -> Self {
        Self {
            body,
            usage_seen: completion.usage_seen(),
            error_seen: completion.error_seen(),
            done: completion.done(),
            prompt_tokens: completion.prompt_tokens(),
            shown: completion.shown(),
            cap: completion.cap(),
            oversize_events: completion.oversize_events(),
            released_unedited: completion.released_unedited(),
        }
    }
}

/// What comes out of `body`. `late`: the answer comes after the end instead of before the start.
pub fn rewrite(body: &[u8], options: RewriteOptions, answer: Answer, late: bool) -> Observed {
    let mut observed = Observed::nothing();
    match options.kind {
        BodyKind::Json => json::json(body, options, answer, late, &mut observed),
        BodyKind::Sse => sse::sse(body, options, answer, late, &mut observed),
    }
    observed
}
