//! The classification: which prefix is a hit, and what the breakpoints after it write.
//!
//! Pure functions over breakpoints, live entries and token counts; the filter decides which
//! candidates travel, the service looks them up and counts.

use crate::order::sort_by_key;
use serde::{Deserialize, Serialize};

use super::{
    split::Split,
    tier::{Tier, TierTokens},
};
use crate::prefix_hash::PrefixHash;

/// Breakpoints a request may carry.
pub const MAX_BREAKPOINTS: usize = 4;
/// Blocks a breakpoint looks at: its own boundary and the 19 before it.
pub const LOOK_BACK_BLOCKS: u32 = 20;
/// Boundaries one look-up may ask for.
pub const MAX_CANDIDATES: usize = MAX_BREAKPOINTS * LOOK_BACK_BLOCKS as usize;

/// A point the client wants cached up to: the boundary after block number `block` (from 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breakpoint {
    /// Index of the last block of the prefix.
    pub block: u32,
    /// The life the client asked for.
    pub tier: Tier,
}

/// A boundary that may be a hit, with the hash of the prefix that ends there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Index of the last block of the prefix.
    pub block: u32,
    /// Identity of the prefix.
    pub hash: PrefixHash,
}

/// What the ledger holds of a prefix that has not expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveEntry {
    /// Tokens of the whole prefix.
    pub tokens: u32,
    /// The tier it was written with.
    pub tier: Tier,
    /// When it expires, in milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
}

/// An entry that a successful request will write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEntry {
    /// Identity of the prefix.
    pub hash: PrefixHash,
    /// Tokens of the whole prefix.
    pub tokens: u32,
    /// Its tier.
    pub tier: Tier,
}

/// What the look-up found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The deepest live candidate.
    pub hit: Option<(Candidate, LiveEntry)>,
    /// Entries whose life this read extends: the hit, and every live breakpoint before it.
    pub refresh: Vec<(PrefixHash, LiveEntry)>,
    /// Breakpoints deeper than the hit, in order. Empty: a pure read, nothing to count or write.
    pub deeper: Vec<Breakpoint>,
}

impl Found {
    /// Tokens read: the stored count of the hit.
    pub fn read(&self) -> u64 {
        self.hit.map_or(0, |(_, entry)| u64::from(entry.tokens))
    }
}

/// The blocks whose boundaries are candidates: ascending, without repeats, at most
/// [`MAX_CANDIDATES`] for at most [`MAX_BREAKPOINTS`] breakpoints.
pub fn look_back(breakpoints: &[Breakpoint]) -> Vec<u32> {
    look_back_runs(breakpoints, |_| false)
}

/// [`look_back`] where a run of blocks counts as one; `continues` tells of a block that it belongs
/// to the run of the block before it. The ends of runs come first, then the deepest of the
/// boundaries inside runs, as far as [`MAX_CANDIDATES`] allows.
pub fn look_back_runs(breakpoints: &[Breakpoint], continues: impl Fn(u32) -> bool) -> Vec<u32> {
    let mut ends: Vec<u32> = Vec::new();
    let mut inner: Vec<u32> = Vec::new();
    for breakpoint in breakpoints {
        let mut block = breakpoint.block;
        let mut steps = 1;
        let mut inside = 0;
        ends.push(block);
        while let Some(before) = block.checked_sub(1) {
            if continues(block) {
                // There is no room for more, and a run may have as many blocks as a request.
                if inside < MAX_CANDIDATES {
                    inside += 1;
                    inner.push(before);
                }
            } else if steps == LOOK_BACK_BLOCKS {
                break;
            } else {
                steps += 1;
                ends.push(before);
            }
            block = before;
        }
    }
    ascending(&mut ends);
    ascending(&mut inner);
    inner.retain(|block| !ends.contains(block));
    let room = MAX_CANDIDATES.saturating_sub(ends.len());
    ends.extend(inner.iter().rev().take(room));
    ascending(&mut ends);
    ends
}

fn ascending(blocks: &mut Vec<u32>) {
    sort_by_key(blocks, |block| u64::from(*block));
    blocks.dedup();
}

/// Finds the hit among `candidates` (ascending by block), `live` being what the ledger answered
/// for each of them. `breakpoints` are ascending by block, one per block.
pub fn find_hit(
    breakpoints: &[Breakpoint],
    candidates: &[Candidate],
    live: &[Option<LiveEntry>],
) -> Found {
    let entries = || {
        candidates
            .iter()
            .zip(live)
            .filter_map(|(c, e)| e.map(|e| (*c, e)))
    };
    let hit = entries().next_back();
    let depth = hit.map(|(candidate, _)| candidate.block);
    let refresh = entries()
        .filter(|(c, _)| Some(c.block) == depth || breakpoints.iter().any(|b| b.block == c.block))
        .map(|(c, e)| (c.hash, e))
        .collect();
    let deeper = breakpoints
        .iter()
        .filter(|b| Some(b.block) > depth)
        .copied()
        .collect();
    Found {
        hit,
        refresh,
        deeper,
    }
}

/// Splits the tokens after the hit over the breakpoints deeper than it.
///
/// `counts` holds, for each breakpoint of `found.deeper`, the hash there and the cumulative
/// tokens of its prefix. A breakpoint below `min_prefix_tokens` (or one whose count does not fit
/// an entry) is skipped and its tokens fall to the next.
pub fn split_writes(
    found: &Found,
    counts: &[(PrefixHash, u64)],
    min_prefix_tokens: u64,
) -> (Split, Vec<NewEntry>) {
    let read = found.read();
    let mut creation = TierTokens::default();
    let mut writes = Vec::new();
    let mut previous = read;
    for (breakpoint, &(hash, cumulative)) in found.deeper.iter().zip(counts) {
        let Ok(tokens) = u32::try_from(cumulative) else {
            continue;
        };
        if cumulative < min_prefix_tokens {
            continue;
        }
        creation.add(breakpoint.tier, cumulative.saturating_sub(previous));
        previous = previous.max(cumulative);
        writes.push(NewEntry {
            hash,
            tokens,
            tier: breakpoint.tier,
        });
    }
    (Split { read, creation }, writes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(block: u32) -> PrefixHash {
        PrefixHash::new([u8::try_from(block).unwrap(); 32])
    }

    fn at(block: u32, tier: Tier) -> Breakpoint {
        Breakpoint { block, tier }
    }

    fn entry(tokens: u32) -> LiveEntry {
        LiveEntry {
            tokens,
            tier: Tier::FiveMinutes,
            expires_at_ms: 1,
        }
    }

    fn find(breakpoints: &[Breakpoint], live: &[(u32, u32)]) -> Found {
        let candidates: Vec<_> = look_back(breakpoints)
            .into_iter()
            .map(|block| Candidate {
                block,
                hash: hash(block),
            })
            .collect();
        let answers: Vec<_> = candidates
            .iter()
            .map(|c| {
                live.iter()
                    .find(|(block, _)| *block == c.block)
                    .map(|(_, t)| entry(*t))
            })
            .collect();
        find_hit(breakpoints, &candidates, &answers)
    }

    #[test]
    fn a_run_is_one_step_of_the_look_back() {
        let at = |block| Breakpoint {
            block,
            tier: Tier::OneHour,
        };
        // Blocks 10 to 39 are one run: 9 steps after it, the run, and 10 before it.
        let run = |block| (11..40).contains(&block);
        let blocks = look_back_runs(&[at(48)], run);
        assert_eq!(blocks, (0..=48).collect::<Vec<_>>());
        // A long one: its end, and the deepest boundaries in it that there is room for.
        let long = |block| (1001..2000).contains(&block);
        let blocks = look_back_runs(&[at(2002)], long);
        assert_eq!(blocks.len(), MAX_CANDIDATES);
        let (before, inside) = blocks.split_at(16);
        assert_eq!(before, (984..1000).collect::<Vec<_>>());
        assert_eq!(inside, (1939..=2002).collect::<Vec<_>>());
        // Nothing is a run.
        assert_eq!(
            look_back_runs(&[at(48), at(30)], |_| false),
            look_back(&[at(30), at(48)])
        );
    }

    #[test]
    fn look_back_is_twenty_boundaries_without_repeats() {
        assert_eq!(look_back(&[at(3, Tier::OneHour)]), vec![0, 1, 2, 3]);
        assert_eq!(
            look_back(&[at(19, Tier::OneHour)]),
            (0..=19).collect::<Vec<_>>()
        );
        assert_eq!(
            look_back(&[at(20, Tier::OneHour)]),
            (1..=20).collect::<Vec<_>>()
        );
        let far = [0, 100, 200, 300].map(|b| at(b, Tier::OneHour));
        assert_eq!(look_back(&far).len(), 61);
        let close = [50, 55].map(|b| at(b, Tier::OneHour));
        assert_eq!(look_back(&close), (31..=55).collect::<Vec<_>>());
    }

    #[test]
    fn the_deepest_live_entry_is_the_hit_and_live_breakpoints_before_it_refresh() {
        let breakpoints = [
            at(2, Tier::OneHour),
            at(6, Tier::FiveMinutes),
            at(9, Tier::OneHour),
        ];
        let found = find(&breakpoints, &[(1, 100), (2, 200), (7, 700)]);
        assert_eq!(found.hit.map(|(c, e)| (c.block, e.tokens)), Some((7, 700)));
        assert_eq!(found.read(), 700);
        assert_eq!(
            found.refresh.iter().map(|(h, _)| *h).collect::<Vec<_>>(),
            [hash(2), hash(7)]
        );
        assert_eq!(found.deeper, [at(9, Tier::OneHour)]);
    }

    #[test]
    fn a_live_deepest_breakpoint_is_a_pure_read() {
        let found = find(&[at(2, Tier::OneHour), at(6, Tier::OneHour)], &[(6, 1500)]);
        assert_eq!(found.deeper, []);
        let (split, writes) = split_writes(&found, &[], 1024);
        assert_eq!(
            (split.read, split.creation.total(), writes.len()),
            (1500, 0, 0)
        );
    }

    #[test]
    fn tokens_below_the_floor_fall_to_the_next_breakpoint() {
        let breakpoints = [
            at(0, Tier::OneHour),
            at(1, Tier::FiveMinutes),
            at(2, Tier::OneHour),
        ];
        let found = find(&breakpoints, &[]);
        let counts = [(hash(0), 1023), (hash(1), 1024), (hash(2), 1500)];
        let (split, writes) = split_writes(&found, &counts, 1024);
        assert_eq!(
            split.creation,
            TierTokens {
                five_minutes: 1024,
                one_hour: 476,
                day: 0
            }
        );
        assert_eq!(
            writes.iter().map(|w| w.tokens).collect::<Vec<_>>(),
            [1024, 1500]
        );
    }

    #[test]
    fn a_count_beyond_u32_is_not_written() {
        let found = find(&[at(0, Tier::OneHour)], &[]);
        let (split, writes) = split_writes(&found, &[(hash(0), 1 << 32)], 1024);
        assert_eq!((split, writes.len()), (Split::default(), 0));
    }

    proptest! {
        /// SPEC: `read + creation` = the cumulative count of the deepest written breakpoint, or `read`.
        #[test]
        fn the_split_sums_to_the_deepest_write(
            steps in prop::collection::vec((1u32..30, 0u64..3000, 0usize..3), 1..=4),
            live in prop::collection::vec((0u32..120, 0u32..500), 0..4),
            floor in 0u64..3000,
        ) {
            let mut block = 0;
            let mut cumulative = 500;
            let mut breakpoints = Vec::new();
            let mut counts = Vec::new();
            for (blocks, tokens, tier) in steps {
                block += blocks;
                cumulative += tokens;
                breakpoints.push(at(block, Tier::ALL[tier]));
                counts.push((hash(block), cumulative));
            }
            let found = find(&breakpoints, &live);
            let deeper = breakpoints.len() - found.deeper.len();
            let (split, writes) = split_writes(&found, &counts[deeper..], floor);
            let expected = writes.last().map_or(found.read(), |w| u64::from(w.tokens));
            prop_assert_eq!(split.read + split.creation.total(), expected);
        }
    }
}
