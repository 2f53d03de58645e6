//! Leases: when a read is known without asking, and when it no longer is.

use super::*;
use crate::{
    ledger::{Candidate, NewEntry},
    wire::WIRE_VERSION,
};

const M5: Tier = Tier::FiveMinutes;
const H1: Tier = Tier::OneHour;
const M5_MS: u64 = 300_000;
const TRUST_MS: u64 = 30_000;

fn hash(n: u8) -> PrefixHash {
    PrefixHash::new([n; 32])
}

fn who() -> Fingerprint {
    Fingerprint::new([7; 32])
}

fn model(version: &str) -> ModelPolicy {
    ModelPolicy {
        model: "m".into(),
        tiers: vec![M5, H1],
        default_tier: M5,
        auto: None,
        min_prefix_tokens: 1,
        tokenizer_version: version.into(),
    }
}

/// A worker whose policy is confirmed at every look.
struct Edge(Leases);

impl Edge {
    fn new() -> Self {
        Self::with_bytes(100 * LEASE_BYTES)
    }

    fn with_bytes(bytes: usize) -> Self {
        let mut leases = Leases::new(bytes, TRUST_MS);
        leases.renew("e", 0);
        Self(leases)
    }

    fn told(&mut self, epoch: &str, leases: &[(u8, Tier, u64)], asked_ms: u64) {
        let leases = leases.iter().map(|(n, tier, ttl_ms)| Lease {
            hash: hash(*n),
            tokens: 100 + u32::from(*n),
            tier: *tier,
            ttl_ms: *ttl_ms,
        });
        let classified = Classified {
            tokenizer_version: "v".into(),
            epoch: epoch.into(),
            leases: leases.collect(),
            ..Classified::default()
        };
        self.0
            .classified(&request(9), &classified, asked_ms, asked_ms);
    }

    fn told_short(&mut self, n: u8, tokens: u64) {
        let classified = Classified {
            tokenizer_version: "v".into(),
            epoch: "e".into(),
            short_of_floor: Some(tokens),
            ..Classified::default()
        };
        self.0.classified(&request(n), &classified, 0, 0);
    }

    fn classify(&mut self, at: &[u8], now_ms: u64) -> Option<Leased> {
        self.0.confirm(now_ms);
        let hashes: Vec<PrefixHash> = at.iter().copied().map(hash).collect();
        self.0.classify(&who(), &model("v"), &hashes, now_ms)
    }

    /// What is read, and whether it is reported.
    fn read(&mut self, at: &[u8], now_ms: u64) -> Option<(u64, bool)> {
        let leased = self.classify(at, now_ms)?;
        Some((leased.split.read, leased.read.is_some()))
    }

    fn acknowledged(&mut self, at: &[u8], at_ms: u64, now_ms: u64) {
        let answer = CommitAnswer {
            epoch: "e".into(),
            ..CommitAnswer::default()
        };
        self.acknowledged_by(&answer, at, at_ms, now_ms);
    }

    fn acknowledged_by(&mut self, answer: &CommitAnswer, at: &[u8], at_ms: u64, now_ms: u64) {
        let message = LeasedRead {
            principal: who(),
            model: "m".into(),
            tokenizer_version: "v".into(),
            age_ms: 0,
            hashes: at.iter().copied().map(hash).collect(),
            read_tokens: 0,
        };
        self.0.extended(&[Aged { at_ms, message }], answer, now_ms);
    }
}

fn request(deepest: u8) -> ClassifyRequest {
    ClassifyRequest {
        v: WIRE_VERSION,
        api: crate::api::Api::Chat,
        principal: who(),
        model: "m".into(),
        breakpoints: vec![],
        candidates: vec![Candidate {
            block: 3,
            hash: hash(deepest),
        }],
    }
}

fn commit(n: u8, tier: Tier) -> Commit {
    Commit {
        principal: who(),
        model: "m".into(),
        tokenizer_version: "v".into(),
        age_ms: 0,
        prompt_tokens: None,
        counted_prompt_tokens: None,
        writes: vec![NewEntry {
            hash: hash(n),
            tokens: 100 + u32::from(n),
            tier,
        }],
    }
}

#[test]
fn a_told_entry_is_read_until_its_expiry_and_not_a_millisecond_longer() {
    let mut edge = Edge::new();
    edge.told("e", &[(1, M5, 1_000)], 500);
    assert_eq!(edge.read(&[1], 1_499).map(|r| r.0), Some(101));
    assert_eq!(edge.read(&[1], 1_500), None);
    assert_eq!(edge.read(&[2], 600), None, "another prefix");
}

#[test]
fn the_scope_is_part_of_it() {
    let mut edge = Edge::new();
    edge.told("e", &[(1, M5, M5_MS)], 0);
    let hashes = [hash(1)];
    let mut classify = |who: u8, model: &ModelPolicy| {
        let who = Fingerprint::new([who; 32]);
        edge.0.classify(&who, model, &hashes, 1).is_some()
    };
    assert!(classify(7, &model("v")));
    assert!(!classify(8, &model("v")));
    assert!(!classify(7, &model("w")));
    let other = ModelPolicy {
        model: "n".into(),
        ..model("v")
    };
    assert!(!classify(7, &other));
}

#[test]
fn a_prefix_below_the_floor_is_known_until_the_floor_is_lowered() {
    let mut edge = Edge::new();
    edge.told_short(1, 90);
    edge.0.confirm(1);
    let mut classify = |floor, at: &[u8]| {
        let model = ModelPolicy {
            min_prefix_tokens: floor,
            ..model("v")
        };
        let hashes: Vec<PrefixHash> = at.iter().copied().map(hash).collect();
        edge.0.classify(&who(), &model, &hashes, 1)
    };
    let nothing = Leased {
        split: Split::default(),
        read: None,
    };
    assert_eq!(classify(91, &[1]), Some(nothing));
    assert_eq!(classify(90, &[1]), None);
    assert_eq!(classify(91, &[1, 2]), None, "only as the deepest");
    edge.told("e", &[(1, M5, M5_MS)], 1);
    assert_eq!(edge.read(&[1], 2), Some((101, false)), "a live entry wins");
}

#[test]
fn only_the_deepest_breakpoint_decides() {
    let mut edge = Edge::new();
    edge.told("e", &[(1, M5, M5_MS)], 0);
    assert_eq!(edge.read(&[1, 2], 1), None);
    assert_eq!(edge.read(&[9, 1], 1).map(|r| r.0), Some(101));
}

#[test]
fn a_read_is_reported_when_it_gains_a_hundredth_of_the_window() {
    let mut edge = Edge::new();
    edge.told("e", &[(1, M5, M5_MS)], 0);
    let reported: Vec<bool> = [1, 2_999, 3_000, 3_001, 5_999, 6_000]
        .map(|now_ms| edge.read(&[1], now_ms).unwrap().1)
        .to_vec();
    assert_eq!(reported, [false, false, true, false, false, true]);
    let read = edge.classify(&[1], 9_000).unwrap().read.unwrap();
    assert_eq!(read.read_tokens, 101, "only what was not reported yet");
    // Not acknowledged, so not a millisecond longer for it.
    assert_eq!(edge.read(&[1], M5_MS), None);
}

#[test]
fn an_acknowledged_read_extends_by_what_the_service_is_sure_to_have_done() {
    let mut edge = Edge::new();
    edge.told("e", &[(1, M5, M5_MS)], 0);
    edge.acknowledged(&[1], 100_000, 100_010);
    let until_ms = 100_000 + M5_MS - M5_MS / 100;
    assert!(edge.read(&[1], until_ms - 1).is_some());
    assert!(edge.read(&[1], until_ms).is_none());
    edge.acknowledged(&[1], until_ms - 1, until_ms);
    assert!(
        edge.read(&[1], until_ms).is_none(),
        "ended before the answer"
    );
}

#[test]
fn an_unknown_breakpoint_above_is_reported_with_the_others() {
    let mut edge = Edge::new();
    edge.told("e", &[(1, H1, H1.duration_ms())], 0);
    let read = |edge: &mut Edge, now_ms| {
        let leased = edge.classify(&[5, 1], now_ms).unwrap();
        leased.read.map(|read| read.hashes)
    };
    assert_eq!(read(&mut edge, 2_999), None);
    assert_eq!(read(&mut edge, 3_000), Some(vec![hash(5), hash(1)]));
    assert_eq!(read(&mut edge, 5_999), None);
    assert!(read(&mut edge, 6_000).is_some());
    assert!(
        !edge.read(&[1], 9_500).unwrap().1,
        "alone it gains too little"
    );
}

#[test]
fn another_epoch_voids_and_what_was_answered_in_one_does_not_count_in_another() {
    let mut edge = Edge::new();
    edge.told("e", &[(1, M5, M5_MS)], 0);
    assert_eq!(edge.0.renew("f", 10), 1);
    assert_eq!(edge.read(&[1], 11), None);
    edge.told("e", &[(1, M5, M5_MS)], 9);
    assert_eq!(edge.read(&[1], 11), None, "answered before the purge");
    edge.told("f", &[(1, M5, M5_MS)], 12);
    assert!(edge.read(&[1], 13).is_some());
    edge.0.renew("", 14);
    edge.told("", &[(1, M5, M5_MS)], 15);
    assert_eq!(edge.read(&[1], 16), None, "a service without an epoch");
}

#[test]
fn without_a_confirmed_policy_nothing_is_trusted() {
    let mut edge = Edge::new();
    edge.told("e", &[(1, M5, M5_MS)], 0);
    edge.0.confirm(1_000);
    let hashes = [hash(1)];
    let mut known = |now_ms| {
        edge.0
            .classify(&who(), &model("v"), &hashes, now_ms)
            .is_some()
    };
    assert!(known(1_000 + TRUST_MS) && !known(1_001 + TRUST_MS));
    edge.0.confirm(40_000);
    assert!(edge.read(&[1], 40_001).is_some(), "it was only not trusted");
}

#[test]
fn an_acknowledged_commit_is_leased_from_the_end_of_its_response() {
    let answer = CommitAnswer {
        written: 1,
        epoch: "e".into(),
        ..CommitAnswer::default()
    };
    let earned = [Aged {
        at_ms: 1_000,
        message: commit(1, M5),
    }];
    let mut edge = Edge::new();
    edge.0.committed(&earned, &answer, 1_020);
    assert_eq!(edge.read(&[1], 1_000 + M5_MS - 1).map(|r| r.0), Some(101));
    assert_eq!(edge.read(&[1], 1_000 + M5_MS), None);

    let dropped = CommitAnswer {
        dropped: 1,
        ..answer
    };
    let mut edge = Edge::new();
    edge.0.committed(&earned, &dropped, 1_020);
    assert_eq!(edge.read(&[1], 1_030), None);
}

#[test]
fn a_live_lease_keeps_the_longer_tier_and_an_ended_one_is_replaced_whole() {
    let mut edge = Edge::new();
    edge.told("e", &[(1, H1, H1.duration_ms())], 0);
    edge.told("e", &[(1, M5, M5_MS)], 5_000);
    let mut told = |now_ms| edge.read(&[1], now_ms).unwrap().1;
    assert!(!told(35_999) && told(36_000), "a hundredth of an hour");
    let mut edge = Edge::new();
    edge.told("e", &[(1, H1, 10_000)], 0);
    edge.told("e", &[(1, M5, M5_MS)], 10_000);
    let mut told = |now_ms| edge.read(&[1], now_ms).unwrap().1;
    assert!(!told(12_999) && told(13_000), "of five minutes");
}

#[test]
fn a_leased_breakpoint_above_is_reported_as_often_as_it_gains() {
    let mut edge = Edge::new();
    let hour = H1.duration_ms();
    edge.told("e", &[(1, H1, hour), (5, H1, hour)], 0);
    assert!(!edge.read(&[5, 1], 35_999).unwrap().1);
    assert!(edge.read(&[5, 1], 36_000).unwrap().1);
    let mut edge = Edge::new();
    edge.told("e", &[(1, H1, hour), (5, M5, M5_MS)], 0);
    assert!(!edge.read(&[5, 1], 2_999).unwrap().1);
    assert!(edge.read(&[5, 1], 3_000).unwrap().1);
}

#[test]
fn reads_that_were_not_all_acknowledged_extend_nothing() {
    let good = CommitAnswer {
        epoch: "e".into(),
        ..CommitAnswer::default()
    };
    let dropped = CommitAnswer {
        reads_dropped: 1,
        ..good.clone()
    };
    let elsewhere = CommitAnswer {
        epoch: "f".into(),
        ..good.clone()
    };
    for (answer, extends) in [(good, true), (dropped, false), (elsewhere, false)] {
        let mut edge = Edge::new();
        edge.told("e", &[(1, M5, M5_MS)], 0);
        edge.acknowledged_by(&answer, &[1], 100_000, 100_010);
        assert_eq!(edge.read(&[1], M5_MS).is_some(), extends, "{answer:?}");
    }
}

#[test]
fn the_least_recently_read_goes_first() {
    let mut edge = Edge::with_bytes(2 * LEASE_BYTES);
    edge.told("e", &[(1, M5, M5_MS), (2, M5, M5_MS)], 0);
    assert!(edge.read(&[1], 1).is_some());
    edge.told("e", &[(3, M5, M5_MS)], 2);
    let live: Vec<u8> = (1..=3).filter(|n| edge.read(&[*n], 3).is_some()).collect();
    assert_eq!(live, [1, 3]);
    let mut none = Edge::with_bytes(0);
    none.told("e", &[(1, M5, M5_MS)], 0);
    assert_eq!(none.read(&[1], 1), None);
}

#[test]
fn reads_that_renew_nothing_are_told_together_when_the_first_has_waited() {
    let mut edge = Edge::new();
    edge.told("e", &[(1, M5, M5_MS), (2, H1, 12 * M5_MS)], 0);
    for now_ms in [1_000, 1_500, 2_000] {
        assert_eq!(edge.read(&[1], now_ms), Some((101, false)));
    }
    assert_eq!(edge.read(&[2], 2_500), Some((102, false)));
    assert_eq!(edge.0.untold.len(), 2, "one for each lease");
    assert!(edge.0.untold(1_000 + UNTOLD_MS_MAX - 1).is_none());
    let told = edge.0.untold(1_000 + UNTOLD_MS_MAX).unwrap();
    assert_eq!((told.at_ms, told.message.read_tokens), (1_000, 3 * 101));
    assert_eq!(told.message.hashes, [hash(1)]);
    assert!(edge.0.untold(1_000 + UNTOLD_MS_MAX).is_none());
    assert_eq!(edge.read(&[2], 3_000), Some((102, false)));
    let told = edge.0.untold(60_000).unwrap();
    assert_eq!((told.at_ms, told.message.read_tokens), (2_500, 2 * 102));
    assert!(edge.0.untold(60_000).is_none(), "each is told once");
}

#[test]
fn a_read_of_nothing_is_not_told() {
    let mut edge = Edge::new();
    let empty = Lease {
        hash: hash(1),
        tokens: 0,
        tier: M5,
        ttl_ms: M5_MS,
    };
    let classified = Classified {
        tokenizer_version: "v".into(),
        epoch: "e".into(),
        leases: vec![empty],
        ..Classified::default()
    };
    edge.0.classified(&request(1), &classified, 0, 0);
    assert_eq!(edge.read(&[1], 1), Some((0, false)));
    assert!(edge.0.untold.is_empty());
}

#[test]
fn a_read_that_renews_tells_those_before_it() {
    let mut edge = Edge::new();
    edge.told("e", &[(1, M5, M5_MS)], 0);
    assert_eq!(edge.read(&[1], 1_000), Some((101, false)));
    let told = edge.classify(&[1], 4_000).unwrap().read.unwrap();
    assert_eq!(told.read_tokens, 2 * 101);
    assert!(edge.0.untold(60_000).is_none());
}

#[test]
fn more_reads_than_may_wait_are_told_at_once() {
    let mut edge = Edge::with_bytes(3 * UNTOLD_MAX * LEASE_BYTES);
    let count = u32::try_from(UNTOLD_MAX).unwrap() + 1;
    let prefix = |n: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        PrefixHash::new(bytes)
    };
    let leases = (0..count).map(|n| Lease {
        hash: prefix(n),
        tokens: 100,
        tier: M5,
        ttl_ms: M5_MS,
    });
    let classified = Classified {
        tokenizer_version: "v".into(),
        epoch: "e".into(),
        leases: leases.collect(),
        ..Classified::default()
    };
    edge.0.classified(&request(9), &classified, 0, 0);
    for n in 0..count {
        let leased = edge.0.classify(&who(), &model("v"), &[prefix(n)], 1_000);
        assert_eq!(leased.unwrap().read.is_some(), n == count - 1, "{n}");
    }
}
