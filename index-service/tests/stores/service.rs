//! The binary on a configured store, and a client that speaks the wire.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A running service, killed on drop.
pub struct Service {
    child: Child,
    url: String,
    log: std::sync::Arc<std::sync::Mutex<String>>,
    dir: tempfile::TempDir,
}

/// Who asks where it does not matter.
const PRINCIPAL: u8 = 0xab;

/// A client for one thread.
pub struct Caller {
    url: String,
    agent: ureq::Agent,
}

impl Service {
    /// Starts it, whether its store is there or not, and waits until it listens.
    pub fn start(store: &str) -> Self {
        Self::start_with(store, "")
    }

    /// The same with `more` lines of configuration.
    pub fn start_with(store: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("index.yaml");
        let text = format!(
            "listen: 127.0.0.1:0\nmodels: [{{model: demo, encoding: o200k_base}}]\n\
             sweep_interval_ms: 100\nstore: {store}\n{more}"
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_prompt-cache-index"))
            .args(["serve", "--config"])
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let addr = loop {
            let line = lines.next().expect("it listens").unwrap();
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if event["message"] == "listening" {
                break event["addr"].as_str().unwrap().to_owned();
            }
        };
        let kept = std::sync::Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Self {
            child,
            url: format!("http://{addr}"),
            log,
            dir,
        }
    }

    pub fn caller(&self) -> Caller {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .new_agent();
        Caller {
            url: self.url.clone(),
            agent,
        }
    }

    /// Its configuration file.
    pub fn config(&self) -> std::path::PathBuf {
        self.dir.path().join("index.yaml")
    }

    /// What it has logged since it listens.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!(
                "the service's last lines, latest first:\n{}",
                tail.join("\n")
            );
        }
    }
}

impl Caller {
    /// Status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let answer = self.agent.get(format!("{}{path}", self.url)).call();
        let mut answer = answer.unwrap();
        let status = answer.status().as_u16();
        (status, answer.body_mut().read_to_string().unwrap())
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.post_with(path, "Bearer none", body)
    }

    /// Status and body, with the admin token `sesame`.
    pub fn post_as_admin(&self, path: &str, body: &Value) -> (u16, Value) {
        self.post_with(path, "Bearer sesame", body)
    }

    fn post_with(&self, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.url);
        let request = self.agent.post(url).header("authorization", token);
        let mut answer = request.send(body.to_string()).unwrap();
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().unwrap();
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    /// Waits until `/readyz` answers this.
    pub fn await_ready(&self, status: u16) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.get("/readyz").0 != status {
            assert!(Instant::now() < end, "/readyz never answered {status}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn tokenizer_version(&self) -> String {
        let policy: Value = serde_json::from_str(&self.get("/v1/policy").1).unwrap();
        policy["models"][0]["tokenizer_version"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// The status of a commit of entry `n`, of `n + 1` tokens.
    pub fn commit(&self, version: &str, n: u64) -> u16 {
        self.commit_as(PRINCIPAL, version, n)
    }

    /// The same for the principal that is this byte 32 times.
    pub fn commit_as(&self, principal: u8, version: &str, n: u64) -> u16 {
        let commit = json!({"v": 1, "commits": [{
            "principal": hex(principal), "model": "demo", "tokenizer_version": version,
            "age_ms": 0, "writes": [{"hash": format!("{n:064x}"), "tokens": n + 1, "tier": "1h"}],
        }]});
        self.post("/v1/commit", &commit).0
    }

    /// Status of a classification of entry `n`, and the tokens it reads.
    pub fn classify(&self, n: u64) -> (u16, u64) {
        let (status, answer) = self.classify_as(PRINCIPAL, n);
        (status, answer["split"]["read"].as_u64().unwrap_or(0))
    }

    /// Status and answer of a classification of entry `n` for another principal.
    pub fn classify_as(&self, principal: u8, n: u64) -> (u16, Value) {
        let request = json!({
            "v": 1, "principal": hex(principal), "model": "demo",
            "breakpoints": [{"block": 0, "tier": "1h"}],
            "candidates": [{"block": 0, "hash": format!("{n:064x}")}],
        });
        self.post("/v1/classify", &request)
    }
}

/// A fingerprint: the byte 32 times.
pub fn hex(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}
