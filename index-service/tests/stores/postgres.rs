//! PostgreSQL: what its statements cost, and what its connections survive.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prompt_cache_index::store::{Store, StoreError};
use prompt_cache_test_servers::fresh_name;
use prompt_cache_test_servers::postgres::Postgres;
use prompt_cache_test_servers::proxy::Proxy;
use tokio_postgres::{Client, NoTls};

use crate::samples::{NOW, hash, open, refresh, scope, tokens, write};

fn url() -> String {
    std::env::var("TEST_POSTGRES_URL").expect("./just test-stores sets it")
}

fn store(schema: &str, url: &str, more: &str) -> Arc<dyn Store> {
    open(&format!(
        "{{postgres: {{url: '{url}', schema: {schema}, connect_timeout_ms: 20000, {more}}}}}"
    ))
}

const PATIENT: &str = "operation_timeout_ms: 30000, acquire_timeout_ms: 30000";

/// A connection of the test's own, in the schema.
async fn admin(url: &str, schema: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let path = format!("SET search_path = {schema}");
    client.batch_execute(&path).await.unwrap();
    client
}

/// Waits until `query` yields a row, and gives its only column.
async fn await_row<T>(client: &Client, query: &str) -> T
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(row) = client.query_opt(query, &[]).await.unwrap() {
            return row.get(0);
        }
        assert!(Instant::now() < end, "{query}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
async fn refreshes_are_heap_only_and_write_no_index() {
    const ENTRIES: u32 = 3000;
    const ROUNDS: u64 = 6;
    const SHARES: u32 = 5;
    // A server of its own: a transaction of another test that is open meanwhile keeps old versions
    // of rows, pages fill up, and what no longer fits a page is no heap-only update.
    let server = Postgres::start();
    let schema = fresh_name();
    let ledger = store(&schema, &server.url(), PATIENT);
    let entries = || 0..ENTRIES;
    let batch = entries().map(|n| write(1, n, 1000)).collect();
    ledger.write(batch, NOW).await.unwrap();
    let admin = admin(&server.url(), &schema).await;
    let sizes = "SELECT pg_relation_size('entries_pkey') + pg_relation_size('entries_due')";
    let before: i64 = admin.query_one(sizes, &[]).await.unwrap().get(0);
    for round in 0..ROUNDS {
        // As they come: some of a page's rows at a time, each of them again and again.
        for share in 0..SHARES {
            let batch = entries()
                .filter(|n| n % SHARES == share)
                .map(|n| refresh(1, n, 2000 + 1000 * round))
                .collect();
            ledger.refresh(batch).await.unwrap();
        }
    }
    let after: i64 = admin.query_one(sizes, &[]).await.unwrap().get(0);
    assert_eq!(after, before, "the indexes have not grown");
    // A connection's counts are complete when it has ended.
    ledger.close().await;
    let expected = u64::from(ENTRIES) * ROUNDS;
    let heap_only: i64 = await_row(
        &admin,
        &format!(
            "SELECT n_tup_hot_upd FROM pg_stat_user_tables
             WHERE relid = 'entries'::regclass AND n_tup_upd >= {expected}"
        ),
    )
    .await;
    let ratio = heap_only as f64 / expected as f64;
    println!("heap-only updates: {heap_only} of {expected}");
    assert!(
        ratio > 0.95,
        "{heap_only} of {expected} updates were heap-only"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
async fn replicas_that_start_at_once_share_one_ledger() {
    let schema = fresh_name();
    let replicas: Vec<_> = (0..6).map(|_| store(&schema, &url(), PATIENT)).collect();
    let starts: Vec<_> = replicas
        .iter()
        .map(|replica| {
            let replica = Arc::clone(replica);
            tokio::spawn(async move { replica.ping().await })
        })
        .collect();
    for start in starts {
        start.await.unwrap().unwrap();
    }
    for (n, replica) in (0..).zip(&replicas) {
        replica.write(vec![write(1, n, 1000)], NOW).await.unwrap();
    }
    let first = replicas[0].epoch().await.unwrap();
    for replica in &replicas {
        assert_eq!(replica.epoch().await.unwrap(), first);
        for n in 0..6 {
            assert_eq!(tokens(replica, 1, n).await, Some(n + 1));
        }
    }
    let steps = "SELECT count(*) FROM migrations";
    let steps: i64 = admin(&url(), &schema)
        .await
        .query_one(steps, &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(steps, 2, "each step has run once");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
async fn a_newer_schema_is_refused() {
    let schema = fresh_name();
    store(&schema, &url(), PATIENT).ping().await.unwrap();
    let admin = admin(&url(), &schema).await;
    let newer = "INSERT INTO migrations (version) VALUES (1000)";
    admin.batch_execute(newer).await.unwrap();
    let refused = async || {
        let error = store(&schema, &url(), PATIENT).ping().await.unwrap_err();
        assert!(
            error.to_string().contains("at version 1000, newer"),
            "{error}"
        );
    };
    // Of a release that did not say who can go on, and of one that says that we cannot.
    refused().await;
    for needs in [3, 1000] {
        let says = format!("UPDATE migrations SET needs = {needs} WHERE version = 1000");
        admin.batch_execute(&says).await.unwrap();
        refused().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
async fn a_newer_schema_that_only_adds_is_used() {
    let schema = fresh_name();
    let first = store(&schema, &url(), PATIENT);
    first.write(vec![write(1, 1, 1000)], NOW).await.unwrap();
    let admin = admin(&url(), &schema).await;
    let newer = "CREATE TABLE of_a_later_release (it integer);
                 INSERT INTO migrations (version, needs) VALUES (3, 1), (4, 2)";
    admin.batch_execute(newer).await.unwrap();
    let second = store(&schema, &url(), PATIENT);
    assert_eq!(tokens(&second, 1, 1).await, Some(2));
    second.write(vec![write(1, 2, 1000)], NOW).await.unwrap();
    assert_eq!(tokens(&first, 1, 2).await, Some(3));
}

/// The schema as releases made it that did not say who can go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
async fn an_older_schema_is_taken_forward_while_an_older_replica_runs() {
    let schema = fresh_name();
    let older = store(&schema, &url(), PATIENT);
    older.write(vec![write(1, 1, 1000)], NOW).await.unwrap();
    let admin = admin(&url(), &schema).await;
    let back = "DROP TABLE account_keys, accounts, accounts_version;
                DROP FUNCTION replace_accounts_version;
                DELETE FROM migrations WHERE version = 2;
                ALTER TABLE migrations DROP COLUMN needs";
    admin.batch_execute(back).await.unwrap();
    let newer = store(&schema, &url(), PATIENT);
    assert_eq!(tokens(&newer, 1, 1).await, Some(2));
    newer.write(vec![write(1, 2, 1000)], NOW).await.unwrap();
    older.write(vec![write(1, 3, 1000)], NOW).await.unwrap();
    assert_eq!(tokens(&older, 1, 2).await, Some(3));
    assert_eq!(tokens(&newer, 1, 3).await, Some(4));
    let said = "SELECT count(*) FROM migrations WHERE coalesce(needs, version) = 1";
    let said: i64 = admin.query_one(said, &[]).await.unwrap().get(0);
    assert_eq!(said, 2, "both steps");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
async fn tables_that_were_dropped_are_made_again() {
    let schema = fresh_name();
    let ledger = store(&schema, &url(), PATIENT);
    ledger.ping().await.unwrap();
    let before = ledger.epoch().await.unwrap();
    let drop = format!("DROP SCHEMA {schema} CASCADE");
    admin(&url(), &schema)
        .await
        .batch_execute(&drop)
        .await
        .unwrap();
    assert!(ledger.write(vec![write(1, 1, 1000)], NOW).await.is_err());
    ledger.write(vec![write(1, 1, 1000)], NOW).await.unwrap();
    assert_eq!(tokens(&ledger, 1, 1).await, Some(2));
    assert_ne!(
        ledger.epoch().await.unwrap(),
        before,
        "it is another ledger"
    );
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
async fn a_look_up_and_a_batch_are_one_round_trip_each() {
    let schema = fresh_name();
    let own = url();
    let port = own
        .split(['@', ':', '/'])
        .find_map(|part| part.parse::<u16>().ok());
    let proxy = Proxy::start(port.unwrap());
    let through = own.replace(
        &format!(":{}/", port.unwrap()),
        &format!(":{}/", proxy.port()),
    );
    let ledger = store(
        &schema,
        &through,
        "connections_max: 1, operation_timeout_ms: 30000",
    );
    let hashes: Vec<_> = (0..80).map(hash).collect();
    for first_prepares in [true, false] {
        let trips = [proxy.round_trips()];
        let batch = (0..1000).map(|n| write(1, n, 1000)).collect();
        ledger.write(batch, NOW).await.unwrap();
        let trips = [trips[0], proxy.round_trips()];
        let found = ledger.look_up(&scope(1), &hashes, NOW).await.unwrap();
        assert_eq!(found.iter().flatten().count(), 80);
        let batch = (0..1000).map(|n| refresh(1, n, 2000)).collect();
        let looked_up = proxy.round_trips();
        ledger.refresh(batch).await.unwrap();
        if !first_prepares {
            let refreshed = proxy.round_trips();
            assert_eq!(
                (
                    trips[1] - trips[0],
                    looked_up - trips[1],
                    refreshed - looked_up
                ),
                (1, 1, 1)
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
async fn tls_is_verified() {
    let server = Postgres::start();
    let secure = server.url().replace("sslmode=disable", "sslmode=require");
    let ca = format!("{PATIENT}, ca_file: '{}'", server.ca_file().display());
    store("ledger", &secure, &ca).ping().await.unwrap();
    let error = store("ledger", &secure, PATIENT).ping().await.unwrap_err();
    assert!(error.to_string().contains("TLS"), "{error}");
    // Without a word about it, TLS is used, too.
    let silent = server.url().replace("?sslmode=disable", "");
    assert!(store("ledger", &silent, PATIENT).ping().await.is_err());
    store("ledger", &silent, &ca).ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
async fn a_full_disk_is_an_error_and_loses_nothing_acknowledged() {
    const BATCH: u32 = 4096;
    let server = Postgres::start();
    server.limit_files(&(20 << 20).to_string());
    let ledger = store("ledger", &server.url(), PATIENT);
    let batch = |n: u32| (n..n + BATCH).map(|n| write(1, n, 300_000)).collect();
    let mut acknowledged = 0;
    let error = loop {
        match ledger.write(batch(acknowledged), NOW).await {
            Ok(()) => acknowledged += BATCH,
            Err(error) => break error,
        }
        assert!(acknowledged < 1_000_000, "the limit has no effect");
    };
    assert!(
        error.to_string().contains("could not extend file"),
        "{error}"
    );
    assert!(acknowledged > 0);
    let count = async || {
        let mut count = 0;
        for first in (0..acknowledged + BATCH).step_by(64) {
            let hashes: Vec<_> = (first..first + 64).map(hash).collect();
            let found = ledger.look_up(&scope(1), &hashes, NOW).await.unwrap();
            count += found.iter().flatten().count();
        }
        count
    };
    assert_eq!(count().await, acknowledged as usize, "all or nothing");
    server.limit_files("unlimited");
    ledger.write(batch(acknowledged), NOW).await.unwrap();
    assert_eq!(count().await, (acknowledged + BATCH) as usize);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
async fn a_sweep_goes_around_what_is_locked() {
    let schema = fresh_name();
    let ledger = store(&schema, &url(), PATIENT);
    let batch = (0..10).map(|n| write(1, n, 1000)).collect();
    ledger.write(batch, NOW).await.unwrap();
    let mut other = admin(&url(), &schema).await;
    let held = other.transaction().await.unwrap();
    let lock = "SELECT 1 FROM entries WHERE hash = $1 FOR UPDATE";
    let hash = hash(3);
    let key = &hash.as_bytes()[..];
    held.query_one(lock, &[&key]).await.unwrap();
    assert_eq!(ledger.sweep(NOW + 9000, 100).await.unwrap().removed, 9);
    held.rollback().await.unwrap();
    assert_eq!(ledger.sweep(NOW + 9000, 100).await.unwrap().removed, 1);
}

/// The process that waits for the lock that the test holds on the table.
const WAITING: &str =
    "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'entries'::regclass";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
async fn a_severed_connection_gets_one_more_try_and_no_third() {
    let schema = fresh_name();
    let ledger = store(&schema, &url(), PATIENT);
    ledger.write(vec![write(1, 1, 1000)], NOW).await.unwrap();
    let (locker, watcher) = (admin(&url(), &schema).await, admin(&url(), &schema).await);
    for ends in [1, 2] {
        let before = ledger.stats().await.unwrap().retries;
        locker
            .batch_execute("BEGIN; LOCK TABLE entries")
            .await
            .unwrap();
        let look_up = tokio::spawn({
            let ledger = Arc::clone(&ledger);
            async move { ledger.look_up(&scope(1), &[hash(1)], NOW).await }
        });
        for _ in 0..ends {
            let pid: i32 = await_row(&watcher, WAITING).await;
            watcher
                .execute("SELECT pg_terminate_backend($1)", &[&pid])
                .await
                .unwrap();
            let gone = format!("SELECT 1 WHERE NOT EXISTS ({WAITING} AND pid = {pid})");
            let _: i32 = await_row(&watcher, &gone).await;
        }
        if ends == 1 {
            let _: i32 = await_row(&watcher, WAITING).await;
        }
        locker.batch_execute("ROLLBACK").await.unwrap();
        let answer = look_up.await.unwrap();
        assert_eq!(answer.is_ok(), ends == 1, "{answer:?}");
        assert_eq!(ledger.stats().await.unwrap().retries, before + 1);
    }
    assert_eq!(tokens(&ledger, 1, 1).await, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
async fn a_stuck_statement_and_a_full_pool_fail_in_time_and_heal() {
    let schema = fresh_name();
    let limits = "connections_max: 2, operation_timeout_ms: 3000, acquire_timeout_ms: 100";
    let ledger = store(&schema, &url(), limits);
    ledger.write(vec![write(1, 1, 1000)], NOW).await.unwrap();
    let (locker, watcher) = (admin(&url(), &schema).await, admin(&url(), &schema).await);
    locker
        .batch_execute("BEGIN; LOCK TABLE entries")
        .await
        .unwrap();
    let stuck: Vec<_> = (0..2)
        .map(|_| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move { ledger.look_up(&scope(1), &[hash(1)], NOW).await })
        })
        .collect();
    let both = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'entries'::regclass
                HAVING count(*) = 2";
    let _: i64 = await_row(&watcher, both).await;
    let third = ledger.look_up(&scope(1), &[hash(1)], NOW).await;
    assert!(matches!(third, Err(StoreError::Busy)), "{third:?}");
    for stuck in stuck {
        assert!(matches!(stuck.await.unwrap(), Err(StoreError::Failed(_))));
    }
    // The server has given the statements up as well.
    let none = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'entries'::regclass
                HAVING count(*) = 0";
    let _: i64 = await_row(&watcher, none).await;
    locker.batch_execute("ROLLBACK").await.unwrap();
    for _ in 0..10 {
        assert_eq!(tokens(&ledger, 1, 1).await, Some(2));
    }
}
