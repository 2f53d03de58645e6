//! Time: milliseconds since the start, and how far the services' clocks are from that.

use std::time::Instant;

/// What the services' clocks may show, as an offset from ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    pub low_ms: i64,
    pub high_ms: i64,
}

/// Our clock, and the history of the services'.
#[derive(Debug)]
pub struct Clocks {
    start: Instant,
    /// Since when, and what.
    history: Vec<(i64, Offset)>,
}

impl Clocks {
    /// The services' clocks are right.
    pub fn start() -> Self {
        let exact = Offset {
            low_ms: 0,
            high_ms: 0,
        };
        Self {
            start: Instant::now(),
            history: vec![(0, exact)],
        }
    }

    /// Milliseconds since the start.
    pub fn now_ms(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// From now on the services' clocks are within `offset`.
    pub fn step(&mut self, now_ms: i64, offset: Offset) {
        self.history.push((now_ms, offset));
    }

    /// What the services' clocks may have shown between two moments.
    pub fn span(&self, from_ms: i64, to_ms: i64) -> Offset {
        let last_before = self.history.iter().rposition(|(at, _)| *at <= from_ms);
        let during = &self.history[last_before.unwrap_or(0)..];
        let during = during.iter().take_while(|(at, _)| *at <= to_ms);
        let first = self.history[last_before.unwrap_or(0)].1;
        during.fold(first, |span, (_, offset)| Offset {
            low_ms: span.low_ms.min(offset.low_ms),
            high_ms: span.high_ms.max(offset.high_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_covers_what_was_shown_in_it() {
        let offset = |low_ms, high_ms| Offset { low_ms, high_ms };
        let mut clocks = Clocks::start();
        clocks.step(100, offset(-5, 7));
        clocks.step(200, offset(300, 310));
        assert_eq!(clocks.span(0, 99), offset(0, 0));
        assert_eq!(clocks.span(0, 100), offset(-5, 7));
        assert_eq!(clocks.span(100, 199), offset(-5, 7));
        assert_eq!(clocks.span(150, 250), offset(-5, 310));
        assert_eq!(clocks.span(250, 900), offset(300, 310));
    }
}
