//! `kill -9`: at random points under load, and with refreshes that wait.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prompt_cache_index::config::EmbeddedConfig;
use prompt_cache_index::store::embedded::EmbeddedStore;
use prompt_cache_index::store::{Cursor, Store, Write};

use crate::harness::{Process, agent, commit};

const WRITERS: u64 = 4;
const ENTRIES_PER_COMMIT: u64 = 3;
const MINUTES_5_MS: u64 = 300_000;

/// How often the process is killed: `./just test-crash` asks for 200.
fn rounds() -> u64 {
    std::env::var("CRASH_ROUNDS").map_or(6, |rounds| rounds.parse().unwrap())
}

#[test]
fn an_acknowledged_commit_survives_kill_9_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::new();
    println!("seed {}", random.get_seed());
    let mut acknowledged: Vec<u64> = Vec::new();
    let mut next = 0u64;
    for round in 0..rounds() {
        let mut process = Process::start(dir.path());
        let recent = acknowledged.len().saturating_sub(100);
        for n in &acknowledged[recent..] {
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
                let mut n = next + writer * 100_000;
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
        // Killed after some acknowledgements and a part of the time that one takes, with the
        // other writers in the middle of theirs.
        let start = Instant::now();
        let count = random.usize(1..60);
        let mut firsts: Vec<u64> = acked.iter().take(count).collect();
        let one = start.elapsed() / u32::try_from(count).unwrap();
        let end = Instant::now() + one.mul_f64(random.f64());
        while let Ok(n) = acked.recv_timeout(end.saturating_duration_since(Instant::now())) {
            firsts.push(n);
        }
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
        next += WRITERS * 100_000;
    }
    let held: HashMap<u64, Write> = entries(dir.path());
    assert!(
        acknowledged.len() as u64 > 30 * rounds(),
        "{}",
        acknowledged.len()
    );
    let lost = acknowledged
        .iter()
        .filter(|n| held.get(n).map(|write| u64::from(write.entry.tokens)) != Some(**n + 1))
        .count();
    println!(
        "{} kills, {} acknowledged writes, {lost} lost",
        rounds(),
        acknowledged.len()
    );
    assert_eq!(lost, 0);
}

/// What the ledger of a dead process holds, by the number that the hash is.
fn entries(data_dir: &Path) -> HashMap<u64, Write> {
    let config = EmbeddedConfig {
        data_dir: data_dir.to_owned(),
        cache_bytes: 8 << 20,
        refresh_flush_ms: 10,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = EmbeddedStore::open(&config).unwrap();
        let page = store.scan(Cursor::default(), usize::MAX).await.unwrap();
        store.close().await;
        let number = |write: &Write| {
            let end = write.entry.hash.as_bytes().last_chunk::<8>().unwrap();
            u64::from_be_bytes(*end)
        };
        page.items
            .into_iter()
            .map(|write| (number(&write), write))
            .collect()
    })
}

/// Entries with 100 of their 300 seconds left, all read once; then the process is killed, at once
/// or when the reads' refreshes have been reported as written.
fn lives_after_reads_and_a_kill(flush_ms: u64, await_written: bool) -> Vec<u64> {
    const ENTRIES: u64 = 50;
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("c.yaml");
    let yaml = format!(
        "models: [{{model: demo, encoding: o200k_base}}]\n\
         store: {{embedded: {{refresh_flush_ms: {flush_ms}}}}}\n"
    );
    std::fs::write(&config, yaml).unwrap();
    let more = ["--config", config.to_str().unwrap()];
    let mut process = Process::start_with(dir.path(), &more);
    let policy: serde_json::Value = serde_json::from_str(&process.get("/v1/policy")).unwrap();
    let version = policy["models"][0]["tokenizer_version"].as_str().unwrap();
    let body = commit(version, 0, ENTRIES)
        .replace("\"1h\"", "\"5m\"")
        .replace("\"age_ms\":0", "\"age_ms\":200000");
    let url = format!("http://{}/v1/commit", process.addr);
    assert_eq!(agent().post(url).send(body).unwrap().status(), 200);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now_ms = now.as_millis() as u64;
    for n in 0..ENTRIES {
        assert_eq!(process.reads(n), n + 1);
    }
    let written = format!("prompt_cache_index_refreshes_total{{outcome=\"written\"}} {ENTRIES}\n");
    let deadline = Instant::now() + Duration::from_secs(30);
    while await_written && !process.get("/metrics").contains(&written) {
        assert!(Instant::now() < deadline, "not written");
    }
    process.child.kill().unwrap();
    process.wait();
    let held = entries(dir.path());
    (0..ENTRIES)
        .map(|n| held[&n].expires_at_ms.saturating_sub(now_ms))
        .collect()
}

#[test]
fn a_refresh_that_was_written_survives_kill_9() {
    let lives = lives_after_reads_and_a_kill(1, true);
    assert!(
        lives.iter().all(|left_ms| *left_ms >= MINUTES_5_MS),
        "{lives:?}"
    );
}

#[test]
fn a_kill_9_loses_the_refreshes_that_gather_and_nothing_else() {
    let lives = lives_after_reads_and_a_kill(10_000, false);
    let before = 1..=MINUTES_5_MS / 3;
    assert!(
        lives.iter().all(|left_ms| before.contains(left_ms)),
        "{lives:?}"
    );
}
