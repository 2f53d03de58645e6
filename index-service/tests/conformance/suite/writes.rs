//! What a write does to what is there.

use super::*;

pub async fn scopes_share_nothing(store: AnyStore) {
    let base = Fingerprint::new([1; 32]);
    let scopes = [
        Scope::of(&base, "m", "v"),
        Scope::of(&Fingerprint::new([2; 32]), "m", "v"),
        Scope::of(&base, "n", "v"),
        Scope::of(&base, "m", "w"),
        Scope::of(&base, "mv", ""),
        Scope::of(&base, "", "mv"),
    ];
    for (i, scope) in scopes.iter().enumerate() {
        let before = store.look_up(scope, &[hash(1)], NOW).await.unwrap();
        assert_eq!(before, [None], "scope {i} sees another's entry");
        let entry = NewEntry {
            hash: hash(1),
            tokens: 100 + i as u32,
            tier: M5,
        };
        let write = Write {
            scope: *scope,
            entry,
            expires_at_ms: NOW + 1000,
        };
        store.write(vec![write], NOW).await.unwrap();
    }
    for (i, scope) in scopes.iter().enumerate() {
        let found = store.look_up(scope, &[hash(1)], NOW).await.unwrap();
        assert_eq!(found, [live(100 + i as u32, M5, NOW + 1000)]);
    }
}

pub async fn an_entry_expires_at_its_millisecond(store: AnyStore) {
    store
        .write(vec![write(1, 1, 5, M5, NOW + 1000)], NOW)
        .await
        .unwrap();
    assert_eq!(get(&store, 1, 1, NOW + 999).await, live(5, M5, NOW + 1000));
    assert_eq!(get(&store, 1, 1, NOW + 1000).await, None);
}

pub async fn an_expiry_is_never_shortened(store: AnyStore) {
    store
        .write(vec![write(1, 1, 5, H1, NOW + 5000)], NOW)
        .await
        .unwrap();
    store
        .write(vec![write(1, 1, 5, H1, NOW + 4000)], NOW)
        .await
        .unwrap();
    assert_eq!(get(&store, 1, 1, NOW).await, live(5, H1, NOW + 5000));
    let refresh = Refresh {
        scope: scope(1),
        hash: hash(1),
        expires_at_ms: NOW + 4500,
    };
    store.refresh(vec![refresh]).await.unwrap();
    assert_eq!(get(&store, 1, 1, NOW).await, live(5, H1, NOW + 5000));
}

pub async fn a_shorter_tier_never_replaces_a_live_longer_one(store: AnyStore) {
    store
        .write(vec![write(1, 1, 5, H1, NOW + 1000)], NOW)
        .await
        .unwrap();
    store
        .write(vec![write(1, 1, 5, M5, NOW + 3000)], NOW)
        .await
        .unwrap();
    assert_eq!(get(&store, 1, 1, NOW).await, live(5, H1, NOW + 3000));
}

pub async fn a_longer_tier_upgrades_a_live_shorter_one(store: AnyStore) {
    store
        .write(vec![write(1, 1, 5, M5, NOW + 3000)], NOW)
        .await
        .unwrap();
    store
        .write(vec![write(1, 1, 5, H1, NOW + 9000)], NOW)
        .await
        .unwrap();
    assert_eq!(get(&store, 1, 1, NOW).await, live(5, H1, NOW + 9000));
}

pub async fn an_expired_entry_is_replaced_whole(store: AnyStore) {
    store
        .write(vec![write(1, 1, 5, H1, NOW + 1000)], NOW)
        .await
        .unwrap();
    store
        .write(vec![write(1, 1, 6, M5, NOW + 2000)], NOW + 1000)
        .await
        .unwrap();
    assert_eq!(get(&store, 1, 1, NOW + 1000).await, live(6, M5, NOW + 2000));
    assert_eq!(entries(&store).await, 1);
}

pub async fn a_write_twice_is_a_write_once(store: AnyStore) {
    let batch = vec![
        write(1, 1, 5, M5, NOW + 1000),
        write(1, 2, 9, H1, NOW + 2000),
    ];
    for later in [0, 1, 500] {
        store.write(batch.clone(), NOW + later).await.unwrap();
        assert_eq!(
            get(&store, 1, 1, NOW + later).await,
            live(5, M5, NOW + 1000)
        );
        assert_eq!(
            get(&store, 1, 2, NOW + later).await,
            live(9, H1, NOW + 2000)
        );
        assert_eq!(entries(&store).await, 2);
    }
}

pub async fn a_batch_with_repeats_is_merged_in_order(store: AnyStore) {
    let batch = vec![
        write(1, 1, 5, M5, NOW + 3000),
        write(1, 1, 5, H1, NOW + 1000),
        write(1, 1, 5, M5, NOW + 2000),
    ];
    store.write(batch, NOW).await.unwrap();
    assert_eq!(get(&store, 1, 1, NOW).await, live(5, H1, NOW + 3000));
}

/// A write may come after its own expiry. It replaces an expired entry, lends a live one its
/// tier, and is itself replaced by the next.
pub async fn a_batch_of_writes_that_came_too_late_is_merged_in_order(store: AnyStore) {
    let stored = vec![
        write(1, 1, 5, M5, NOW + 9000),
        write(1, 2, 5, M5, NOW + 1000),
    ];
    store.write(stored, NOW).await.unwrap();
    let now = NOW + 2000;
    let batch = vec![
        write(1, 1, 6, H1, now - 1),
        write(1, 2, 6, H1, now - 1),
        write(1, 3, 6, H1, now),
        write(1, 1, 7, M5, now + 500),
        write(1, 2, 7, M5, now + 500),
        write(1, 3, 7, M5, now + 500),
        write(1, 3, 8, M5, now + 700),
    ];
    store.write(batch, now).await.unwrap();
    assert_eq!(get(&store, 1, 1, now).await, live(5, H1, NOW + 9000));
    assert_eq!(get(&store, 1, 2, now).await, live(7, M5, now + 500));
    assert_eq!(get(&store, 1, 3, now).await, live(7, M5, now + 700));
}

pub async fn the_largest_batch_is_written_and_refreshed(store: AnyStore) {
    let entries = 0..BATCH_ENTRIES_MAX as u32;
    let tenant = |n: u32| (n % 7) as u8;
    let batch = entries
        .clone()
        .map(|n| write(tenant(n), n, n, M5, NOW + 1000))
        .collect();
    store.write(batch, NOW).await.unwrap();
    let refreshes = entries
        .clone()
        .map(|n| Refresh {
            scope: scope(tenant(n)),
            hash: hash(n),
            expires_at_ms: NOW + 2000 + u64::from(n),
        })
        .collect();
    store.refresh(refreshes).await.unwrap();
    for n in entries.step_by(97) {
        let expected = live(n, M5, NOW + 2000 + u64::from(n));
        assert_eq!(get(&store, tenant(n), n, NOW).await, expected);
    }
}
