//! Caps on what is in flight: requests and prompt bytes.
//!
//! Nothing waits for room: what does not fit is refused at once, so that the filter degrades
//! within its own deadline instead of queueing here.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::config::Limits;
use crate::tokens::pool::LARGE_TEXT_BYTES;

/// Prompt bytes one permit of the text gate stands for.
const TEXT_PERMIT_BYTES: usize = 1024;

/// Counts what is in flight.
pub struct Gates {
    requests: Semaphore,
    text: Arc<Semaphore>,
    /// Large prompts take three quarters of the room at most: a few of them could fill it.
    large_text: Arc<Semaphore>,
}

/// Room for one prompt, given back when it is dropped.
pub struct TextRoom {
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

impl Gates {
    /// Gates of the configured widths.
    pub fn new(limits: &Limits) -> Self {
        let text = limits
            .text_bytes_in_flight_max
            .div_ceil(TEXT_PERMIT_BYTES)
            .min(Semaphore::MAX_PERMITS);
        // Never so few that the largest prompt does not fit.
        let largest = limits.text_body_bytes_max.div_ceil(TEXT_PERMIT_BYTES);
        let large_text = (text / 4 * 3).max(largest).min(text);
        Self {
            requests: Semaphore::new(limits.concurrency_max),
            text: Arc::new(Semaphore::new(text)),
            large_text: Arc::new(Semaphore::new(large_text)),
        }
    }

    /// Room for a request, if there is any; given back when it is dropped.
    pub fn admit_request(&self) -> Option<SemaphorePermit<'_>> {
        self.requests.try_acquire().ok()
    }

    /// Room for a prompt of `text_bytes`, if there is any.
    pub fn admit_text(&self, text_bytes: usize) -> Option<TextRoom> {
        let permits = u32::try_from(text_bytes.div_ceil(TEXT_PERMIT_BYTES)).ok()?;
        let take = |from: &Arc<Semaphore>| Arc::clone(from).try_acquire_many_owned(permits).ok();
        let large = if text_bytes < LARGE_TEXT_BYTES {
            None
        } else {
            Some(take(&self.large_text)?)
        };
        Some(TextRoom {
            _permits: (take(&self.text)?, large),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn large_prompts_leave_room_for_small_ones() {
        let mut limits = Config::builtin().unwrap().limits;
        limits.text_body_bytes_max = 1 << 20;
        limits.text_bytes_in_flight_max = 8 << 20;
        let gates = Gates::new(&limits);
        let large: Vec<TextRoom> =
            std::iter::from_fn(|| gates.admit_text(LARGE_TEXT_BYTES)).collect();
        assert_eq!(large.len() * LARGE_TEXT_BYTES, 6 << 20);
        let small = gates.admit_text(2 << 10);
        assert!(small.is_some());
        drop(large);
        assert!(gates.admit_text(1 << 20).is_some());
    }

    #[test]
    fn the_largest_prompt_fits_alone() {
        let mut limits = Config::builtin().unwrap().limits;
        limits.text_bytes_in_flight_max = limits.text_body_bytes_max;
        let gates = Gates::new(&limits);
        assert!(gates.admit_text(limits.text_body_bytes_max).is_some());
    }
}
