//! The binary as an operator meets it: boot log, restart, signals, `kill -9` under load.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde_json::{Value, json};

/// A running binary.
struct Process {
    child: Child,
    addr: String,
    log: mpsc::Receiver<Value>,
    seen: Vec<Value>,
    agent: ureq::Agent,
    tokenizer_version: String,
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .new_agent()
}

fn spawn(data_dir: &Path, more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_prompt-cache-index"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data_dir)
        .args(more)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

impl Process {
    /// Starts the binary and waits until it is ready.
    fn start(data_dir: &Path) -> Self {
        let mut process = Self::start_with(data_dir, &[]);
        let policy: Value = serde_json::from_str(&process.get("/v1/policy")).unwrap();
        let version = &policy["models"][0]["tokenizer_version"];
        process.tokenizer_version = version.as_str().unwrap().to_owned();
        process
    }

    fn start_with(data_dir: &Path, more: &[&str]) -> Self {
        let mut child = spawn(data_dir, more);
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (send, log) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|_| json!({"raw": line}));
                if send.send(event).is_err() {
                    return;
                }
            }
        });
        let mut process = Self {
            child,
            addr: String::new(),
            log,
            seen: Vec::new(),
            agent: agent(),
            tokenizer_version: String::new(),
        };
        let listening = process.await_event("listening");
        process.addr = listening["addr"].as_str().unwrap().to_owned();
        process.await_event("ready");
        process
    }

    fn await_event(&mut self, message: &str) -> Value {
        loop {
            let event = self
                .log
                .recv_timeout(Duration::from_secs(30))
                .expect(message);
            self.seen.push(event.clone());
            if event["message"] == message {
                return event;
            }
        }
    }

    fn get(&self, path: &str) -> String {
        let mut response = agent()
            .get(format!("http://{}{path}", self.addr))
            .call()
            .unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.body_mut().read_to_string().unwrap()
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Tokens read for entry `n`, over the wire.
    fn reads(&self, n: u64) -> u64 {
        let request = json!({
            "v": 1, "principal": "ab".repeat(32), "model": "demo",
            "breakpoints": [{"block": 0, "tier": "1h"}],
            "candidates": [{"block": 0, "hash": format!("{n:064x}")}],
        });
        let url = format!("http://{}/v1/classify", self.addr);
        let mut response = self.agent.post(url).send(request.to_string()).unwrap();
        let answer = response.body_mut().read_to_string().unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["split"]["read"].as_u64().unwrap_or(0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A commit of entries `n..n + count`, each of `n + 1` tokens.
fn commit(tokenizer_version: &str, n: u64, count: u64) -> String {
    let commits: Vec<_> = (n..n + count)
        .map(|n| {
            json!({"principal": "ab".repeat(32), "model": "demo",
                "tokenizer_version": tokenizer_version, "age_ms": 0,
                "writes": [{"hash": format!("{n:064x}"), "tokens": n + 1, "tier": "1h"}]})
        })
        .collect();
    json!({"v": 1, "commits": commits}).to_string()
}

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
fn an_acknowledged_commit_survives_kill_9_under_load() {
    const WRITERS: u64 = 4;
    const ENTRIES_PER_COMMIT: u64 = 3;
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<u64> = Vec::new();
    let mut next = 0u64;
    for round in 0..6u64 {
        let mut process = Process::start(dir.path());
        for n in &acknowledged {
            assert_eq!(process.reads(*n), n + 1, "entry {n} in round {round}");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (acks, acked) = mpsc::channel();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let url = format!("http://{}/v1/commit", process.addr);
                let version = process.tokenizer_version.clone();
                let stop = Arc::clone(&stop);
                let acks = acks.clone();
                let mut n = next + writer * 1_000_000;
                std::thread::spawn(move || {
                    let agent = agent();
                    while !stop.load(Ordering::SeqCst) {
                        let body = commit(&version, n, ENTRIES_PER_COMMIT);
                        match agent.post(&url).send(body) {
                            Ok(response) if response.status() == 200 => acks.send(n).unwrap(),
                            _ => return,
                        }
                        n += ENTRIES_PER_COMMIT;
                    }
                })
            })
            .collect();
        // Killed after a number of acknowledgements that differs from round to round, with the
        // other writers in the middle of theirs.
        let mut firsts: Vec<u64> = acked.iter().take(5 + 13 * round as usize).collect();
        process.child.kill().unwrap();
        process.wait();
        stop.store(true, Ordering::SeqCst);
        drop(acks);
        for writer in writers {
            writer.join().unwrap();
        }
        firsts.extend(acked.iter());
        acknowledged.extend(
            firsts
                .iter()
                .flat_map(|first| *first..first + ENTRIES_PER_COMMIT),
        );
        next += WRITERS * 1_000_000;
    }
    let process = Process::start(dir.path());
    assert!(acknowledged.len() > 300, "{}", acknowledged.len());
    for n in acknowledged {
        assert_eq!(process.reads(n), n + 1, "entry {n}");
    }
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
