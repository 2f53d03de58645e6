//! JSON bodies: streamed through up to the value of the top-level `usage`, kept from there on.

use std::ops::Range;

use super::{
    Output,
    context::Context,
    json_lexer::{Found, Lexer},
    splice::{Patch, apply},
    usage::{self, Edit},
};
use crate::object::slice;

/// What happens to the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// They leave; a usage object starts the keeping.
    Streaming,
    /// They are kept: a usage object started.
    Keeping,
    /// They leave, usage objects too.
    Passing,
}

/// One JSON document.
pub(super) struct JsonBody {
    lexer: Lexer,
    state: State,
    /// The bytes from the first usage object on.
    kept: Vec<u8>,
    /// The complete usage objects in `kept`.
    usages: Vec<Range<usize>>,
    /// Where the usage object starts in `kept` that is not complete yet.
    open: Option<usize>,
    /// A complete usage object was seen in the body.
    saw_usage: bool,
}

impl JsonBody {
    pub fn new() -> Self {
        Self {
            lexer: Lexer::new(),
            state: State::Streaming,
            kept: Vec::new(),
            usages: Vec::new(),
            open: None,
            saw_usage: false,
        }
    }

    pub const fn held_bytes(&self) -> usize {
        self.kept.len()
    }

    /// The document is whole.
    pub fn complete(&self) -> bool {
        self.lexer.complete()
    }

    pub fn push(&mut self, chunk: &[u8], context: &mut Context) -> Output {
        let mut out = Vec::new();
        let mut rest = chunk;
        while !rest.is_empty() {
            let taken = if self.state == State::Keeping {
                self.keep(rest, context, &mut out)
            } else {
                let passed = self.pass(rest, context);
                let head = slice(rest, 0..passed);
                if self.state == State::Keeping {
                    self.start(head, context, &mut out);
                } else if rest.len() == chunk.len() {
                    return Output::Unchanged;
                } else {
                    out.extend_from_slice(head);
                }
                passed
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        if out == chunk {
            Output::Unchanged
        } else {
            Output::Replace(out)
        }
    }

    pub fn end(&mut self, context: &mut Context) -> Vec<u8> {
        if !self.lexer.complete() {
            self.usages.clear();
            return std::mem::take(&mut self.kept);
        }
        if self.saw_usage {
            context.completion.see_usage();
        }
        self.note_prompt_tokens(context);
        match context.edit() {
            Some(edit) => self.edited(edit, context),
            None => Vec::new(),
        }
    }

    pub fn answered(&mut self, context: &mut Context) -> Vec<u8> {
        match context.edit() {
            Some(edit) if context.completion.ended() => self.edited(edit, context),
            Some(Edit::Leave) if self.state == State::Keeping => {
                self.state = State::Passing;
                self.let_go()
            }
            _ => Vec::new(),
        }
    }

    /// Takes bytes that leave, up to the start of a usage object that is to be kept (then the
    /// state is `Keeping`). Returns how many.
    fn pass(&mut self, bytes: &[u8], context: &mut Context) -> usize {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let (taken, found) = self.lexer.advance(rest);
            at += taken;
            match found {
                Some(Found::UsageStart)
                    if self.state == State::Streaming && context.edit() != Some(Edit::Leave) =>
                {
                    self.state = State::Keeping;
                    return at;
                }
                Some(Found::UsageEnd) => self.saw_usage = true,
                Some(Found::Error) => context.completion.see_error(),
                Some(Found::UsageStart) | None => {}
            }
        }
        at
    }

    /// `head` ends with the opening brace of a usage object: all before it leaves.
    fn start(&mut self, head: &[u8], context: &mut Context, out: &mut Vec<u8>) {
        let (text, brace) = head
            .split_at_checked(head.len().saturating_sub(1))
            .unwrap_or_default();
        out.extend_from_slice(text);
        self.kept.extend_from_slice(brace);
        self.open = Some(0);
        self.check_cap(context, out);
    }

    /// Takes bytes that are kept. Returns how many.
    fn keep(&mut self, bytes: &[u8], context: &mut Context, out: &mut Vec<u8>) -> usize {
        // Up to one byte over the cap, so that it is noticed at the same byte in any chunking.
        let room = context
            .options
            .held_bytes_max
            .saturating_add(1)
            .saturating_sub(self.kept.len());
        let piece = bytes.get(..room.max(1)).unwrap_or(bytes);
        let (taken, found) = self.lexer.advance(piece);
        self.kept.extend_from_slice(slice(piece, 0..taken));
        match found {
            Some(Found::UsageStart) => self.open = self.kept.len().checked_sub(1),
            Some(Found::UsageEnd) => {
                self.saw_usage = true;
                if let Some(start) = self.open.take() {
                    self.usages.push(start..self.kept.len());
                }
            }
            Some(Found::Error) => context.completion.see_error(),
            None => {}
        }
        if self.lexer.invalid() {
            self.state = State::Passing;
            out.append(&mut self.let_go());
        } else {
            self.check_cap(context, out);
        }
        taken
    }

    /// Over the cap: with all usage objects complete and the answer there they are rewritten and
    /// the rest streams on; otherwise everything leaves as it came.
    fn check_cap(&mut self, context: &mut Context, out: &mut Vec<u8>) {
        if self.kept.len() <= context.options.held_bytes_max {
            context.completion.see_held(self.kept.len());
            return;
        }
        match context.edit() {
            Some(edit) if self.open.is_none() => {
                self.state = State::Streaming;
                out.append(&mut self.edited(edit, context));
            }
            _ => {
                let incomplete = usize::from(self.open.is_some());
                let usages = self.usages.len().saturating_add(incomplete);
                context.completion.count_released(usages as u64);
                self.state = State::Passing;
                out.append(&mut self.let_go());
            }
        }
    }

    fn let_go(&mut self) -> Vec<u8> {
        self.usages.clear();
        self.open = None;
        std::mem::take(&mut self.kept)
    }

    /// The kept bytes with their usage objects edited.
    fn edited(&mut self, edit: Edit, context: &mut Context) -> Vec<u8> {
        let mut patches = Vec::new();
        for range in &self.usages {
            if let Some(edited) = usage::edit(
                slice(&self.kept, range.clone()),
                edit,
                context.options.api,
                None,
            ) {
                if let Some(shown) = edited.shown {
                    context.completion.show(shown);
                }
                patches.push(Patch::replace(range.clone(), edited.bytes));
            }
        }
        self.note_prompt_tokens(context);
        apply(&self.let_go(), patches)
    }

    fn note_prompt_tokens(&self, context: &mut Context) {
        if let Some(last) = self.usages.last() {
            let (usage, api) = (slice(&self.kept, last.clone()), context.options.api);
            let completion = &mut context.completion;
            completion.see_prompt_tokens(usage::prompt_tokens(usage, api, None));
            completion.see_engine_cached(usage::engine_cached(usage, api));
        }
    }
}
