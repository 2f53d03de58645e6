//! What the service says when something behind it is broken, slow or full.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use prompt_cache_core::wire::{ClassifyAnswer, TEXT_CONTENT_TYPE};

use crate::harness::{M5, NOW, chat, commit_of, request, start, text};

#[test]
fn a_broken_store_is_503_and_heals() {
    let running = start("");
    let body = chat(&[&text(20)]);
    let asked = request(1, &body, &[(0, M5)]);
    let classified = running.exchange(&asked, &body);
    let classify = serde_json::to_vec(&asked).unwrap();
    let commit = commit_of(&asked, &classified);
    let commit = serde_json::to_vec(&serde_json::json!({"v": 1, "commits": [commit]})).unwrap();

    running.faults.fail.store(true, Ordering::SeqCst);
    for (path, body) in [("/v1/classify", &classify), ("/v1/commit", &commit)] {
        let answer = running.post(path, &[], body);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "store_unavailable"),
            "{path}"
        );
    }
    assert_eq!(running.get("/readyz", &[]).status, 503);
    assert_eq!(running.get("/healthz", &[]).status, 200);
    assert_eq!(running.get("/v1/policy", &[]).status, 200);
    for operation in ["look_up", "write", "ping"] {
        let name = format!("prompt_cache_index_store_errors_total{{operation=\"{operation}\"}}");
        assert_eq!(running.metric(&name), 1.0, "{operation}");
    }

    running.faults.fail.store(false, Ordering::SeqCst);
    assert_eq!(running.get("/readyz", &[]).status, 200);
    assert!(matches!(running.ask(&asked), ClassifyAnswer::Ok(_)));
}

#[test]
fn a_hanging_store_ends_in_504() {
    let running = start("limits: {request_timeout_ms: 50}");
    let body = chat(&[&text(20)]);
    let asked = serde_json::to_vec(&request(1, &body, &[(0, M5)])).unwrap();
    running.faults.hang.store(true, Ordering::SeqCst);
    let answer = running.post("/v1/classify", &[], &asked);
    assert_eq!((answer.status, answer.code().as_str()), (504, "timeout"));
    running.faults.hang.store(false, Ordering::SeqCst);
    assert_eq!(running.post("/v1/classify", &[], &asked).status, 200);
    assert_eq!(
        running.metric("prompt_cache_index_shed_total{reason=\"timeout\"}"),
        1.0
    );
}

/// Opens a request whose body never ends, and returns once the service has taken it in.
fn unfinished(url: &str, kind: &str, announced: usize) -> TcpStream {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    // The service asks for the body only once its handler reads it: then the request is inside.
    let head = format!(
        "POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\nexpect: 100-continue\r\n\
         content-length: {announced}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut go_on = [0; 12];
    stream.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100");
    stream
}

#[test]
fn requests_over_the_limit_are_shed_at_once() {
    let running = start("limits: {concurrency_max: 2}");
    let held = [
        unfinished(&running.url, "application/json", 5),
        unfinished(&running.url, "application/json", 5),
    ];
    let answer = running.announce("/v1/classify", &[], 2);
    assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(
            running.get(path, &[]).status,
            200,
            "{path} answers when the service is full"
        );
    }
    assert_eq!(
        running.metric("prompt_cache_index_shed_total{reason=\"concurrency\"}"),
        1.0
    );
    drop(held);
    // The service notices the closed connections in its own time.
    let freed = (0..1_000_000).any(|_| running.get("/v1/policy", &[]).status == 200);
    assert!(freed);
}

#[test]
fn prompts_over_the_byte_budget_are_shed() {
    let running = start("limits: {text_body_bytes_max: 100000, text_bytes_in_flight_max: 150000}");
    let _held = unfinished(&running.url, TEXT_CONTENT_TYPE, 100_000);
    let text = [("content-type", TEXT_CONTENT_TYPE)];
    let large = running.announce("/v1/classify", &text, 60_000);
    assert_eq!((large.status, large.code().as_str()), (503, "overloaded"));
    let small = running.post(
        "/v1/classify",
        &[("content-type", TEXT_CONTENT_TYPE)],
        &[b' '; 1000],
    );
    assert_eq!(small.status, 400, "a small one still fits");
    assert_eq!(
        running.metric("prompt_cache_index_shed_total{reason=\"text_bytes\"}"),
        1.0
    );
}

#[test]
fn connections_over_the_limit_are_closed() {
    let running = start("limits: {connections_max: 1}");
    let _held = unfinished(&running.url, "application/json", 5);
    let mut second = TcpStream::connect(running.url.strip_prefix("http://").unwrap()).unwrap();
    let mut answer = Vec::new();
    let _ = second.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    let _ = second.read_to_end(&mut answer);
    assert!(answer.is_empty());
}

#[test]
fn a_clock_that_jumps_neither_loses_nor_shortens_what_is_stored() {
    const HOUR_MS: u64 = 3_600_000;
    let running = start("");
    let body = chat(&[&text(20)]);
    let asked = request(1, &body, &[(0, M5)]);
    running.exchange(&asked, &body);
    let reads = || match running.ask(&asked) {
        ClassifyAnswer::Ok(classified) => classified.split.read,
        _ => 0,
    };
    // Back: a life ends when the stored time comes, and a commit there does not shorten it.
    running.clock.set(NOW - HOUR_MS);
    assert_eq!(reads(), 20);
    running.exchange(&asked, &body);
    running.clock.set(NOW + 299_999);
    assert_eq!(reads(), 20);
    running.flush();
    // Forward, beyond its life, and back before a sweep has seen it.
    running.clock.set(NOW + 24 * HOUR_MS);
    assert_eq!(reads(), 0);
    running.clock.set(NOW + 300_000);
    assert_eq!(reads(), 20);
}
