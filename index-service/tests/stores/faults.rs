//! The service when its store is away at the start, dies and returns under load, is slow, or
//! silent: it answers errors in time, says that it is not ready, recovers by itself, and loses
//! nothing that it has acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prompt_cache_test_servers::postgres::{self, Postgres};
use prompt_cache_test_servers::proxy::Proxy;
use prompt_cache_test_servers::redis::{self, Redis};

use crate::service::{Caller, Service};

/// Longest time for an answer of the service, whatever its store does: its deadlines add up to
/// less, the rest is for a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(8);
const LIMITS: &str = "connect_timeout_ms: 500, operation_timeout_ms: 1000, refresh_flush_ms: 50";

/// A server that comes and goes.
trait Server {
    fn start() -> Self;
    fn port(&self) -> u16;
    /// The service's `store`, by way of a port.
    fn store(&self, port: u16) -> String;
    fn kill(&mut self);
    fn start_again(&mut self);
}

impl Server for Postgres {
    fn start() -> Self {
        Self::start()
    }

    fn port(&self) -> u16 {
        self.port()
    }

    fn store(&self, port: u16) -> String {
        let url = self.url_through(port);
        format!("{{postgres: {{url: '{url}', acquire_timeout_ms: 500, {LIMITS}}}}}")
    }

    fn kill(&mut self) {
        self.kill();
    }

    fn start_again(&mut self) {
        self.start_again();
    }
}

impl Server for Redis {
    fn start() -> Self {
        Self::start()
    }

    fn port(&self) -> u16 {
        self.port()
    }

    fn store(&self, port: u16) -> String {
        let url = self
            .url()
            .replace(&self.port().to_string(), &port.to_string());
        format!("{{redis: {{url: '{url}', {LIMITS}}}}}")
    }

    fn kill(&mut self) {
        self.kill();
    }

    fn start_again(&mut self) {
        self.start_again();
    }
}

/// Every call fails with 503, in time, and what needs no store works.
fn expect_errors(caller: &Caller, version: &str) {
    for _ in 0..3 {
        let start = Instant::now();
        assert_eq!(caller.classify(1).0, 503);
        assert!(start.elapsed() < ANSWER_MAX, "{:?}", start.elapsed());
        let start = Instant::now();
        assert_eq!(caller.commit(version, 1), 503);
        assert!(start.elapsed() < ANSWER_MAX, "{:?}", start.elapsed());
    }
    let start = Instant::now();
    assert_eq!(caller.get("/readyz").0, 503);
    assert_eq!(caller.get("/healthz").0, 200);
    assert_eq!(caller.get("/v1/policy").0, 200);
    assert_eq!(caller.get("/metrics").0, 200);
    assert!(start.elapsed() < 3 * ANSWER_MAX);
}

fn expect_service(caller: &Caller, version: &str, n: u64) {
    caller.await_ready(200);
    assert_eq!(caller.commit(version, n), 200);
    assert_eq!(caller.classify(n), (200, n + 1));
}

fn away_at_the_start<S: Server>() {
    let mut server = S::start();
    server.kill();
    let service = Service::start(&server.store(server.port()));
    let caller = service.caller();
    // Tokenizers load in the background; classifications do not wait for them.
    let version = caller.tokenizer_version();
    expect_errors(&caller, &version);
    server.start_again();
    expect_service(&caller, &version, 7);
    let log = service.log();
    for secret in [postgres::PASSWORD, redis::PASSWORD] {
        assert!(!log.contains(secret), "{log}");
    }
}

/// `kill -9` of the server while eight clients commit, three times over.
fn dies_and_returns_under_load<S: Server>() {
    let mut server = S::start();
    let service = Service::start(&server.store(server.port()));
    let caller = service.caller();
    caller.await_ready(200);
    let version = caller.tokenizer_version();
    let mut acknowledged: Vec<u64> = Vec::new();
    for round in 0..3u64 {
        let stop = AtomicBool::new(false);
        let (acks, acked) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let mut writers = Vec::new();
            for writer in 0..8u64 {
                let (caller, version, stop) = (service.caller(), &version, &stop);
                let acks = acks.clone();
                writers.push(scope.spawn(move || {
                    let mut n = round * 1_000_000_000 + writer * 1_000_000;
                    while !stop.load(Ordering::SeqCst) {
                        let start = Instant::now();
                        match caller.commit(version, n) {
                            200 => acks.send(n).unwrap(),
                            status => assert!(matches!(status, 503 | 504), "{status}"),
                        }
                        assert!(start.elapsed() < ANSWER_MAX, "{:?}", start.elapsed());
                        n += 1;
                    }
                }));
            }
            // In the middle of everybody's commits, at another count each round.
            acknowledged.extend(acked.iter().take(100 + 37 * round as usize));
            server.kill();
            caller.await_ready(503);
            server.start_again();
            caller.await_ready(200);
            acknowledged.extend(acked.iter().take(100));
            stop.store(true, Ordering::SeqCst);
            for writer in writers {
                writer.join().unwrap();
            }
        });
        drop(acks);
        acknowledged.extend(acked.iter());
    }
    assert!(acknowledged.len() > 600);
    for n in acknowledged {
        assert_eq!(caller.classify(n), (200, n + 1), "entry {n}");
    }
}

fn slow_then_silent_then_back<S: Server>() {
    let server = S::start();
    let proxy = Proxy::start(server.port());
    let service = Service::start(&server.store(proxy.port()));
    let caller = service.caller();
    caller.await_ready(200);
    let version = caller.tokenizer_version();
    expect_service(&caller, &version, 3);

    // Slow, but within the deadlines: late answers are right answers.
    proxy.delay(Duration::from_millis(50));
    for n in 10..15 {
        assert_eq!(caller.commit(&version, n), 200);
        assert_eq!(caller.classify(n), (200, n + 1));
    }
    // Slower than the deadlines.
    proxy.delay(Duration::from_millis(1500));
    expect_errors(&caller, &version);
    proxy.delay(Duration::ZERO);
    expect_service(&caller, &version, 20);

    // Nothing comes through, nothing is closed.
    proxy.be_deaf(true);
    expect_errors(&caller, &version);
    proxy.be_deaf(false);
    expect_service(&caller, &version, 21);

    // Every connection is cut, again and again.
    for n in 30..50 {
        proxy.sever();
        let answer = caller.classify(3);
        assert!(matches!(answer, (200, 4) | (503, 0)), "{answer:?}");
        expect_service(&caller, &version, n);
    }
    assert_eq!(caller.classify(3), (200, 4));
}

/// Everything that holds a connection is stuck, and more comes.
#[test]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
fn an_exhausted_pool_fails_in_time_and_heals() {
    let server = Postgres::start();
    let store = format!(
        "{{postgres: {{url: '{}', schema: ledger, connections_max: 2, acquire_timeout_ms: 100, \
         connect_timeout_ms: 500, operation_timeout_ms: 3000}}}}",
        server.url()
    );
    let service = Service::start(&store);
    let caller = service.caller();
    caller.await_ready(200);
    let version = caller.tokenizer_version();
    expect_service(&caller, &version, 1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let locker = runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        let lock = "BEGIN; LOCK TABLE ledger.entries";
        client.batch_execute(lock).await.unwrap();
        client
    });
    let stop = AtomicBool::new(false);
    let refused = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let (caller, stop) = (service.caller(), &stop);
                scope.spawn(move || {
                    let mut refused = 0;
                    while !stop.load(Ordering::SeqCst) {
                        let start = Instant::now();
                        assert_eq!(caller.classify(1).0, 503);
                        assert!(start.elapsed() < ANSWER_MAX, "{:?}", start.elapsed());
                        refused += 1;
                    }
                    refused
                })
            })
            .collect();
        caller.await_ready(503);
        stop.store(true, Ordering::SeqCst);
        callers.into_iter().map(|c| c.join().unwrap()).sum::<u32>()
    });
    assert!(refused >= 8, "{refused}");
    assert!(service.log().contains("queue is full"), "the pool was it");
    runtime.block_on(locker.batch_execute("ROLLBACK")).unwrap();
    expect_service(&caller, &version, 2);
    assert_eq!(caller.classify(1), (200, 2));
}

macro_rules! faults {
    ($($module:ident: $server:ty),+ $(,)?) => {$(
        mod $module {
            #[test]
            #[ignore = "needs real servers: ./just test-stores"]
            fn away_at_the_start() {
                super::away_at_the_start::<$server>();
            }

            #[test]
            #[ignore = "needs real servers: ./just test-stores"]
            fn dies_and_returns_under_load() {
                super::dies_and_returns_under_load::<$server>();
            }

            #[test]
            #[ignore = "needs real servers: ./just test-stores"]
            fn slow_then_silent_then_back() {
                super::slow_then_silent_then_back::<$server>();
            }
        }
    )+};
}

faults!(with_postgres: super::Postgres, with_redis: super::Redis);
