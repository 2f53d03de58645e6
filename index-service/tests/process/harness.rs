//! Starts the binary, reads its log, talks to it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

/// A running binary.
pub struct Process {
    pub child: Child,
    pub addr: String,
    pub log: mpsc::Receiver<Value>,
    pub seen: Vec<Value>,
    agent: ureq::Agent,
    pub tokenizer_version: String,
}

pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .new_agent()
}

pub fn spawn(data_dir: &Path, more: &[&str]) -> Child {
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
    pub fn start(data_dir: &Path) -> Self {
        let mut process = Self::start_with(data_dir, &[]);
        let policy: Value = serde_json::from_str(&process.get("/v1/policy")).unwrap();
        let version = &policy["models"][0]["tokenizer_version"];
        process.tokenizer_version = version.as_str().unwrap().to_owned();
        process
    }

    pub fn start_with(data_dir: &Path, more: &[&str]) -> Self {
        Self::of(spawn(data_dir, more))
    }

    /// Waits until the child, of any command line that ends in the binary's, is ready.
    pub fn of(mut child: Child) -> Self {
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

    pub fn await_event(&mut self, message: &str) -> Value {
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

    pub fn get(&self, path: &str) -> String {
        let mut response = agent()
            .get(format!("http://{}{path}", self.addr))
            .call()
            .unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.body_mut().read_to_string().unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Tokens read for entry `n`, over the wire.
    pub fn reads(&self, n: u64) -> u64 {
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
pub fn commit(tokenizer_version: &str, n: u64, count: u64) -> String {
    let commits: Vec<_> = (n..n + count)
        .map(|n| {
            json!({"principal": "ab".repeat(32), "model": "demo",
                "tokenizer_version": tokenizer_version, "age_ms": 0,
                "writes": [{"hash": format!("{n:064x}"), "tokens": n + 1, "tier": "1h"}]})
        })
        .collect();
    json!({"v": 1, "commits": commits}).to_string()
}
