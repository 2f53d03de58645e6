//! The expired are removed, in bounded steps.

use super::*;

pub async fn a_sweep_removes_the_expired_and_only_those(store: AnyStore) {
    let batch = (0..10)
        .map(|n| write(1, n, 5, M5, NOW + 10_000 * u64::from(n)))
        .collect();
    store.write(batch, NOW - 1).await.unwrap();
    let now = NOW + 55_000;
    let swept = store.sweep(now, 1000).await.unwrap();
    assert_eq!((swept.removed, swept.more), (6, false));
    assert_eq!(entries(&store).await, 4);
    for n in 0..10 {
        assert_eq!(get(&store, 1, n, now).await.is_some(), n >= 6, "{n}");
    }
}

pub async fn a_sweep_goes_in_bounded_steps(store: AnyStore) {
    let batch = (0..25)
        .map(|n| write(1, n, 5, M5, NOW + u64::from(n)))
        .collect();
    store.write(batch, NOW - 1).await.unwrap();
    let mut steps = Vec::new();
    loop {
        let swept = store.sweep(NOW + 60_000, 10).await.unwrap();
        steps.push(swept.removed);
        if !swept.more {
            break;
        }
    }
    assert_eq!(steps, [10, 10, 5]);
    assert_eq!(entries(&store).await, 0);
}

pub async fn a_refreshed_entry_outlives_its_first_sweep(store: AnyStore) {
    store
        .write(vec![write(1, 1, 5, M5, NOW + 10_000)], NOW)
        .await
        .unwrap();
    let refresh = Refresh {
        scope: scope(1),
        hash: hash(1),
        expires_at_ms: NOW + 90_000,
    };
    store.refresh(vec![refresh]).await.unwrap();
    assert_eq!(store.sweep(NOW + 30_000, 10).await.unwrap().removed, 0);
    assert_eq!(
        get(&store, 1, 1, NOW + 30_000).await,
        live(5, M5, NOW + 90_000)
    );
    assert_eq!(store.sweep(NOW + 100_000, 10).await.unwrap().removed, 1);
    assert_eq!(entries(&store).await, 0);
}

pub async fn a_sweep_under_load_loses_nothing(store: AnyStore) {
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for n in 0..200 {
                let dead = write(1, 2 * n, 5, M5, NOW + 1);
                let alive = write(1, 2 * n + 1, 5, M5, NOW + 300_000);
                store.write(vec![dead, alive], NOW).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        store.sweep(NOW + 10_000, 7).await.unwrap();
    }
    writer.await.unwrap();
    while store.sweep(NOW + 10_000, 7).await.unwrap().more {}
    assert_eq!(entries(&store).await, 200);
    for n in 0..200 {
        assert!(get(&store, 1, 2 * n + 1, NOW + 10_000).await.is_some());
    }
}
