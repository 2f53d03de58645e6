//! How the split of a request becomes known: at once, from a lease, by a callout beside the
//! upstream call, or by the callout of an identical request.

use std::{cell::Cell, rc::Rc};

use prompt_cache_core::{
    edge::{Bypass, Callout, Flight, Leased, Prompt, Seat},
    ledger::Split,
    response::Answer as CacheAnswer,
    wire::{Classified, ClassifyAnswer, Uncached},
};
use proxy_wasm::types::Status;

use crate::{
    callout::{self, Answer, TraceHeaders},
    metrics::ClassifyOutcome,
    shared::Shared,
};

/// Status of a callout that ran into its time limit.
const GATEWAY_TIMEOUT: u16 = 504;

/// What is known of a request's prefix.
pub enum Lookup {
    /// A callout is in flight.
    Asking(Box<Asking>),
    /// An identical request's callout is in flight.
    Following(Box<Question>),
    /// Classified: what to show, and what to commit after a success.
    Classified {
        flight: Rc<Flight>,
        classified: Classified,
    },
    /// Known without a callout: from a lease.
    Leased(Split),
    /// Known without a classification, or from what was read before its count failed.
    Known(Split),
    /// Not cached.
    Inactive,
}

/// What it takes to ask.
pub struct Question {
    flight: Rc<Flight>,
    asked_at_ms: u64,
    trace: TraceHeaders,
    /// The prompt, until the service had the chance to ask for it, or an identical request's
    /// answer came.
    prompt: Prompt,
}

/// A question that was asked.
pub struct Asking {
    token: u32,
    question: Question,
    stage: Stage,
}

/// Why a classification has no answer.
enum Failure {
    /// No answer came in time.
    Late,
    /// The service is there and does not take this question, as one of another release may: no
    /// reason to stop asking others, or one client could open the breaker for all.
    Refused,
    /// Anything else.
    Broken,
}

impl Failure {
    const fn of(status: Option<u16>) -> Self {
        match status {
            Some(GATEWAY_TIMEOUT) => Self::Late,
            Some(400..500) => Self::Refused,
            _ => Self::Broken,
        }
    }
}

/// How far a classification has come.
enum Stage {
    /// Asked by hashes.
    Hashes,
    /// Asked with the prompt; a live prefix of `read` tokens is known already.
    Text { read: u64 },
}

impl Lookup {
    /// Starts the look-up, if there is one.
    pub fn begin(shared: &Shared, callout: Callout, trace: TraceHeaders, text: Vec<u8>) -> Self {
        match callout {
            Callout::Known(split) => Self::Known(split),
            Callout::Leased(Leased { split, read }) => {
                shared.metrics.leased();
                if let Some(read) = read {
                    shared.read(read, shared.now_ms());
                }
                Self::Leased(split)
            }
            Callout::Inactive(bypass) => inactive(shared, bypass),
            Callout::Ask(request) => {
                let prompt = Prompt::new(Cell::new(text));
                let seat = shared.flights.borrow_mut().join(request, &prompt);
                let question = |flight| Question {
                    flight,
                    asked_at_ms: shared.now_ms(),
                    trace,
                    prompt,
                };
                match seat {
                    Seat::Leader(flight) => question(flight).ask(shared),
                    Seat::Follower(flight) => Self::Following(Box::new(question(flight))),
                }
            }
        }
    }

    /// Leaves it inactive, for a moment.
    pub const fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Inactive)
    }

    /// Whether this callout is its own.
    pub fn awaits(&self, token: u32) -> bool {
        matches!(self, Self::Asking(asking) if asking.token == token)
    }

    /// What the response is to show, once it is known.
    pub const fn answer(&self) -> Option<CacheAnswer> {
        match self {
            Self::Asking(_) | Self::Following(_) => None,
            Self::Classified { classified, .. } => Some(CacheAnswer::Split(classified.split)),
            Self::Known(split) | Self::Leased(split) => Some(CacheAnswer::Split(*split)),
            Self::Inactive => Some(CacheAnswer::Inactive),
        }
    }

    /// The answer to the callout it awaits came, inside its callback.
    pub fn answered(self, shared: &Shared, headers: usize, body_bytes: usize) -> Self {
        let Self::Asking(asking) = self else {
            return self;
        };
        let answer = Answer::read(headers, body_bytes);
        match answer.classification() {
            Some(ClassifyAnswer::TextNeeded { read }) => asking.tell(shared, read),
            Some(ClassifyAnswer::Ok(classified)) => asking.classified(shared, classified),
            Some(ClassifyAnswer::Inactive { reason }) => {
                asking.question.settled(shared, ClassifyOutcome::Ok);
                shared.metrics.bypassed(match reason {
                    Uncached::UnknownModel => Bypass::UnknownModel,
                    Uncached::UnknownPrincipal => Bypass::PrincipalRefused,
                    Uncached::Other => Bypass::ClassifyRefused,
                });
                Self::Inactive
            }
            None => asking.failed(shared, Failure::of(answer.status)),
        }
    }

    /// The response begins. A follower takes the answer that its flight brought by now, or asks
    /// for itself: its leader may have failed or gone, or the upstream was faster.
    pub fn needed(self, shared: &Shared) -> Self {
        let Self::Following(mut question) = self else {
            return self;
        };
        let landed = question.flight.landed().cloned();
        if let Some(landed) = landed {
            let waited_ms = landed.at_ms.saturating_sub(question.asked_at_ms);
            shared.metrics.classified(ClassifyOutcome::Ok);
            shared.metrics.classify_duration_ms.record(waited_ms);
            return Self::Classified {
                flight: question.flight,
                classified: landed.classified,
            };
        }
        if !shared.breaker.borrow().is_closed() {
            return inactive(shared, Bypass::BreakerOpen);
        }
        question.asked_at_ms = shared.now_ms();
        question.ask(shared)
    }

    /// The stream ended before the answer came.
    pub fn abandon(&self, shared: &Shared) {
        match self {
            Self::Asking(asking) => asking.question.settled(shared, ClassifyOutcome::Abandoned),
            Self::Following(question) => question.settled(shared, ClassifyOutcome::Abandoned),
            Self::Classified { .. } | Self::Leased(_) | Self::Known(_) | Self::Inactive => {}
        }
    }
}

impl Question {
    /// Asks by hashes alone, or with the prompt at once where that is small: what no lease knows
    /// is most often new, and then one callout takes less than two.
    fn ask(self, shared: &Shared) -> Lookup {
        let config = &shared.config;
        let deadline_ms = config.classify_deadline_ms;
        let prompt = self.prompt.take();
        let (stage, text) = if prompt.len() <= config.text_at_once_bytes_max {
            (Stage::Text { read: 0 }, Some(prompt))
        } else {
            self.prompt.set(prompt);
            (Stage::Hashes, None)
        };
        let request = self.flight.request();
        let sent = callout::classify(config, request, text.as_deref(), &self.trace, deadline_ms);
        let asking = Asking {
            token: 0,
            question: self,
            stage,
        };
        asking.dispatched(shared, sent)
    }

    fn settled(&self, shared: &Shared, outcome: ClassifyOutcome) {
        let answered = match outcome {
            ClassifyOutcome::Ok => Some(true),
            ClassifyOutcome::Error | ClassifyOutcome::DeadlineExceeded => Some(false),
            ClassifyOutcome::BreakerOpen | ClassifyOutcome::Abandoned => None,
        };
        self.ended(shared, outcome, answered);
    }

    /// `answered`: what the breaker learns of the service, if anything.
    fn ended(&self, shared: &Shared, outcome: ClassifyOutcome, answered: Option<bool>) {
        shared.flights.borrow_mut().over(&self.flight);
        shared.metrics.classified(outcome);
        let elapsed_ms = shared.now_ms().saturating_sub(self.asked_at_ms);
        shared.metrics.classify_duration_ms.record(elapsed_ms);
        if let Some(answered) = answered {
            shared.classification(answered);
        }
    }
}

impl Asking {
    fn classified(self, shared: &Shared, classified: Classified) -> Lookup {
        let Question {
            flight,
            asked_at_ms,
            ..
        } = &self.question;
        let now_ms = shared.now_ms();
        flight.land(&classified, now_ms);
        self.question.settled(shared, ClassifyOutcome::Ok);
        shared
            .leases
            .borrow_mut()
            .classified(flight.request(), &classified, *asked_at_ms, now_ms);
        Lookup::Classified {
            flight: self.question.flight,
            classified,
        }
    }

    /// Asks again with the prompt, in what is left of the deadline.
    fn tell(mut self, shared: &Shared, read: u64) -> Lookup {
        if matches!(self.stage, Stage::Text { .. }) {
            // The service asked twice: it does not keep to the protocol.
            return self.failed(shared, Failure::Broken);
        }
        self.stage = Stage::Text { read };
        let elapsed_ms = shared.now_ms().saturating_sub(self.question.asked_at_ms);
        let left_ms = shared
            .config
            .classify_deadline_ms
            .saturating_sub(elapsed_ms);
        if left_ms == 0 {
            return self.failed(shared, Failure::Late);
        }
        let text = self.question.prompt.take();
        let Question { flight, trace, .. } = &self.question;
        let request = flight.request();
        let sent = callout::classify(&shared.config, request, Some(&text), trace, left_ms);
        self.dispatched(shared, sent)
    }

    /// No callback follows a callout that could not be made: it is settled on the spot.
    fn dispatched(mut self, shared: &Shared, sent: Result<u32, Status>) -> Lookup {
        match sent {
            Ok(token) => {
                self.token = token;
                Lookup::Asking(Box::new(self))
            }
            Err(_) => self.failed(shared, Failure::Broken),
        }
    }

    /// A failed count takes nothing from a read that is known already; without one the request
    /// is not cached.
    fn failed(self, shared: &Shared, failure: Failure) -> Lookup {
        let (outcome, bypass) = match failure {
            Failure::Late => (ClassifyOutcome::DeadlineExceeded, Bypass::ClassifyLate),
            Failure::Refused => (ClassifyOutcome::Error, Bypass::ClassifyRefused),
            Failure::Broken => (ClassifyOutcome::Error, Bypass::ClassifyFailed),
        };
        let answered = matches!(failure, Failure::Refused);
        self.question.ended(shared, outcome, Some(answered));
        shared.metrics.bypassed(bypass);
        match self.stage {
            Stage::Text { read: read @ 1.. } => Lookup::Known(Split {
                read,
                ..Split::default()
            }),
            Stage::Text { .. } | Stage::Hashes => Lookup::Inactive,
        }
    }
}

/// Not cached, for a reason that is counted.
fn inactive(shared: &Shared, bypass: Bypass) -> Lookup {
    shared.metrics.bypassed(bypass);
    if bypass == Bypass::BreakerOpen {
        shared.metrics.classified(ClassifyOutcome::BreakerOpen);
    }
    Lookup::Inactive
}
