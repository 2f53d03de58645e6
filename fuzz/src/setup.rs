//! How a response is run: options, answer, its moment, chunks, all from an input's knobs.

use prompt_cache_core::{
    ledger::{Split, TierTokens},
    response::{Answer, BodyKind, RewriteOptions},
};

use crate::{
    input::Knobs,
    response_reference::{
        Observed,
        run::{NEVER, cut_up, run, show},
    },
};

pub struct Setup {
    pub options: RewriteOptions,
    pub answer: Answer,
    /// The answer comes after the end instead of before the start.
    pub late: bool,
    /// It comes in the middle of the body, after so many 256ths of it.
    moment: u8,
    sizes: [usize; 3],
}

impl Setup {
    /// Knobs that are all zero are the common case: enough room, an answer from the start.
    pub fn new(kind: BodyKind, knobs: &mut Knobs<'_>) -> Self {
        let flags = knobs.byte();
        let sizes = std::array::from_fn(|_| usize::from(knobs.byte()).max(1));
        let event_bytes_max = match knobs.byte() {
            0 => 1 << 20,
            bytes => usize::from(bytes).max(64),
        };
        let held_bytes_max = match knobs.byte() {
            0 => 1 << 18,
            bytes => usize::from(bytes) * 2,
        };
        let moment = knobs.byte();
        let mut tokens = |most: u64| most.saturating_sub(u64::from(knobs.byte()) * 10);
        let split = Split {
            read: tokens(1000),
            creation: TierTokens {
                five_minutes: tokens(200),
                one_hour: tokens(40),
                day: tokens(0),
            },
        };
        let is_set = |bit: u8| flags & (1 << bit) != 0;
        Self {
            options: RewriteOptions {
                api: prompt_cache_core::api::Api::Chat,
                kind,
                drop_usage_only: is_set(0),
                event_bytes_max,
                held_bytes_max,
                scrub: is_set(1),
            },
            answer: if is_set(2) {
                Answer::Inactive
            } else {
                Answer::Split(split)
            },
            late: is_set(3),
            moment,
            sizes,
        }
    }

    /// Runs a body whole, in pieces and byte by byte: the results must be the same.
    pub fn run(&self, body: &[u8]) -> Observed {
        let at = if self.late { NEVER } else { 0 };
        let whole = run([body], self.options, self.answer, at);
        let pieces = cut_up(body, &self.sizes);
        self.same(&whole, &run(pieces, self.options, self.answer, at));
        self.same(&whole, &run(body.chunks(1), self.options, self.answer, at));
        whole
    }

    /// Runs a body with the answer in the middle of it: the result may depend on where that is,
    /// never on the chunks.
    pub fn run_answered_inside(&self, body: &[u8]) {
        let at = body.len() * usize::from(self.moment) / 256;
        if at == 0 {
            return;
        }
        let (before, after) = body.split_at(at);
        let two = run([before, after], self.options, self.answer, 1);
        let mut pieces = cut_up(before, &self.sizes);
        let answer_at = pieces.len();
        pieces.extend(cut_up(after, &self.sizes));
        self.same(&two, &run(pieces, self.options, self.answer, answer_at));
    }

    pub fn same(&self, one: &Observed, other: &Observed) {
        if one != other {
            let (one, other) = (show(one), show(other));
            let (options, answer) = (self.options, self.answer);
            panic!(
                "{one}\nbut\n{other}\nwith {options:?}\n{answer:?} late {}",
                self.late
            );
        }
    }
}
