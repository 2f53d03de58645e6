//! One handled request from its departure to its end: the look-up beside the upstream call, the
//! response through the rewriter, and at the end the commit and the counters.

use std::rc::Rc;

use prompt_cache_core::{
    edge::Callout,
    ledger::{Cap, Outcome, Split, Tier},
    wire::Commit,
};
use proxy_wasm::types::Action;

use crate::{
    callout::TraceHeaders,
    host,
    lookup::Lookup,
    metrics::Veto,
    response::{Expectation, Expected, Response},
    shared::Shared,
};

/// A request that was forwarded.
pub struct Exchange {
    shared: Rc<Shared>,
    lookup: Lookup,
    response: Response,
}

impl Exchange {
    /// Starts the look-up, if there is one, just before the request is let go.
    pub fn begin(
        shared: Rc<Shared>,
        callout: Callout,
        expectation: Expectation,
        trace: TraceHeaders,
        body: Vec<u8>,
    ) -> Self {
        Self {
            lookup: Lookup::begin(&shared, callout, trace, body),
            shared,
            response: Response::ahead(expectation),
        }
    }

    /// A callout's answer.
    pub fn on_answer(&mut self, token: u32, headers: usize, body_bytes: usize) {
        if !self.lookup.awaits(token) {
            return;
        }
        self.lookup = self
            .lookup
            .take()
            .answered(&self.shared, headers, body_bytes);
        if let Some(answer) = self.lookup.answer() {
            self.response.answered(answer, self.shared.now_ms());
        }
    }

    pub fn on_response_headers(&mut self, end_of_stream: bool) {
        self.lookup = self.lookup.take().needed(&self.shared);
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
        let active = lookup.answer().is_some() && !matches!(lookup, Lookup::Inactive);
        let held_ms = response.held_ms(shared.now_ms());
        // Without a wait only where one was possible and the answer was in time.
        let in_time = matches!(lookup, Lookup::Classified { .. } | Lookup::Leased(_));
        if let Some(held_ms) = held_ms.or(in_time.then_some(0)) {
            metrics.terminal_hold_ms.record(held_ms);
        }
        if let Some(bytes) = response.held_bytes() {
            metrics.held_bytes.record(bytes);
        }
        match lookup {
            Lookup::Asking(_) | Lookup::Following(_) => {
                lookup.abandon(&shared);
                if let Some(veto) = veto {
                    metrics.vetoed(veto);
                }
            }
            Lookup::Classified { flight, classified } => match veto {
                // A count alone is worth a commit, and no veto: nothing is lost without it.
                _ if classified.writes.is_empty()
                    && (veto.is_some() || classified.counted_prompt_tokens.is_none()) => {}
                Some(veto) => metrics.vetoed(veto),
                None => shared.commit(Commit {
                    principal: flight.request().principal,
                    model: flight.request().model.clone(),
                    tokenizer_version: classified.tokenizer_version,
                    age_ms: 0,
                    prompt_tokens: response.prompt_tokens(),
                    counted_prompt_tokens: classified.counted_prompt_tokens,
                    writes: classified.writes,
                }),
            },
            Lookup::Known(_) | Lookup::Leased(_) | Lookup::Inactive => {}
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
        if let Some(split) = shown {
            metrics.compare(split.read, response.engine_cached());
        }
        let split = shown.unwrap_or_default();
        metrics.request(outcome);
        metrics.read_input_tokens.add(split.read);
        for tier in Tier::ALL {
            metrics.created(tier, split.creation.get(tier));
        }
        let _ = host::set_filter_state("promptcache", filter_state(outcome, &split).as_bytes());
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
