//! Event streams: framing by line, and what becomes of the current event.
//!
//! Every byte goes through [`SseBody::step`] in order, so decisions depend on the bytes alone.
//! The exception is a shortcut for runs of complete events that a search proves uninteresting;
//! it must do exactly what `step` would.

use memchr::memchr2;

use crate::api::Api;

use super::{
    Output,
    context::Context,
    event::Event,
    line::{BOM, DONE_VALUE, Line, first_of_note, last_boundary, may_matter},
    outlet::Outlet,
};

/// What happens to the current event.
enum Mode {
    /// Its bytes are kept: it may be a usage or error frame.
    Keeping,
    /// Its bytes pass. `head`: how the current line starts, cut off behind [`LINE_HEAD_BYTES`].
    Passing { head: Vec<u8> },
}

/// Where a line feed belongs that follows a carriage return which ended a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterCr {
    /// The last byte was no such carriage return.
    No,
    /// To the kept event.
    Event,
    /// Behind what left.
    Out,
    /// To an event that is not delivered.
    Dropped,
}

/// More than any line that is recognised in a passing event.
const LINE_HEAD_BYTES: usize = 32;

/// A stream of events.
pub(super) struct SseBody {
    mode: Mode,
    /// The current event as far as it is kept.
    event: Vec<u8>,
    /// Where its current line starts.
    line_start: usize,
    /// A data line opened a JSON object.
    has_object: bool,
    /// The stream's first line has not ended: it may start with a byte order mark.
    first_line: bool,
    /// The kept event starts where the stream starts.
    first_event: bool,
    after_cr: AfterCr,
    outlet: Outlet,
}

impl SseBody {
    pub fn new() -> Self {
        Self {
            mode: Mode::Keeping,
            event: Vec::new(),
            line_start: 0,
            has_object: false,
            first_line: true,
            first_event: true,
            after_cr: AfterCr::No,
            outlet: Outlet::default(),
        }
    }

    pub fn waiting(&self) -> bool {
        self.outlet.waiting()
    }

    pub fn held_bytes(&self) -> usize {
        self.event.len().saturating_add(self.outlet.held_bytes())
    }

    pub fn push(&mut self, chunk: &[u8], context: &mut Context) -> Output {
        let mut out = Vec::new();
        let mut rest = chunk;
        // One search a chunk, at the first event that starts in it: linear whatever comes.
        let mut searched = false;
        while let Some(first) = rest.first() {
            if !searched && self.between_events(*first) {
                searched = true;
                let clean =
                    clean_events(rest, context.options.event_bytes_max, context.options.api);
                if clean == chunk.len() {
                    self.skip(chunk);
                    return Output::Unchanged;
                }
                let (events, tail) = rest.split_at_checked(clean).unwrap_or_default();
                self.skip(events);
                out.extend_from_slice(events);
                rest = tail;
                continue;
            }
            rest = self.step(rest, context, &mut out);
        }
        if out == chunk {
            Output::Unchanged
        } else {
            Output::Replace(out)
        }
    }

    pub fn end(&mut self, context: &mut Context) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.mode {
            Mode::Keeping if self.event.is_empty() => {}
            Mode::Keeping => {
                // The last line may lack its end, and the last event its blank line.
                if self.line_start < self.event.len() {
                    self.end_line(0, context, &mut out);
                }
                if matches!(self.mode, Mode::Keeping) && !self.event.is_empty() {
                    self.end_event(context, &mut out);
                }
            }
            Mode::Passing { head } => {
                if Line::parse(without_bom(head, self.first_line)) == Line::ErrorEvent {
                    context.completion.see_error();
                }
            }
        }
        out
    }

    /// The answer is there: what waited leaves.
    pub fn answered(&mut self, context: &mut Context) -> Vec<u8> {
        self.outlet.answered(context)
    }

    /// Whether a new event starts with the byte `first`, with nothing left over from before.
    fn between_events(&self, first: u8) -> bool {
        matches!(self.mode, Mode::Keeping)
            && self.event.is_empty()
            && !self.outlet.waiting()
            && (self.after_cr == AfterCr::No || first != b'\n')
            && (!self.first_line || Some(&first) != BOM.first())
    }

    /// Notes that complete events left.
    fn skip(&mut self, events: &[u8]) {
        let Some(last) = events.last() else { return };
        self.after_cr = if *last == b'\r' {
            AfterCr::Out
        } else {
            AfterCr::No
        };
        self.first_line = false;
        self.first_event = false;
    }

    /// Takes bytes up to the end of a line, or all of them. Returns the others.
    fn step<'a>(&mut self, bytes: &'a [u8], context: &mut Context, out: &mut Vec<u8>) -> &'a [u8] {
        let after_cr = std::mem::replace(&mut self.after_cr, AfterCr::No);
        if let (true, Some((b'\n', rest))) = (after_cr != AfterCr::No, bytes.split_first()) {
            match after_cr {
                AfterCr::Event => {
                    if self.keep(b"\n", context, out) {
                        self.line_start = self.event.len();
                    }
                }
                AfterCr::Out => self.outlet.emit(b"\n", context, out),
                AfterCr::No | AfterCr::Dropped => {}
            }
            return rest;
        }
        let line_end = memchr2(b'\n', b'\r', bytes);
        let ended = line_end.is_some();
        let length = line_end.map_or(bytes.len(), |at| at + 1);
        let (piece, rest) = bytes.split_at_checked(length).unwrap_or_default();
        if matches!(self.mode, Mode::Passing { .. }) {
            self.outlet.emit(piece, context, out);
            self.pass(piece, ended, context);
        } else if !self.keep(piece, context, out) {
            self.pass(piece, ended, context);
        } else if ended {
            self.end_line(1, context, out);
        }
        if piece.last() != Some(&b'\r') {
            self.after_cr = AfterCr::No;
        }
        rest
    }

    /// Appends to the kept event. False: it grew over the limit and left, with these bytes; the
    /// line that was kept so far is the head of the passing line.
    fn keep(&mut self, piece: &[u8], context: &mut Context, out: &mut Vec<u8>) -> bool {
        let length = self.event.len().saturating_add(piece.len());
        if length <= context.options.event_bytes_max {
            self.event.extend_from_slice(piece);
            return true;
        }
        context.completion.count_oversize();
        let event = std::mem::take(&mut self.event);
        self.outlet.emit(&event, context, out);
        self.outlet.emit(piece, context, out);
        let line = event.get(self.line_start..).unwrap_or_default();
        let head = line.get(..LINE_HEAD_BYTES).unwrap_or(line).to_vec();
        self.mode = Mode::Passing { head };
        self.forget_event();
        false
    }

    /// Follows the lines of a passing event.
    fn pass(&mut self, piece: &[u8], ended: bool, context: &mut Context) {
        let Mode::Passing { head } = &mut self.mode else {
            return;
        };
        let text = piece
            .get(..piece.len() - usize::from(ended))
            .unwrap_or_default();
        let room = LINE_HEAD_BYTES.saturating_sub(head.len()).min(text.len());
        head.extend_from_slice(text.get(..room).unwrap_or_default());
        if !ended {
            return;
        }
        self.after_cr = AfterCr::Out;
        match Line::parse(without_bom(
            head,
            std::mem::replace(&mut self.first_line, false),
        )) {
            Line::Blank => self.mode = Mode::Keeping,
            line => {
                if line == Line::ErrorEvent {
                    context.completion.see_error();
                }
                head.clear();
            }
        }
    }

    /// Decides on the line that just ended in the kept event, `end` being the length of its end.
    fn end_line(&mut self, end: usize, context: &mut Context, out: &mut Vec<u8>) {
        let line_end = self.event.len().saturating_sub(end);
        let line = self
            .event
            .get(self.line_start..line_end)
            .unwrap_or_default();
        let line = without_bom(line, std::mem::replace(&mut self.first_line, false));
        let mut passing = false;
        match Line::parse(line) {
            Line::Blank => {
                self.after_cr = self.end_event(context, out);
                return;
            }
            Line::Comment if self.line_start == 0 => {
                self.leave(context, out);
                self.after_cr = AfterCr::Out;
                return;
            }
            Line::ErrorEvent => context.completion.see_error(),
            Line::Data(value) if !self.has_object => match value.trim_ascii() {
                b"" => {}
                value if value.starts_with(b"{") => self.has_object = true,
                value => {
                    passing = true;
                    if value == DONE_VALUE {
                        self.outlet.see_done(context);
                    }
                }
            },
            Line::Comment | Line::Data(_) | Line::Other => {}
        }
        if passing {
            self.leave(context, out);
            self.mode = Mode::Passing { head: Vec::new() };
            self.after_cr = AfterCr::Out;
        } else {
            self.line_start = self.event.len();
            self.after_cr = AfterCr::Event;
        }
    }

    /// The kept bytes leave unedited.
    fn leave(&mut self, context: &mut Context, out: &mut Vec<u8>) {
        let event = std::mem::take(&mut self.event);
        self.outlet.emit(&event, context, out);
        self.forget_event();
    }

    fn forget_event(&mut self) {
        self.line_start = 0;
        self.has_object = false;
        self.first_event = false;
    }

    /// The kept event is complete: it leaves, waits, or is dropped. Returns where the line feed
    /// belongs that may follow.
    fn end_event(&mut self, context: &mut Context, out: &mut Vec<u8>) -> AfterCr {
        let bytes = std::mem::take(&mut self.event);
        let (first, has_object) = (self.first_event, self.has_object);
        self.forget_event();
        let api = context.options.api;
        if !has_object || !may_matter(&bytes, api) {
            self.outlet.emit(&bytes, context, out);
            return AfterCr::Out;
        }
        match Event::read(bytes, first, api, context.completion.prompt_tokens()) {
            Event::Plain { bytes, error, stop } => {
                if error {
                    context.completion.see_error();
                }
                self.outlet.emit(&bytes, context, out);
                if stop {
                    self.outlet.see_done(context);
                }
                AfterCr::Out
            }
            Event::Usage { event, frame } => {
                if frame.error {
                    context.completion.see_error();
                }
                context.completion.see_usage();
                context.completion.see_prompt_tokens(event.prompt_tokens());
                context.completion.see_engine_cached(event.engine_cached());
                if context.options.drop_usage_only && frame.usage_only {
                    self.outlet.drop_usage(context);
                    return AfterCr::Dropped;
                }
                self.outlet.usage(event, frame.terminal, context, out);
                if frame.stop {
                    self.outlet.see_done(context);
                }
                AfterCr::Out
            }
        }
    }
}

fn without_bom(line: &[u8], first_line: bool) -> &[u8] {
    if first_line {
        line.strip_prefix(BOM).unwrap_or(line)
    } else {
        line
    }
}

/// The length of the complete events that start `chunk` and are certain to pass and to leave
/// nothing to note.
fn clean_events(chunk: &[u8], event_bytes_max: usize, api: Api) -> usize {
    let events = chunk.get(..last_boundary(chunk)).unwrap_or_default();
    let clean = match first_of_note(events, api) {
        None => events.len(),
        Some(at) => last_boundary(events.get(..at).unwrap_or_default()),
    };
    // Shorter than the limit all together, and so each of them.
    if clean <= event_bytes_max { clean } else { 0 }
}
