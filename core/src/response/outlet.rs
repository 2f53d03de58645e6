//! Where events leave: at once, edited, behind waiting frames, or not at all.

use super::{
    context::Context,
    event::UsageEvent,
    held::{Held, Released},
    usage::{Edit, show},
};

/// The way out of an event stream. Keeps the order of what it is given.
#[derive(Default)]
pub(super) struct Outlet {
    held: Held,
    /// The last usage frame was dropped while the answer was missing.
    dropped_last: bool,
}

impl Outlet {
    /// A usage frame waits for the answer.
    pub const fn waiting(&self) -> bool {
        !self.held.is_empty()
    }

    pub const fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Bytes leave unedited, behind what waits.
    pub fn emit(&mut self, bytes: &[u8], context: &mut Context, out: &mut Vec<u8>) {
        if self.waiting() {
            if self.held.fits(bytes.len(), context.options.held_bytes_max) {
                self.held.push_bytes(bytes);
                context.completion.see_held(self.held.len());
                return;
            }
            self.give_up(context, out);
        }
        out.extend_from_slice(bytes);
    }

    /// A usage frame leaves edited; without the answer a terminal one waits, and so does one
    /// behind waiting frames.
    pub fn usage(
        &mut self,
        event: UsageEvent,
        terminal: bool,
        context: &mut Context,
        out: &mut Vec<u8>,
    ) {
        self.dropped_last = false;
        if let Some(edit) = context.edit() {
            let (bytes, shown) = event.edited(edit);
            if let Some(shown) = shown {
                context.completion.show(shown);
            }
            out.extend_from_slice(&bytes);
            return;
        }
        let (length, most) = (event.bytes().len(), context.options.held_bytes_max);
        if self.waiting() && !self.held.fits(length, most) {
            self.give_up(context, out);
        }
        if !terminal && !self.waiting() {
            out.extend_from_slice(event.bytes());
        } else if self.held.fits(length, most) {
            self.held.push_usage(event);
            context.completion.see_held(self.held.len());
        } else {
            context.completion.count_released(1);
            out.extend_from_slice(event.bytes());
        }
    }

    /// A usage frame is not delivered. It still says what the request is billed, and waits for
    /// that like any other: the end of the stream, at which the request is committed and
    /// accounted, must not come before.
    pub fn drop_usage(&mut self, context: &mut Context) {
        self.dropped_last = true;
        match context.edit() {
            Some(edit) => Self::show_dropped(edit, context),
            // One is enough to wait, however many are dropped.
            None if !self.waiting() => self.held.push_dropped(),
            None => {}
        }
    }

    /// The line `data: [DONE]` has been emitted, or is about to be.
    pub const fn see_done(&mut self, context: &mut Context) {
        if self.waiting() {
            self.held.note_done();
        } else {
            context.completion.see_done();
        }
    }

    /// The answer is there: what waited leaves.
    pub fn answered(&mut self, context: &mut Context) -> Vec<u8> {
        let Some(edit) = context.edit() else {
            return Vec::new();
        };
        let released = self.held.release(edit);
        note(&released, context);
        if self.dropped_last {
            Self::show_dropped(edit, context);
        }
        released.bytes
    }

    fn show_dropped(edit: Edit, context: &mut Context) {
        if let Edit::Write(split) = edit {
            let prompt_tokens = context.completion.prompt_tokens();
            context.completion.show(show(split, prompt_tokens));
        }
    }

    /// The waiting frames leave unedited: their bytes reached the cap.
    fn give_up(&mut self, context: &mut Context, out: &mut Vec<u8>) {
        let released = self.held.release(Edit::Leave);
        context.completion.count_released(released.frames);
        note(&released, context);
        out.extend_from_slice(&released.bytes);
    }
}

fn note(released: &Released, context: &mut Context) {
    if let Some(shown) = released.shown {
        context.completion.show(shown);
    }
    if released.done {
        context.completion.see_done();
    }
}
