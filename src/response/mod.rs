//! The response of one exchange, callback by callback: its head decides whether it is rewritten,
//! its body is delivered, and at its end there is a verdict.

mod delivery;
mod head;
mod verdict;

use prompt_cache_core::{
    api::Api,
    edge::Bypass,
    response::{Answer, BodyKind, RewriteOptions, Rewriter},
};
use proxy_wasm::types::Action;

use delivery::Delivery;
use head::Head;

/// What is known when the response's headers arrive.
pub struct Expected {
    pub answer: Option<Answer>,
    pub scrub: bool,
    pub event_bytes_max: usize,
    pub held_bytes_max: usize,
}

/// What is known of a response when the request leaves.
#[derive(Clone, Copy)]
pub struct Expectation {
    pub api: Api,
    pub drop_usage_only: bool,
}

/// The response of one exchange.
pub struct Response {
    expectation: Expectation,
    success: bool,
    state: State,
}

enum State {
    /// No headers yet.
    Ahead,
    /// Passes as it is.
    Passing { complete: bool },
    /// Goes through the rewriter.
    Rewriting(Box<Delivery>),
}

impl Response {
    /// A response that has not begun.
    pub const fn ahead(expectation: Expectation) -> Self {
        Self {
            expectation,
            success: false,
            state: State::Ahead,
        }
    }

    /// The response's headers: decides whether it is rewritten. Returns why not, if that is
    /// worth counting.
    pub fn headers(&mut self, expected: &Expected, end_of_stream: bool) -> Option<Bypass> {
        let head = Head::read();
        self.success = head.success();
        self.state = State::Passing {
            complete: end_of_stream,
        };
        let Expectation {
            api,
            drop_usage_only,
        } = self.expectation;
        let drops = drop_usage_only && head.kind() == Some(BodyKind::Sse);
        let inactive = expected.answer == Some(Answer::Inactive);
        if end_of_stream || (inactive && !drops && !expected.scrub) {
            return None;
        }
        let kind = match head.readable() {
            Ok(kind) => kind,
            Err(bypass) => return Some(bypass),
        };
        head.forget_body();
        let options = RewriteOptions {
            api,
            kind,
            drop_usage_only,
            event_bytes_max: expected.event_bytes_max,
            held_bytes_max: expected.held_bytes_max,
            scrub: expected.scrub,
        };
        let rewriter = Rewriter::new(options, expected.answer);
        let delivery = Delivery::new(rewriter, kind, head.place());
        self.state = State::Rewriting(Box::new(delivery));
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
            State::Rewriting(delivery) => delivery.body(size, end_of_stream, now_ms),
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
            State::Rewriting(delivery) => delivery.trailers(now_ms),
        }
    }

    /// The classification is there, or will not come.
    pub fn answered(&mut self, answer: Answer, now_ms: u64) {
        if let State::Rewriting(delivery) = &mut self.state {
            delivery.answered(answer, now_ms);
        }
    }
}
