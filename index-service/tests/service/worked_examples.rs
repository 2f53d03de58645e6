//! The table of lives in `docs/semantics.md` against the service, over HTTP.

use prompt_cache_core::ledger::{LiveEntry, Tier};
use prompt_cache_core::wire::Commit;
use prompt_cache_index::store::{Scope, Write};

use crate::harness::{NOW, Running, entry, principal, start};

const DOCS: &str = include_str!("../../../docs/semantics.md");

fn rows() -> Vec<Vec<&'static str>> {
    DOCS.lines()
        .skip_while(|line| !line.starts_with("| stored | left |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
        .map(|cells| cells[1..cells.len() - 1].to_vec())
        .collect()
}

/// An entry of that tier with so many seconds left, unless the cell is empty.
fn stored(tier: &str, left: &str) -> Option<(Tier, u64)> {
    let tier = Tier::from_name(tier)?;
    Some((tier, left.parse::<u64>().unwrap() * 1000))
}

/// Does what a row says to `entry` number `n`.
fn act(running: &Running, n: u8, what: &str) {
    if let Some(tier) = what.strip_prefix("read marked ") {
        let tier = Tier::from_name(tier).expect(what);
        let mut request = crate::harness::request(1, b"{\"messages\":[]}", &[(0, tier)]);
        request.candidates[0].hash = entry(n, 0, tier).hash;
        running.ask(&request);
        running.flush();
        return;
    }
    let commit = what.strip_prefix("commit ").expect(what);
    let (tier, age) = commit.split_once(", ").expect(what);
    let seconds: u64 = age.strip_suffix(" s old").expect(what).parse().unwrap();
    running.commit(vec![Commit {
        principal: principal(1),
        model: "demo".to_owned(),
        tokenizer_version: version(running),
        age_ms: seconds * 1000,
        prompt_tokens: None,
        counted_prompt_tokens: None,
        writes: vec![entry(n, 2000, Tier::from_name(tier).expect(what))],
    }]);
}

fn version(running: &Running) -> String {
    let models = running.service.models.policies();
    models[0].tokenizer_version.clone()
}

#[test]
fn the_table_of_lives_holds() {
    let running = start("");
    let scope = Scope::of(&principal(1), "demo", &version(&running));
    let rows = rows();
    assert!(rows.len() >= 16, "{} rows", rows.len());
    for (n, row) in rows.into_iter().enumerate() {
        let n = n as u8 + 1;
        let [tier, left, what, tier_after, left_after] = row[..] else {
            panic!("{row:?}");
        };
        if let Some((tier, left_ms)) = stored(tier, left) {
            let write = Write {
                scope,
                entry: entry(n, 2000, tier),
                expires_at_ms: NOW + left_ms,
            };
            running
                .block_on(running.service.store.write(vec![write], NOW - 1))
                .unwrap();
        }
        act(&running, n, what);
        let hash = entry(n, 0, Tier::Day).hash;
        let hashes = [hash];
        let look_up = running.service.store.look_up(&scope, &hashes, NOW);
        let after = running.block_on(look_up).unwrap()[0];
        let expected = stored(tier_after, left_after).map(|(tier, left_ms)| LiveEntry {
            tokens: 2000,
            tier,
            expires_at_ms: NOW + left_ms,
        });
        assert_eq!(after, expected, "{row:?}");
    }
}
