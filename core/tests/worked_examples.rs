//! The table of worked examples in `docs/semantics.md` against the pure functions.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;

use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{
    Breakpoint, Candidate, LiveEntry, NewEntry, Tier, TierTokens, find_hit, look_back, split_writes,
};

const DOCS: &str = include_str!("../../docs/semantics.md");
const FLOOR: u64 = 1024;

/// The rows below the header that begins with `first`, as trimmed cells.
fn rows(first: &str) -> Vec<Vec<&'static str>> {
    let header = format!("| {first} |");
    let cells = |line: &'static str| {
        let line = line.strip_prefix('|').unwrap().strip_suffix('|').unwrap();
        line.split('|').map(str::trim).collect()
    };
    let lines = DOCS
        .lines()
        .skip_while(move |line| !line.starts_with(&header));
    lines
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect()
}

fn list(cell: &'static str) -> impl Iterator<Item = &'static str> {
    cell.split(", ").filter(|part| !part.is_empty())
}

/// `9 = 2000 5m, …`
fn boundaries(cell: &'static str) -> BTreeMap<u32, (u32, Tier)> {
    list(cell)
        .map(|part| {
            let (block, rest) = part.split_once(" = ").expect(part);
            let (tokens, tier) = rest.split_once(' ').expect(part);
            let tier = Tier::from_name(tier).expect(part);
            (block.parse().unwrap(), (tokens.parse().unwrap(), tier))
        })
        .collect()
}

fn hash(block: u32) -> PrefixHash {
    PrefixHash::new([block as u8; 32])
}

#[test]
fn the_table_of_the_docs_holds() {
    let rows = rows("breakpoints");
    assert!(rows.len() >= 20, "{} rows", rows.len());
    for row in rows {
        let [marked, live, read, creation, written, renewed] = row[..] else {
            panic!("{row:?}");
        };
        let (marked, live) = (boundaries(marked), boundaries(live));
        let breakpoints: Vec<Breakpoint> = marked
            .iter()
            .map(|(block, (_, tier))| Breakpoint {
                block: *block,
                tier: *tier,
            })
            .collect();
        let candidates: Vec<Candidate> = look_back(&breakpoints)
            .into_iter()
            .map(|block| Candidate {
                block,
                hash: hash(block),
            })
            .collect();
        let found: Vec<Option<LiveEntry>> = candidates
            .iter()
            .map(|c| {
                let (tokens, tier) = *live.get(&c.block)?;
                let expires_at_ms = 1;
                Some(LiveEntry {
                    tokens,
                    tier,
                    expires_at_ms,
                })
            })
            .collect();
        let found = find_hit(&breakpoints, &candidates, &found);
        let counts: Vec<(PrefixHash, u64)> = found
            .deeper
            .iter()
            .map(|b| (hash(b.block), marked[&b.block].0.into()))
            .collect();
        let (split, writes) = split_writes(&found, &counts, FLOOR);

        let mut created = TierTokens::default();
        for part in list(creation) {
            let (tier, tokens) = part.split_once(' ').expect(part);
            created.add(Tier::from_name(tier).expect(part), tokens.parse().unwrap());
        }
        let expected: Vec<NewEntry> = boundaries(written)
            .into_iter()
            .map(|(block, (tokens, tier))| NewEntry {
                hash: hash(block),
                tokens,
                tier,
            })
            .collect();
        let renewed: Vec<PrefixHash> = list(renewed)
            .map(|block| hash(block.parse().unwrap()))
            .collect();
        assert_eq!(split.read, read.parse::<u64>().unwrap(), "{row:?}");
        assert_eq!(split.creation, created, "{row:?}");
        assert_eq!(writes, expected, "{row:?}");
        let refresh: Vec<PrefixHash> = found.refresh.iter().map(|(hash, _)| *hash).collect();
        assert_eq!(refresh, renewed, "{row:?}");
    }
}
