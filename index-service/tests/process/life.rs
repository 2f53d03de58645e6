//! Start, restart, stop, and what the log says of it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::json;

use crate::harness::{Process, agent, commit, spawn};

#[test]
fn entries_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path());
    let url = format!("http://{}/v1/commit", process.addr);
    let body = commit(&process.tokenizer_version, 0, 20);
    assert_eq!(agent().post(url).send(body).unwrap().status(), 200);
    process.signal("-TERM");
    assert!(process.wait().success());
    process.await_event("stopped");
    let again = Process::start(dir.path());
    for n in 0..20 {
        assert_eq!(again.reads(n), n + 1);
    }
    assert!(
        again
            .get("/metrics")
            .contains("\nprompt_cache_index_entries 20\n")
    );
}

#[test]
fn a_stop_finishes_what_is_in_flight() {
    for signal in ["-TERM", "-INT"] {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Process::start(dir.path());
        let body = commit(&process.tokenizer_version, 7, 1);
        let mut stream = TcpStream::connect(&process.addr).unwrap();
        let head = format!(
            "POST /v1/commit HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut go_on = [0; 25];
        stream.read_exact(&mut go_on).unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        let mut idle = TcpStream::connect(&process.addr).unwrap();
        process.signal(signal);
        // An idle connection is closed: the service has begun to stop.
        assert_eq!(idle.read(&mut [0; 1]).unwrap_or(0), 0);
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{signal}: {answer}");
        assert!(process.wait().success(), "{signal}");
        assert_eq!(Process::start(dir.path()).reads(7), 8);
    }
}

#[test]
fn health_is_what_the_service_says_of_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path());
    let ask = |address: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_prompt-cache-index"));
        let output = command.args(["health", "--address", address]).output();
        let output = output.unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let address = process.addr.clone();
    assert_eq!(ask(&address), (Some(0), String::new()));
    process.signal("-TERM");
    assert!(process.wait().success());
    let (code, said) = ask(&address);
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains(&address), "{said}");
}

#[test]
fn a_directory_in_use_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Process::start(dir.path());
    let output = spawn(dir.path(), &[]).wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let last = stderr.lines().last().unwrap();
    assert!(
        last.starts_with("prompt-cache-index: cannot open the store: "),
        "{stderr}"
    );
}

#[test]
fn the_log_names_what_runs_and_never_who_or_what() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("c.yaml");
    let yaml = "models: [{model: demo, encoding: o200k_base, min_prefix_tokens: 1}]\n\
                auth_token: secret-token\nlog: {level: trace}\n";
    std::fs::write(&config, yaml).unwrap();
    let mut process = Process::start_with(dir.path(), &["--config", config.to_str().unwrap()]);
    let boot = &process.seen[0];
    assert_eq!(boot["message"], "starting");
    assert_eq!(boot["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(boot["models"], "demo");

    let head = json!({
        "v": 1, "principal": "ab".repeat(32), "model": "demo",
        "breakpoints": [{"block": 0, "tier": "1h"}],
        "candidates": [{"block": 0, "hash": "cd".repeat(32)}],
    });
    for prompt in [
        "{\"messages\":[{\"content\":\"secret prompt\"}]}",
        "{secret prompt",
    ] {
        for token in ["secret-token", "secret-guess"] {
            let url = format!("http://{}/v1/classify", process.addr);
            let request = agent()
                .post(url)
                .header("authorization", format!("Bearer {token}"))
                .header("content-type", "application/vnd.prompt-cache.classify-text");
            let _ = request.send(format!("{head}\n{prompt}")).unwrap();
        }
    }
    process.signal("-TERM");
    assert!(process.wait().success());
    process.await_event("stopped");
    let log: String = process
        .seen
        .iter()
        .map(|event| format!("{event}\n"))
        .collect();
    assert!(
        log.contains("TRACE") || log.contains("DEBUG"),
        "the level took effect: {log}"
    );
    for secret in ["secret", &"ab".repeat(8), &"cd".repeat(8)] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}
