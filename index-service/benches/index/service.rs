//! The service as a process of its own, on a core of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::setting;

pub struct Service {
    child: Child,
    addr: SocketAddr,
}

impl Service {
    pub fn start(config: &Path) -> Self {
        let mut child = Command::new("taskset")
            .args(["--cpu-list", &setting("BENCH_SERVICE_CORE", "0")])
            .arg(env!("CARGO_BIN_EXE_prompt-cache-index"))
            .args(["serve", "--config"])
            .arg(config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut addr = None;
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        for line in lines.by_ref().map_while(Result::ok) {
            let event: serde_json::Value = serde_json::from_str(&line).expect(&line);
            if event["message"] == "listening" {
                addr = event["addr"].as_str().map(|addr| addr.parse().unwrap());
            }
            if event["message"] == "ready" {
                break;
            }
        }
        // What it says from now on must not fill the pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let addr = addr.expect("the service did not start");
        Self { child, addr }
    }

    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Processor time of all its threads so far.
    pub fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let nanos = tasks.filter_map(|task| {
            let schedstat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            schedstat.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    pub fn resident_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    /// A metric without labels.
    pub fn metric(&self, name: &str) -> f64 {
        let url = format!("http://{}/metrics", self.addr);
        let text = ureq::get(url)
            .call()
            .unwrap()
            .body_mut()
            .read_to_string()
            .unwrap();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.expect(name).parse().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
