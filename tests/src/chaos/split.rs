//! Which splits a request may be shown, from the counts of its prefixes and what is readable.

use crate::{ledger::Tier, script::Script};

/// What a usage object says about the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    pub read: u64,
    pub five_minutes: u64,
    pub one_hour: u64,
    pub day: u64,
}

impl Shown {
    pub const fn created(self) -> u64 {
        self.five_minutes + self.one_hour + self.day
    }

    /// What is left of it beside `prompt_tokens`: the read gives way first, and where creation
    /// alone is too much there is nothing.
    fn within(self, prompt_tokens: u64) -> Self {
        match prompt_tokens.checked_sub(self.created()) {
            None => Self::default(),
            Some(room) => Self {
                read: self.read.min(room),
                ..self
            },
        }
    }
}

/// One split that may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    pub shown: Shown,
    /// The depth that it reads to.
    pub hit: Option<usize>,
}

/// The splits that `script` may be shown beside `prompt_tokens`. `counts` are the tokens of each
/// of its prefixes; `readable` says which may be read.
pub fn allowed(
    script: &Script,
    counts: &[u64],
    prompt_tokens: u64,
    readable: impl Fn(usize) -> bool,
) -> Vec<Allowed> {
    let nothing = Allowed {
        shown: Shown::default(),
        hit: None,
    };
    let Some(deepest) = script.marks.last() else {
        return vec![nothing];
    };
    let hits = (0..=deepest.depth)
        .filter(|depth| readable(*depth))
        .map(Some);
    let mut all = vec![nothing];
    for hit in std::iter::once(None).chain(hits) {
        let read = Shown {
            read: hit.map_or(0, |depth| counts[depth]),
            ..Shown::default()
        };
        // A count that failed keeps the read.
        for shown in [read, written(script, counts, hit, read)] {
            all.push(Allowed {
                shown: shown.within(prompt_tokens),
                hit,
            });
        }
    }
    all
}

/// The split of a request that reads to `hit` and writes the rest.
fn written(script: &Script, counts: &[u64], hit: Option<usize>, read: Shown) -> Shown {
    let mut shown = read;
    let mut before = read.read;
    let deeper = script.marks.iter().filter(|mark| Some(mark.depth) > hit);
    for mark in deeper {
        let count = counts[mark.depth];
        if count < script.model.floor() {
            continue;
        }
        match script.tier(mark) {
            Tier::FiveMinutes => shown.five_minutes += count - before,
            Tier::OneHour => shown.one_hour += count - before,
        }
        before = count;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::{Api, Mark, Model};

    /// Marks at depths 0 (default, five minutes), 2 (an hour) and 3 (five minutes).
    fn script() -> Script {
        let mark = |depth, tier| Mark { depth, tier };
        Script {
            api: Api::Chat,
            model: Model::Alpha,
            marks: vec![
                mark(0, None),
                mark(2, Some(Tier::OneHour)),
                mark(3, Some(Tier::FiveMinutes)),
            ],
            blocks: vec![1, 2, 3, 4],
            ..Script::of(1, 1)
        }
    }

    const COUNTS: [u64; 4] = [99, 150, 400, 1_000];

    fn shown(read: u64, five_minutes: u64, one_hour: u64) -> Shown {
        Shown {
            read,
            five_minutes,
            one_hour,
            day: 0,
        }
    }

    fn may_be(readable: &[usize], prompt_tokens: u64) -> Vec<Shown> {
        let all = allowed(&script(), &COUNTS, prompt_tokens, |depth| {
            readable.contains(&depth)
        });
        all.iter().map(|allowed| allowed.shown).collect()
    }

    #[test]
    fn a_first_request_writes_what_is_above_the_floor() {
        let all = may_be(&[], 2_000);
        // 99 tokens are below the floor of 100 and fall to the next marker.
        assert!(all.contains(&shown(0, 600, 400)));
        assert!(all.iter().all(|s| s.read == 0));
        for wrong in [shown(0, 699, 301), shown(0, 600, 401), shown(99, 0, 0)] {
            assert!(!all.contains(&wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_read_is_the_count_of_something_readable() {
        let all = may_be(&[1, 3], 2_000);
        assert!(all.contains(&shown(150, 600, 250)));
        assert!(all.contains(&shown(1_000, 0, 0)));
        assert!(all.contains(&shown(150, 0, 0)), "the count failed");
        for wrong in [
            shown(1_001, 0, 0),
            shown(999, 0, 0),
            shown(400, 600, 0),
            shown(150, 600, 251),
            shown(150, 850, 0),
        ] {
            assert!(!all.contains(&wrong), "{wrong:?}");
        }
    }

    #[test]
    fn nothing_is_shown_beyond_the_prompt() {
        let all = may_be(&[3], 900);
        assert!(all.contains(&shown(900, 0, 0)));
        assert!(all.iter().all(|s| s.read + s.created() <= 900));
    }
}
