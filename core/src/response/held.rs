//! The queue of events that wait for the classification, in order and bounded.

use super::{event::UsageEvent, usage::Edit};
use crate::ledger::{Cap, Split};

/// Something that waits.
enum Entry {
    /// Bytes that follow a waiting frame.
    Bytes(Vec<u8>),
    /// A usage frame.
    Usage(UsageEvent),
    /// A usage frame that is not delivered.
    Dropped,
}

/// What left the queue.
#[derive(Default)]
pub(super) struct Released {
    pub bytes: Vec<u8>,
    /// What the last usage frame shows.
    pub shown: Option<(Split, Cap)>,
    /// Usage frames among it.
    pub frames: u64,
    /// `[DONE]` was among it.
    pub done: bool,
}

/// The waiting events. Not empty exactly while a terminal usage frame waits.
#[derive(Default)]
pub(super) struct Held {
    entries: Vec<Entry>,
    bytes: usize,
    done: bool,
}

impl Held {
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes in the queue.
    pub const fn len(&self) -> usize {
        self.bytes
    }

    /// Whether `more` bytes fit below the cap.
    pub const fn fits(&self, more: usize, held_bytes_max: usize) -> bool {
        self.bytes.saturating_add(more) <= held_bytes_max
    }

    pub fn push_bytes(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len());
        if let Some(Entry::Bytes(last)) = self.entries.last_mut() {
            last.extend_from_slice(bytes);
        } else {
            self.entries.push(Entry::Bytes(bytes.to_vec()));
        }
    }

    pub fn push_usage(&mut self, event: UsageEvent) {
        self.bytes = self.bytes.saturating_add(event.bytes().len());
        self.entries.push(Entry::Usage(event));
    }

    pub fn push_dropped(&mut self) {
        self.entries.push(Entry::Dropped);
    }

    /// Notes that `[DONE]` is in the queue.
    pub const fn note_done(&mut self) {
        self.done = true;
    }

    /// Empties the queue, its usage frames edited.
    pub fn release(&mut self, edit: Edit) -> Released {
        let held = std::mem::take(self);
        let mut released = Released {
            done: held.done,
            ..Released::default()
        };
        released.bytes.reserve(held.bytes);
        for entry in held.entries {
            match entry {
                Entry::Bytes(bytes) => released.bytes.extend_from_slice(&bytes),
                Entry::Dropped => {}
                Entry::Usage(event) => {
                    released.frames += 1;
                    if edit == Edit::Leave {
                        released.bytes.extend_from_slice(event.bytes());
                    } else {
                        let (bytes, shown) = event.edited(edit);
                        released.bytes.extend_from_slice(&bytes);
                        released.shown = shown.or(released.shown);
                    }
                }
            }
        }
        released
    }
}
