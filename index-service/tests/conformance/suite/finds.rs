//! What a look-up finds, and how wide a count is.

use super::*;

pub async fn eighty_candidates_with_holes(store: AnyStore) {
    let all: Vec<u32> = (0..MAX_CANDIDATES as u32).collect();
    let held = |n: u32| n.is_multiple_of(3) || n == 79;
    let batch = all
        .iter()
        .filter(|n| held(**n))
        .map(|n| write(1, *n, n + 1, M5, NOW + 1000))
        .collect();
    store.write(batch, NOW).await.unwrap();
    let hashes: Vec<PrefixHash> = all.iter().map(|n| hash(*n)).collect();
    let expected: Vec<_> = all
        .iter()
        .map(|n| held(*n).then(|| live(n + 1, M5, NOW + 1000)).flatten())
        .collect();
    assert_eq!(
        store.look_up(&scope(1), &hashes, NOW).await.unwrap(),
        expected
    );
    assert_eq!(store.look_up(&scope(1), &[], NOW).await.unwrap(), []);
}

pub async fn the_largest_count_survives(store: AnyStore) {
    store
        .write(vec![write(1, 1, u32::MAX, Tier::Day, NOW + 1000)], NOW)
        .await
        .unwrap();
    assert_eq!(
        get(&store, 1, 1, NOW).await,
        live(u32::MAX, Tier::Day, NOW + 1000)
    );
}

/// A count is 32 bits wide from the wire to the store: the way in that a wider one could take
/// says no, and the store is as it was.
pub async fn counts_beyond_u32_are_refused(store: AnyStore) {
    let import = |tokens: u64| {
        let number = u128::from_be_bytes(*info(1, "m").scope().as_bytes());
        let (hash, scope) = (hash(1).to_string(), format!("{number:032x}"));
        let entry = json!({"scope": scope, "hash": hash, "tokens": tokens, "tier": "5m",
            "expires_at_ms": NOW + 1000});
        let scope = json!({"account": Fingerprint::new([1; 32]), "model": "m",
            "tokenizer_version": "version"});
        let lines = [
            json!({"ledger": 1}),
            scope,
            entry,
            json!({"scopes": 1, "entries": 1}),
        ];
        lines.map(|line| format!("{line}\n")).concat()
    };
    let beyond = import(u64::from(u32::MAX) + 1);
    let refused = transfer::import(&*store, NOW, beyond.as_bytes()).await;
    assert!(
        matches!(refused, Err(TransferError::Line { line: 3, .. })),
        "{refused:?}"
    );
    assert_eq!(entries(&store).await, 0);
    let largest = import(u32::MAX.into());
    let moved = transfer::import(&*store, NOW, largest.as_bytes()).await;
    assert_eq!(moved.unwrap().entries, 1);
    let scope = info(1, "m").scope();
    let found = store.look_up(&scope, &[hash(1)], NOW).await.unwrap();
    assert_eq!(found, [live(u32::MAX, M5, NOW + 1000)]);
}

pub async fn a_find_answers_all_that_the_hit_needs(store: AnyStore) {
    let mut runner = TestRunner::deterministic();
    let cases = (
        prop::collection::btree_set(0..60u32, 1..=MAX_BREAKPOINTS),
        prop::collection::vec(0..60u32, 0..6),
    );
    for tenant in 0..40 {
        let (blocks, held) = cases.new_tree(&mut runner).unwrap().current();
        let breakpoints: Vec<Breakpoint> = blocks
            .into_iter()
            .map(|block| Breakpoint { block, tier: M5 })
            .collect();
        let candidates: Vec<Candidate> = look_back(&breakpoints)
            .into_iter()
            .map(|block| Candidate {
                block,
                hash: hash(block),
            })
            .collect();
        let batch = held
            .iter()
            .map(|n| write(tenant, *n, *n, H1, NOW + 1000))
            .collect();
        store.write(batch, NOW).await.unwrap();
        let hashes: Vec<PrefixHash> = candidates.iter().map(|c| c.hash).collect();
        for now in [NOW, NOW + 1000] {
            let scope = scope(tenant);
            let all = store.look_up(&scope, &hashes, now).await.unwrap();
            let some = store
                .find(&scope, &breakpoints, &candidates, now)
                .await
                .unwrap();
            assert_eq!(
                find_hit(&breakpoints, &candidates, &some),
                find_hit(&breakpoints, &candidates, &all),
            );
        }
    }
}

pub async fn hashes_that_differ_late_are_told_apart(store: AnyStore) {
    let with_end = |end: u8| {
        let mut bytes = [3; 32];
        bytes[31] = end;
        PrefixHash::new(bytes)
    };
    let write = |end: u8, expires_at_ms: u64| {
        let mut write = write(1, 0, end.into(), M5, expires_at_ms);
        write.entry.hash = with_end(end);
        write
    };
    // Two of the same second, one of a later one.
    let batch = vec![
        write(1, NOW + 10_000),
        write(2, NOW + 10_001),
        write(3, NOW + 90_000),
    ];
    store.write(batch, NOW).await.unwrap();
    let refresh = Refresh {
        scope: scope(1),
        hash: with_end(2),
        expires_at_ms: NOW + 50_000,
    };
    store.refresh(vec![refresh]).await.unwrap();
    let hashes = [1, 2, 3].map(with_end);
    let two = live(2, M5, NOW + 50_000);
    let three = live(3, M5, NOW + 90_000);
    for (after_ms, expected) in [
        (30_000, [None, two, three]),
        (70_000, [None, None, three]),
        (100_000, [None, None, None]),
    ] {
        let now = NOW + after_ms;
        while store.sweep(now, 1).await.unwrap().more {}
        let found = store.look_up(&scope(1), &hashes, now).await.unwrap();
        assert_eq!(found, expected, "after {after_ms} ms");
        let left = expected.iter().flatten().count() as u64;
        assert_eq!(entries(&store).await, left, "after {after_ms} ms");
    }
}
