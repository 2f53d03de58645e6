//! A full disk, played by a limit on the size of a file.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Process, agent, commit};

/// Limit of the ledger file in blocks of 512 bytes.
const BLOCKS: u32 = 4 << 11;
/// Sizes of commits: where a large one does not fit any more, smaller ones may.
const ENTRIES_PER_COMMIT: [u64; 3] = [200, 20, 1];

fn is_ready(process: &Process) -> bool {
    let url = format!("http://{}/readyz", process.addr);
    agent().get(url).call().unwrap().status() == 200
}

#[test]
fn a_full_disk_is_503_and_heals_without_losing_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    // Writing beyond the limit then fails as it does on a full disk, instead of killing.
    let script = format!("trap '' XFSZ; ulimit -S -f {BLOCKS}; exec \"$0\" \"$@\"");
    let child = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_prompt-cache-index")])
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let process = Process::of(child);
    let policy: Value = serde_json::from_str(&process.get("/v1/policy")).unwrap();
    let version = policy["models"][0]["tokenizer_version"].as_str().unwrap();
    let url = format!("http://{}/v1/commit", process.addr);
    let mut next = 0;
    for count in ENTRIES_PER_COMMIT {
        let refused = loop {
            let body = commit(version, next, count);
            let mut response = agent().post(&url).send(body).unwrap();
            if response.status() != 200 {
                let body = response.body_mut().read_to_string().unwrap();
                break (response.status().as_u16(), body);
            }
            next += count;
            assert!(next < 1_000_000, "the limit has no effect");
        };
        assert_eq!(refused.0, 503);
        assert!(refused.1.contains("store_unavailable"), "{}", refused.1);
        assert!(next > 0);
        assert!(!is_ready(&process), "{count} entries do not fit");
    }
    let pid = process.child.id().to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &pid, "--fsize=unlimited:"])
        .status()
        .unwrap();
    assert!(raised.success());
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_ready(&process) {
        assert!(Instant::now() < deadline, "it does not heal");
    }
    let body = commit(version, next, 200);
    assert_eq!(agent().post(&url).send(body).unwrap().status(), 200);
    for n in (0..next + 200).step_by(97) {
        assert_eq!(process.reads(n), n + 1);
    }
}
