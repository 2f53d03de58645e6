//! One handled request from its departure to its end: the classification beside the upstream
//! call, the response through the rewriter, and at the end the commit and the counters.

use std::rc::Rc;

use prompt_cache_core::{
    edge::{Bypass, Callout},
    ledger::{Cap, Outcome, Split, Tier},
    response::Answer as CacheAnswer,
    wire::{Classified, ClassifyAnswer, ClassifyRequest, Commit, Uncached},
};
use proxy_wasm::types::{Action, Status};

use crate::{
    callout::{self, Answer, TraceHeaders},
    host,
    metrics::{ClassifyOutcome, Veto},
    response::{Expected, Response},
    shared::Shared,
};

/// Status of a callout that ran into its time limit.
const GATEWAY_TIMEOUT: u16 = 504;

/// A request that was forwarded.
pub struct Exchange {
    shared: Rc<Shared>,
    lookup: Lookup,
    response: Response,
}

/// What is known of the request's prefix.
enum Lookup {
    /// A callout is in flight.
    Asking(Box<Asking>),
    /// Classified: what to show, and what to commit after a success.
    Classified {
        request: ClassifyRequest,
        classified: Classified,
    },
    /// Known without a callout.
    Known(Split),
    /// Not cached.
    Inactive,
}

struct Asking {
    token: u32,
    asked_at_ms: u64,
    request: ClassifyRequest,
    trace: TraceHeaders,
    stage: Stage,
}

/// How far a classification has come.
enum Stage {
    /// Asked by hashes. The prompt is kept until the service had the chance to ask for it.
    Hashes { text: Vec<u8> },
    /// Asked with the prompt; a live prefix of `read` tokens is known already.
    Text { read: u64 },
}

impl Exchange {
    /// Starts the classification, if there is one, just before the request is let go.
    pub fn begin(
        shared: Rc<Shared>,
        callout: Callout,
        drop_usage_only: bool,
        trace: TraceHeaders,
        body: Vec<u8>,
    ) -> Self {
        let lookup = match callout {
            Callout::Known(split) => Lookup::Known(split),
            Callout::Inactive(bypass) => {
                shared.metrics.bypassed(bypass);
                if bypass == Bypass::BreakerOpen {
                    shared.metrics.classified(ClassifyOutcome::BreakerOpen);
                }
                Lookup::Inactive
            }
            Callout::Ask(request) => ask(&shared, request, trace, body),
        };
        Self {
            shared,
            lookup,
            response: Response::ahead(drop_usage_only),
        }
    }

    /// A callout's answer.
    pub fn on_answer(&mut self, token: u32, headers: usize, body_bytes: usize) {
        let asking = match std::mem::replace(&mut self.lookup, Lookup::Inactive) {
            Lookup::Asking(asking) if asking.token == token => asking,
            other => {
                self.lookup = other;
                return;
            }
        };
        let answer = Answer::read(headers, body_bytes);
        self.lookup = match answer.classification() {
            Some(ClassifyAnswer::TextNeeded { read }) => tell(&self.shared, *asking, read),
            Some(ClassifyAnswer::Ok(classified)) => {
                settled(&self.shared, &asking, ClassifyOutcome::Ok);
                Lookup::Classified {
                    request: asking.request,
                    classified,
                }
            }
            Some(ClassifyAnswer::Inactive { reason }) => {
                settled(&self.shared, &asking, ClassifyOutcome::Ok);
                self.shared.metrics.bypassed(match reason {
                    Uncached::UnknownModel => Bypass::UnknownModel,
                    Uncached::UnknownPrincipal => Bypass::PrincipalRefused,
                });
                Lookup::Inactive
            }
            None => {
                let late = answer.status == Some(GATEWAY_TIMEOUT);
                failed(&self.shared, *asking, late)
            }
        };
        if let Some(answer) = self.lookup.answer() {
            self.response.answered(answer, self.shared.now_ms());
        }
    }

    pub fn on_response_headers(&mut self, end_of_stream: bool) {
        let expected = Expected {
            answer: self.lookup.answer(),
            scrub: self.shared.config.scrub_upstream_cache_fields,
            event_bytes_max: self.shared.config.max_event_bytes,
            held_bytes_max: self.shared.config.max_held_bytes,
        };
        if let Some(bypass) = self.response.headers(&expected, end_of_stream) {
            self.shared.metrics.bypassed(bypass);
        }
    }

    pub fn on_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.response
            .body(size, end_of_stream, || self.shared.now_ms())
    }

    pub fn on_response_trailers(&mut self) -> Action {
        self.response.trailers(self.shared.now_ms())
    }

    /// The stream is over, whichever way: commit or veto, count, and leave the numbers for the
    /// access log.
    pub fn finish(self) {
        let Self {
            shared,
            lookup,
            response,
        } = self;
        let metrics = &shared.metrics;
        let veto = response.veto();
        let shown = response.shown();
        let active = matches!(lookup, Lookup::Known(_) | Lookup::Classified { .. });
        let held_ms = response.held_ms(shared.now_ms());
        // Without a wait only where one was possible and the answer was in time.
        let in_time = matches!(lookup, Lookup::Classified { .. });
        if let Some(held_ms) = held_ms.or(in_time.then_some(0)) {
            metrics.terminal_hold_ms.record(held_ms);
        }
        match lookup {
            Lookup::Asking(asking) => {
                settled(&shared, &asking, ClassifyOutcome::Abandoned);
                if let Some(veto) = veto {
                    metrics.vetoed(veto);
                }
            }
            Lookup::Classified {
                request,
                classified,
            } => match veto {
                // A count alone is worth a commit, and no veto: nothing is lost without it.
                _ if classified.writes.is_empty()
                    && (veto.is_some() || classified.counted_prompt_tokens.is_none()) => {}
                Some(veto) => metrics.vetoed(veto),
                None => shared.commit(Commit {
                    principal: request.principal,
                    model: request.model,
                    tokenizer_version: classified.tokenizer_version,
                    age_ms: 0,
                    prompt_tokens: response.prompt_tokens(),
                    counted_prompt_tokens: classified.counted_prompt_tokens,
                    writes: classified.writes,
                }),
            },
            Lookup::Known(_) | Lookup::Inactive => {}
        }
        for bypass in response.bypasses() {
            metrics.bypassed(bypass);
        }
        if response.cap() != Cap::None {
            metrics.split_capped.add(1);
        }
        let outcome = match (veto, shown) {
            (Some(Veto::Disconnect), _) => Outcome::Aborted,
            (_, Some(split)) => split.outcome(),
            // An active model's response that reported no usage: nothing read, nothing written.
            (_, None) if active && response.readable() => Outcome::ZeroActive,
            (_, None) => Outcome::Inactive,
        };
        let split = shown.unwrap_or_default();
        metrics.request(outcome);
        metrics.read_input_tokens.add(split.read);
        for tier in Tier::ALL {
            metrics.created(tier, split.creation.get(tier));
        }
        let _ = host::set_filter_state("promptcache", filter_state(outcome, &split).as_bytes());
    }
}

impl Lookup {
    /// What the response is to show, once it is known.
    fn answer(&self) -> Option<CacheAnswer> {
        match self {
            Self::Asking(_) => None,
            Self::Classified { classified, .. } => Some(CacheAnswer::Split(classified.split)),
            Self::Known(split) => Some(CacheAnswer::Split(*split)),
            Self::Inactive => Some(CacheAnswer::Inactive),
        }
    }
}

/// The compact JSON of the filter state, for access logs and billing.
fn filter_state(outcome: Outcome, split: &Split) -> String {
    let (outcome, read, creation) = (outcome.as_str(), split.read, split.creation);
    format!(
        r#"{{"outcome":"{outcome}","read":{read},"5m":{},"1h":{},"24h":{}}}"#,
        creation.five_minutes, creation.one_hour, creation.day
    )
}

/// Asks by hashes alone.
fn ask(shared: &Shared, request: ClassifyRequest, trace: TraceHeaders, body: Vec<u8>) -> Lookup {
    let deadline_ms = shared.config.classify_deadline_ms;
    let asked_at_ms = shared.now_ms();
    let sent = callout::classify(&shared.config, &request, None, &trace, deadline_ms);
    let asking = Asking {
        token: 0,
        asked_at_ms,
        request,
        trace,
        stage: Stage::Hashes { text: body },
    };
    dispatched(shared, asking, sent)
}

/// Asks again with the prompt, in what is left of the deadline.
fn tell(shared: &Shared, asking: Asking, read: u64) -> Lookup {
    let Asking {
        asked_at_ms,
        request,
        trace,
        stage,
        ..
    } = asking;
    let asking = |stage| Asking {
        token: 0,
        asked_at_ms,
        request,
        trace,
        stage,
    };
    let text = match stage {
        Stage::Hashes { text } => text,
        // The service asked twice: it does not keep to the protocol.
        told @ Stage::Text { .. } => return failed(shared, asking(told), false),
    };
    let asking = asking(Stage::Text { read });
    let elapsed_ms = shared.now_ms().saturating_sub(asked_at_ms);
    let left_ms = shared
        .config
        .classify_deadline_ms
        .saturating_sub(elapsed_ms);
    if left_ms == 0 {
        return failed(shared, asking, true);
    }
    let sent = callout::classify(
        &shared.config,
        &asking.request,
        Some(&text),
        &asking.trace,
        left_ms,
    );
    dispatched(shared, asking, sent)
}

/// No callback follows a callout that could not be made: it is settled on the spot.
fn dispatched(shared: &Shared, asking: Asking, sent: Result<u32, Status>) -> Lookup {
    match sent {
        Ok(token) => Lookup::Asking(Box::new(Asking { token, ..asking })),
        Err(_) => failed(shared, asking, false),
    }
}

/// A failed count takes nothing from a read that is known already; without one the request is
/// not cached.
fn failed(shared: &Shared, asking: Asking, late: bool) -> Lookup {
    let (outcome, bypass) = if late {
        (ClassifyOutcome::DeadlineExceeded, Bypass::ClassifyLate)
    } else {
        (ClassifyOutcome::Error, Bypass::ClassifyFailed)
    };
    settled(shared, &asking, outcome);
    shared.metrics.bypassed(bypass);
    match asking.stage {
        Stage::Text { read: read @ 1.. } => Lookup::Known(Split {
            read,
            ..Split::default()
        }),
        Stage::Text { .. } | Stage::Hashes { .. } => Lookup::Inactive,
    }
}

fn settled(shared: &Shared, asking: &Asking, outcome: ClassifyOutcome) {
    shared.metrics.classified(outcome);
    let elapsed_ms = shared.now_ms().saturating_sub(asking.asked_at_ms);
    shared.metrics.classify_duration_ms.record(elapsed_ms);
    match outcome {
        ClassifyOutcome::Ok => shared.classification(true),
        ClassifyOutcome::Error | ClassifyOutcome::DeadlineExceeded => shared.classification(false),
        ClassifyOutcome::BreakerOpen | ClassifyOutcome::Abandoned => {}
    }
}
