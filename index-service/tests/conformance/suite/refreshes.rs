//! A read lengthens a life, and does nothing else.

use super::*;

pub async fn a_refresh_extends_and_changes_nothing_else(store: AnyStore) {
    store
        .write(vec![write(1, 1, 5, M5, NOW + 1000)], NOW)
        .await
        .unwrap();
    let refresh = Refresh {
        scope: scope(1),
        hash: hash(1),
        expires_at_ms: NOW + 9000,
    };
    store
        .refresh(vec![
            refresh,
            Refresh {
                expires_at_ms: NOW + 8000,
                ..refresh
            },
        ])
        .await
        .unwrap();
    assert_eq!(get(&store, 1, 1, NOW).await, live(5, M5, NOW + 9000));
}

pub async fn a_refresh_of_nothing_creates_nothing(store: AnyStore) {
    store
        .write(vec![write(1, 1, 5, M5, NOW + 1000)], NOW)
        .await
        .unwrap();
    let elsewhere = Refresh {
        scope: scope(2),
        hash: hash(1),
        expires_at_ms: NOW + 9000,
    };
    let other = Refresh {
        scope: scope(1),
        hash: hash(2),
        expires_at_ms: NOW + 9000,
    };
    store.refresh(vec![elsewhere, other]).await.unwrap();
    assert_eq!(get(&store, 2, 1, NOW).await, None);
    assert_eq!(get(&store, 1, 2, NOW).await, None);
    assert_eq!(entries(&store).await, 1);
}

/// Reads that come one after the other: none that gains too little is written, and those of an
/// entry that wait together are one.
pub async fn refreshes_are_debounced(store: AnyStore) {
    const WINDOW_MS: u64 = 300_000;
    let expires_at_ms = NOW + WINDOW_MS;
    store
        .write(vec![write(1, 1, 5, M5, expires_at_ms)], NOW)
        .await
        .unwrap();
    let metrics = Arc::new(Metrics::new());
    let queue = RefreshQueue::start(Arc::clone(&store), 60_000, Arc::clone(&metrics));
    let stored = live(5, M5, expires_at_ms).unwrap();
    let read = |after_ms: u64| queue.push(scope(1), &[(hash(1), stored)], NOW + after_ms);
    let counted = |outcome: &str| {
        let start = format!("prompt_cache_index_refreshes_total{{outcome=\"{outcome}\"}} ");
        let text = metrics.render().unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(&start));
        value.map_or(0, |value| value.parse::<u64>().unwrap())
    };
    for after_ms in [0, 1, WINDOW_MS / 100 - 1] {
        read(after_ms);
    }
    queue.flush().await;
    assert_eq!((counted("skipped"), counted("written")), (3, 0));
    assert_eq!(get(&store, 1, 1, NOW).await, Some(stored));
    for after_ms in 0..100 {
        read(WINDOW_MS / 100 + after_ms);
    }
    queue.flush().await;
    assert_eq!((counted("skipped"), counted("written")), (3, 1));
    let latest = NOW + WINDOW_MS / 100 + 99 + WINDOW_MS;
    assert_eq!(get(&store, 1, 1, NOW).await, live(5, M5, latest));
}
