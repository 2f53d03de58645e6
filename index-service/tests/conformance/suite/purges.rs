//! Scopes, purges, the epoch, and reading everything.

use super::*;

/// All items of a paged read; each page is asked for `limit` of them.
macro_rules! collect {
    ($store:ident.$method:ident, $limit:expr) => {{
        let mut items = Vec::new();
        let mut from = Cursor::default();
        loop {
            let page = $store.$method(from, $limit).await.unwrap();
            items.extend(page.items);
            match page.next {
                Some(next) => from = next,
                None => break items,
            }
        }
    }};
}

pub async fn a_registered_scope_is_listed(store: AnyStore) {
    assert_eq!(collect!(store.scopes, 10), []);
    let infos: Vec<ScopeInfo> = (0..25)
        .map(|n| info(n % 5, &format!("model {}/é:{{}}'", n / 5)))
        .collect();
    store.register(&infos[..20]).await.unwrap();
    store.register(&infos[10..]).await.unwrap();
    store.register(&[]).await.unwrap();
    let listed: HashSet<ScopeInfo> = collect!(store.scopes, 7).into_iter().collect();
    assert_eq!(listed, infos.into_iter().collect());
}

pub async fn a_purge_removes_its_scopes_and_only_those(store: AnyStore) {
    let infos = [info(1, "model"), info(2, "model"), info(3, "model")];
    store.register(&infos).await.unwrap();
    // More than one step of any store.
    for tenant in [1, 2, 3] {
        for first in [0, 4000] {
            let batch = (first..first + 4000)
                .map(|n| write(tenant, n, 5, H1, NOW + 1000))
                .collect();
            store.write(batch, NOW).await.unwrap();
        }
    }
    let before = store.epoch().await.unwrap();
    assert_eq!(store.purge(&[scope(1), scope(3)]).await.unwrap(), 16_000);
    assert_ne!(store.epoch().await.unwrap(), before);
    for n in [0, 3999, 4000, 7999] {
        assert_eq!(get(&store, 1, n, NOW).await, None);
        assert_eq!(get(&store, 2, n, NOW).await, live(5, H1, NOW + 1000));
        assert_eq!(get(&store, 3, n, NOW).await, None);
    }
    assert_eq!(entries(&store).await, 8000);
    // The scopes stay known, and may be written again.
    let listed: HashSet<ScopeInfo> = collect!(store.scopes, 100).into_iter().collect();
    assert_eq!(listed, infos.into_iter().collect());
    store
        .write(vec![write(1, 7, 6, M5, NOW + 90_000)], NOW)
        .await
        .unwrap();
    while store.sweep(NOW + 30_000, 1000).await.unwrap().more {}
    assert_eq!(
        get(&store, 1, 7, NOW + 30_000).await,
        live(6, M5, NOW + 90_000)
    );
    assert_eq!(get(&store, 1, 8, NOW).await, None);
}

pub async fn the_epoch_changes_with_every_purge_and_nothing_else(store: AnyStore) {
    let first = store.epoch().await.unwrap();
    store.register(&[info(1, "model")]).await.unwrap();
    store
        .write(vec![write(1, 1, 5, M5, NOW + 1000)], NOW)
        .await
        .unwrap();
    store.sweep(NOW + 60_000, 10).await.unwrap();
    assert_eq!(store.epoch().await.unwrap(), first);
    let mut seen = HashSet::from([first]);
    for scopes in [vec![scope(8)], vec![scope(9)], vec![]] {
        assert_eq!(store.purge(&scopes).await.unwrap(), 0);
        let epoch = store.epoch().await.unwrap();
        assert!(seen.insert(epoch));
        assert_eq!(store.epoch().await.unwrap(), epoch);
    }
}

pub async fn a_scan_yields_every_entry(store: AnyStore) {
    assert_eq!(collect!(store.scan, 10), []);
    let expected: HashMap<_, _> = (0..500)
        .map(|n| {
            let tier = Tier::ALL[n as usize % 3];
            write(n as u8 % 3, n, n * 7, tier, NOW + 100_000 + u64::from(n))
        })
        .map(|write| ((write.scope, write.entry.hash), write))
        .collect();
    let batch: Vec<Write> = expected.values().copied().collect();
    store.write(batch, NOW).await.unwrap();
    let found: HashMap<_, _> = collect!(store.scan, 64)
        .into_iter()
        .map(|write| ((write.scope, write.entry.hash), write))
        .collect();
    assert_eq!(found, expected);
}
