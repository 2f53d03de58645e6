//! Traces, as a receiver gets them; and receivers that are slow or away.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::json;

use crate::harness::{Process, agent};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const PROMPT: &str = "planted prompt words";
const TOKEN: &str = "planted-token";

/// Takes exports and hands on their bodies, until the test ends.
fn receiver() -> (String, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (send, exports) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = Vec::new();
            let head = loop {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break None;
                }
                bytes.extend(byte);
                if bytes.ends_with(b"\r\n\r\n") {
                    break Some(String::from_utf8(std::mem::take(&mut bytes)).unwrap());
                }
            };
            let Some(head) = head else { continue };
            assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
            let head = head.to_lowercase();
            assert!(
                head.contains("content-type: application/x-protobuf"),
                "{head}"
            );
            let length = head.split("content-length: ").nth(1).unwrap();
            let length = length.split("\r\n").next().unwrap().parse().unwrap();
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            if send.send(body).is_err() {
                return;
            }
        }
    });
    (url, exports)
}

fn start(dir: &Path, endpoint: &str) -> Process {
    let config = dir.join("c.yaml");
    let yaml = json!({
        "models": [{"model": "demo", "encoding": "o200k_base", "min_prefix_tokens": 1}],
        "auth_token": TOKEN,
        "telemetry": {"otlp_endpoint": endpoint},
    });
    std::fs::write(&config, yaml.to_string()).unwrap();
    Process::start_with(dir, &["--config", config.to_str().unwrap()])
}

fn classify(process: &Process, n: u64, traceparent: &str) -> serde_json::Value {
    let head = json!({
        "v": 1, "principal": "ab".repeat(32), "model": "demo",
        "breakpoints": [{"block": 0, "tier": "1h"}],
        "candidates": [{"block": 0, "hash": format!("cd{n:062x}")}],
    });
    let text = json!({"model": "demo", "messages": [{"role": "user", "content": PROMPT}]});
    let url = format!("http://{}/v1/classify", process.addr);
    let mut answer = agent()
        .post(url)
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", "application/vnd.prompt-cache.classify-text")
        .header("traceparent", traceparent)
        .send(format!("{head}\n{text}"))
        .unwrap();
    assert_eq!(answer.status(), 200);
    serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
}

fn commit(process: &Process, classified: &serde_json::Value) {
    let batch = json!({"v": 1, "commits": [{
        "principal": "ab".repeat(32), "model": "demo", "age_ms": 0,
        "tokenizer_version": classified["tokenizer_version"], "writes": classified["writes"],
    }]});
    let url = format!("http://{}/v1/commit", process.addr);
    let request = agent()
        .post(url)
        .header("authorization", format!("Bearer {TOKEN}"));
    assert_eq!(request.send(batch.to_string()).unwrap().status(), 200);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_request_is_one_trace_below_its_caller_and_tells_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let (url, exports) = receiver();
    let mut process = start(dir.path(), &url);
    let classified = classify(&process, 1, &format!("00-{TRACE}-{PARENT}-01"));
    // The caller decided against it.
    classify(&process, 2, &format!("00-{}-{PARENT}-00", "12".repeat(16)));
    commit(&process, &classified);
    process.signal("-TERM");
    assert!(process.wait().success());
    process.await_event("stopped");

    let mut spans: Vec<Span> = Vec::new();
    for body in exports.try_iter() {
        for secret in [PROMPT, TOKEN, "abab", "cd00", "\u{ab}\u{ab}"] {
            let found = body.windows(secret.len()).any(|at| at == secret.as_bytes());
            assert!(!found, "{secret}");
        }
        assert!(!body.windows(8).any(|at| at == [0xab; 8]));
        let export = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
        for resource in export.resource_spans {
            let attributes = resource.resource.unwrap().attributes;
            let service = attributes.iter().find(|a| a.key == "service.name").unwrap();
            assert!(format!("{service:?}").contains("prompt-cache-index"));
            spans.extend(
                resource
                    .scope_spans
                    .into_iter()
                    .flat_map(|scope| scope.spans),
            );
        }
    }
    let mut names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "classify",
            "commit",
            "count",
            "look_up",
            "store.register",
            "store.write",
            "tokenize"
        ]
    );
    let span = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    let attribute = |name: &str, key: &str| {
        let found = span(name).attributes.iter().find(|a| a.key == key);
        format!("{:?}", found.and_then(|a| a.value.clone()))
    };
    let classify = span("classify");
    assert_eq!(
        (hex(&classify.trace_id), hex(&classify.parent_span_id)),
        (TRACE.to_owned(), PARENT.to_owned())
    );
    for (child, parent) in [
        ("look_up", "classify"),
        ("count", "classify"),
        ("tokenize", "count"),
        ("store.register", "commit"),
        ("store.write", "commit"),
    ] {
        assert_eq!(span(child).trace_id, span(parent).trace_id, "{child}");
        assert_eq!(span(child).parent_span_id, span(parent).span_id, "{child}");
    }
    assert!(span("commit").parent_span_id.is_empty());
    assert!(attribute("classify", "model").contains("demo"));
    assert!(attribute("classify", "outcome").contains("Ok"));
    assert!(attribute("classify", "http.response.status_code").contains("200"));
    assert!(attribute("commit", "written").contains('1'));
}

#[test]
fn receivers_that_are_away_or_silent_stop_nothing() {
    // Bound and never accepted: connections open, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for address in [silent.local_addr().unwrap(), gone] {
        let dir = tempfile::tempdir().unwrap();
        let mut process = start(dir.path(), &format!("http://{address}"));
        // More spans than the queue holds: each request is four of them.
        for n in 0..700 {
            classify(&process, n, &format!("00-{TRACE}-{PARENT}-01"));
        }
        let warned = process.await_event("traces are not taken: spans are dropped");
        assert_eq!(warned["level"], "WARN");
        process.signal("-TERM");
        assert!(process.wait().success());
        process.log.recv_timeout(Duration::from_secs(30)).unwrap();
        let again = process
            .log
            .try_iter()
            .filter(|event| event["level"] == "WARN");
        assert_eq!(again.count(), 0, "each failure is not logged");
    }
}
