//! Redis: native expiry, full memory, what a script costs.

use std::sync::Arc;

use prompt_cache_index::store::Store;
use prompt_cache_test_servers::fresh_name;
use prompt_cache_test_servers::proxy::Proxy;
use prompt_cache_test_servers::redis::Redis;

use crate::samples::{NOW, hash, open, refresh, scope, tokens, write};

fn store(url: &str, prefix: &str) -> Arc<dyn Store> {
    open(&format!(
        "{{redis: {{url: '{url}', key_prefix: {prefix}, operation_timeout_ms: 30000, \
         connect_timeout_ms: 30000}}}}"
    ))
}

/// What an entry outlives its expiry by.
const GRACE_MS: i64 = 60_000;

/// A connection of the test's own, and the keys of the entries.
async fn keys(url: &str, prefix: &str) -> (redis::aio::MultiplexedConnection, Vec<Vec<u8>>) {
    let client = redis::Client::open(url).unwrap();
    let mut link = client.get_multiplexed_async_connection().await.unwrap();
    let keys = redis::cmd("KEYS")
        .arg(format!("{prefix}:{{*"))
        .query_async(&mut link)
        .await
        .unwrap();
    (link, keys)
}

async fn native_lives(url: &str, prefix: &str) -> Vec<i64> {
    let (mut link, keys) = keys(url, prefix).await;
    let mut lives = Vec::new();
    for key in keys {
        lives.push(
            redis::cmd("PTTL")
                .arg(key)
                .query_async(&mut link)
                .await
                .unwrap(),
        );
    }
    lives
}

#[tokio::test]
#[ignore = "needs a Redis server: ./just test-stores"]
async fn a_ledger_of_a_newer_format_is_refused_and_left_alone() {
    let url = std::env::var("TEST_REDIS_URL").expect("./just test-stores sets it");
    let prefix = fresh_name();
    let running = store(&url, &prefix);
    running
        .write(vec![write(1, 1, 300_000)], NOW)
        .await
        .unwrap();
    let (mut link, _) = keys(&url, &prefix).await;
    let format = format!("{prefix}:format");
    let said: u64 = redis::cmd("GET")
        .arg(&format)
        .query_async(&mut link)
        .await
        .unwrap();
    assert_eq!(said, 1);
    let set = async |link: &mut redis::aio::MultiplexedConnection, format: &str, to: u64| {
        let mut set = redis::cmd("SET");
        set.arg(format)
            .arg(to)
            .query_async::<()>(link)
            .await
            .unwrap();
    };
    set(&mut link, &format, 2).await;
    let late = store(&url, &prefix);
    for _ in 0..2 {
        let batch = vec![write(1, 2, 300_000)];
        let errors = [
            late.ping().await.unwrap_err(),
            late.write(batch, NOW).await.unwrap_err(),
            late.look_up(&scope(1), &[hash(1)], NOW).await.unwrap_err(),
        ];
        for error in errors {
            assert!(error.to_string().contains("format 2, newer"), "{error}");
        }
    }
    assert_eq!(keys(&url, &prefix).await.1.len(), 1);
    // One that ran before goes on; and so does the late one when the ledger is of its own format.
    assert_eq!(tokens(&running, 1, 1).await, Some(2));
    set(&mut link, &format, 1).await;
    assert_eq!(tokens(&late, 1, 1).await, Some(2));
}

#[tokio::test]
#[ignore = "needs a Redis server: ./just test-stores"]
async fn redis_removes_an_entry_a_while_after_its_life_by_its_own_clock() {
    let url = std::env::var("TEST_REDIS_URL").expect("./just test-stores sets it");
    let prefix = fresh_name();
    let ledger = store(&url, &prefix);
    let is_about = |found: &[i64], life_ms: i64| {
        let [left] = *found else { panic!("{found:?}") };
        // The test's own delays make it less, never more.
        (life_ms + GRACE_MS - 30_000..=life_ms + GRACE_MS).contains(&left)
    };
    ledger.write(vec![write(1, 1, 300_000)], NOW).await.unwrap();
    let lives = native_lives(&url, &prefix).await;
    assert!(is_about(&lives, 300_000), "{lives:?}");
    // The same commit later, and a refresh that gains nothing, lengthen nothing.
    ledger.write(vec![write(1, 1, 300_000)], NOW).await.unwrap();
    ledger.refresh(vec![refresh(1, 1, 200_000)]).await.unwrap();
    let lives = native_lives(&url, &prefix).await;
    assert!(is_about(&lives, 300_000), "{lives:?}");
    ledger
        .refresh(vec![refresh(1, 1, 3_600_000)])
        .await
        .unwrap();
    let lives = native_lives(&url, &prefix).await;
    assert!(is_about(&lives, 3_600_000), "{lives:?}");
    // A clock that was set back by a day does not make entries die early, nor live for a day more.
    let back = NOW - 86_400_000;
    let mut late = write(1, 2, 0);
    late.expires_at_ms = back + 300_000;
    ledger.purge(&[scope(1)]).await.unwrap();
    ledger.write(vec![late], back).await.unwrap();
    let lives = native_lives(&url, &prefix).await;
    assert!(is_about(&lives, 300_000), "{lives:?}");
}

#[tokio::test]
#[ignore = "needs a Redis server: ./just test-stores"]
async fn a_value_of_an_unknown_form_is_no_entry() {
    let url = std::env::var("TEST_REDIS_URL").expect("./just test-stores sets it");
    let prefix = fresh_name();
    let ledger = store(&url, &prefix);
    ledger.write(vec![write(1, 1, 300_000)], NOW).await.unwrap();
    let (mut link, found) = keys(&url, &prefix).await;
    let [key] = &found[..] else {
        panic!("{found:?}")
    };
    let get = redis::cmd("GET").arg(key).clone();
    let known: Vec<u8> = get.query_async(&mut link).await.unwrap();
    let longer = [&known[..], &[0]].concat();
    let another_tier = [&known[..12], &[9]].concat();
    for unknown in [b"", &known[..5], &known[..12], &longer, &another_tier] {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(unknown);
        set.exec_async(&mut link).await.unwrap();
        assert_eq!(tokens(&ledger, 1, 1).await, None, "{unknown:?}");
        ledger.refresh(vec![refresh(1, 1, 600_000)]).await.unwrap();
        let left: Vec<u8> = get.query_async(&mut link).await.unwrap();
        assert_eq!(left, unknown, "a refresh leaves it alone");
        ledger.write(vec![write(1, 1, 300_000)], NOW).await.unwrap();
        let written: Vec<u8> = get.query_async(&mut link).await.unwrap();
        assert_eq!(written, known, "a write replaces {unknown:?}");
    }
}

#[tokio::test]
#[ignore = "needs a Redis server: ./just test-stores"]
async fn a_look_up_and_a_commit_are_one_round_trip_each() {
    let server = Redis::start();
    let proxy = Proxy::start(server.port());
    let through = server
        .url()
        .replace(&server.port().to_string(), &proxy.port().to_string());
    let ledger = store(&through, "p");
    let hashes: Vec<_> = (0..80).map(hash).collect();
    for first_loads in [true, false] {
        let start = proxy.round_trips();
        let batch = (0..100).map(|n| write(1, n, 1000)).collect();
        ledger.write(batch, NOW).await.unwrap();
        let written = proxy.round_trips();
        let found = ledger.look_up(&scope(1), &hashes, NOW).await.unwrap();
        assert_eq!(found.iter().flatten().count(), 80);
        if !first_loads {
            assert_eq!((written - start, proxy.round_trips() - written), (1, 1));
        }
    }
    // A server that has lost its scripts gets them again.
    server.command(&["SCRIPT", "FLUSH"]);
    ledger.write(vec![write(1, 500, 1000)], NOW).await.unwrap();
    assert_eq!(tokens(&ledger, 1, 500).await, Some(501));
}

#[tokio::test]
#[ignore = "needs a Redis server: ./just test-stores"]
async fn full_memory_is_an_error_and_never_a_wrong_read() {
    let server = Redis::start_with(&["--maxmemory", "6mb"]);
    let ledger = store(&server.url(), "p");
    ledger.ping().await.unwrap();
    let mut acknowledged = Vec::new();
    let mut refused = None;
    for n in (0..200_000).step_by(100) {
        let batch = (n..n + 100).map(|n| write(1, n, 300_000)).collect();
        match ledger.write(batch, NOW).await {
            Ok(()) => acknowledged.extend(n..n + 100),
            Err(error) => {
                refused = Some((n, error.to_string()));
                break;
            }
        }
    }
    let (n, error) = refused.expect("the memory fills up");
    assert!(error.contains("OOM"), "{error}");
    assert!(acknowledged.len() > 1000);
    // Whether a small write still fits depends on what other memory was freed: not any more.
    server.command(&["CONFIG", "SET", "maxmemory", "3mb"]);
    assert!(ledger.ping().await.unwrap_err().to_string().contains("OOM"));
    let refreshed = ledger.refresh(vec![refresh(1, 0, 600_000)]).await;
    assert!(refreshed.unwrap_err().to_string().contains("OOM"));
    // Everything acknowledged reads as it was, nothing of what was refused does.
    for hashes in acknowledged.chunks(80) {
        let asked: Vec<_> = hashes.iter().map(|n| hash(*n)).collect();
        let found = ledger.look_up(&scope(1), &asked, NOW).await.unwrap();
        for (n, entry) in hashes.iter().zip(found) {
            assert_eq!(entry.map(|entry| entry.tokens), Some(n + 1));
        }
    }
    for n in n..n + 100 {
        assert_eq!(tokens(&ledger, 1, n).await, None, "all or nothing");
    }
    // Room again.
    server.command(&["CONFIG", "SET", "maxmemory", "60mb"]);
    ledger.ping().await.unwrap();
    ledger.write(vec![write(1, n, 300_000)], NOW).await.unwrap();
    assert_eq!(tokens(&ledger, 1, n).await, Some(n + 1));
}
