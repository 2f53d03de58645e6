//! Writers, refreshes and sweeps at once.

use super::*;

/// Batches over the same keys in opposite orders, writes against refreshes against sweeps:
/// nobody may wait in a circle.
pub async fn crossing_batches_finish_and_agree(store: AnyStore) {
    const KEYS: u32 = 60;
    let tasks: Vec<_> = (0..6u64)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for round in 0..15 {
                    let mut keys: Vec<u32> = (0..KEYS).collect();
                    if task % 2 == 0 {
                        keys.reverse();
                    }
                    let expires_at_ms = NOW + 20_000 + 100 * round + task;
                    if task < 4 {
                        let writes = keys.iter().map(|n| write(1, *n, 7, M5, expires_at_ms));
                        store.write(writes.collect(), NOW).await.unwrap();
                    } else {
                        let refreshes = keys.iter().map(|n| Refresh {
                            scope: scope(1),
                            hash: hash(*n),
                            expires_at_ms,
                        });
                        store.refresh(refreshes.collect()).await.unwrap();
                    }
                    store.sweep(NOW + 1, 10).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for n in 0..KEYS {
        assert_eq!(
            get(&store, 1, n, NOW)
                .await
                .map(|entry| entry.expires_at_ms >= NOW + 21_403),
            Some(true)
        );
    }
}

pub async fn concurrent_cold_writers_agree(store: AnyStore) {
    let tasks: Vec<_> = (0..8u64)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0..50 {
                    let tier = if task % 2 == 0 { M5 } else { H1 };
                    let write = write(1, n, 7, tier, NOW + 1000 + task);
                    store.write(vec![write], NOW).await.unwrap();
                    // A write is visible to everybody once it has returned.
                    assert!(get(&store, 1, n, NOW).await.is_some());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for n in 0..50 {
        assert_eq!(get(&store, 1, n, NOW).await, live(7, H1, NOW + 1007));
    }
    assert_eq!(entries(&store).await, 50);
}
