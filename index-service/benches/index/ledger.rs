//! Ledgers of a given size, and requests that know what is in them.
//!
//! Conversation `n` has four breakpoints, 20 blocks apart, each with a live entry; the 76 other
//! candidates of its classification are not in the ledger.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{Breakpoint, Candidate, Fingerprint, NewEntry, Tier};
use prompt_cache_core::wire::{ClassifyRequest, Commit, CommitBatch, WIRE_VERSION};
use prompt_cache_index::boot::open_store;
use prompt_cache_index::config::Config;
use prompt_cache_index::policy::Models;
use prompt_cache_index::store::{BATCH_ENTRIES_MAX, ScopeInfo, Write};

use crate::client::post;
use crate::kind::StoreKind;
use crate::setting;

/// Credentials that share a ledger.
const PRINCIPALS: u64 = 1000;
/// Entries of a conversation.
const DEPTH: u64 = 4;
/// Blocks between two breakpoints.
const STRIDE: u64 = 20;
/// Classifications that are prepared.
const REQUESTS: u64 = 10_000;
/// Writes that wait for the store together while a ledger is made.
const BATCHES_AT_ONCE: usize = 48;
const DAY_MS: u64 = 86_400_000;

/// A filled ledger and the configuration of a service for it.
pub struct Ledger {
    pub config: PathBuf,
    tokenizer_version: String,
    conversations: u64,
    _dir: tempfile::TempDir,
}

impl Ledger {
    pub fn fill(store: StoreKind, entries: u64) -> Self {
        let root = setting("BENCH_DIR", std::env::temp_dir().to_str().unwrap());
        let dir = tempfile::tempdir_in(root).unwrap();
        let config = dir.path().join("index.yaml");
        let data = dir.path().join("data");
        let yaml = format!(
            "listen: 127.0.0.1:0\nmodels: [{{model: demo, encoding: o200k_base}}]\nstore: {}\n",
            store.yaml(&data, entries)
        );
        std::fs::write(&config, yaml).unwrap();
        let loaded = Config::load(&config).unwrap();
        let tokenizer_version = Models::new(&loaded.models).unwrap().policies()[0]
            .tokenizer_version
            .clone();
        let ledger = Self {
            config,
            tokenizer_version,
            conversations: (entries / DEPTH).max(1),
            _dir: dir,
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(ledger.write(&loaded, entries));
        ledger
    }

    async fn write(&self, config: &Config, entries: u64) {
        let store = open_store(&config.store).unwrap();
        let infos: Vec<ScopeInfo> = (0..PRINCIPALS)
            .map(|n| ScopeInfo {
                account: principal(n),
                model: "demo".to_owned(),
                tokenizer_version: self.tokenizer_version.clone(),
            })
            .collect();
        store.register(&infos).await.unwrap();
        let scopes: Vec<_> = infos.iter().map(ScopeInfo::scope).collect();
        let now_ms = now_ms();
        let mut next = 0;
        while next < entries {
            let mut waiting = Vec::new();
            for _ in 0..BATCHES_AT_ONCE {
                let end = (next + BATCH_ENTRIES_MAX as u64).min(entries);
                let batch: Vec<Write> = (next..end)
                    .map(|n| Write {
                        scope: scopes[(n / DEPTH % PRINCIPALS) as usize],
                        entry: entry(n / DEPTH, n % DEPTH),
                        // Spread, and too late for a read to extend it.
                        expires_at_ms: now_ms + DAY_MS + n % DAY_MS,
                    })
                    .collect();
                next = end;
                let store = store.clone();
                waiting.push(tokio::spawn(
                    async move { store.write(batch, now_ms).await },
                ));
            }
            for batch in waiting {
                batch.await.unwrap().unwrap();
            }
        }
        store.close().await;
    }

    /// Pure reads of random conversations.
    pub fn classifications(&self) -> Vec<Vec<u8>> {
        let mut random = fastrand::Rng::with_seed(1);
        (0..REQUESTS.min(self.conversations))
            .map(|_| {
                let n = random.u64(0..self.conversations);
                let blocks = 0..DEPTH * STRIDE;
                let is_breakpoint = |block: &u64| block % STRIDE == STRIDE - 1;
                let request = ClassifyRequest {
                    v: WIRE_VERSION,
                    api: prompt_cache_core::api::Api::Chat,
                    principal: principal(n % PRINCIPALS),
                    model: "demo".to_owned(),
                    breakpoints: blocks
                        .clone()
                        .filter(is_breakpoint)
                        .map(|block| Breakpoint {
                            block: block as u32,
                            tier: Tier::OneHour,
                        })
                        .collect(),
                    candidates: blocks
                        .map(|block| Candidate {
                            block: block as u32,
                            hash: if is_breakpoint(&block) {
                                entry(n, block / STRIDE).hash
                            } else {
                                hash(u64::MAX - n, block)
                            },
                        })
                        .collect(),
                };
                post("/v1/classify", &serde_json::to_string(&request).unwrap())
            })
            .collect()
    }

    /// Batches of `commits` commits, each of a new conversation.
    pub fn commits(&self, commits: u64) -> Vec<Vec<u8>> {
        let first = self.conversations + commits * 1_000_000;
        (0..2000 / commits)
            .map(|batch| {
                let commit = |n: u64| Commit {
                    principal: principal(n % PRINCIPALS),
                    model: "demo".to_owned(),
                    tokenizer_version: self.tokenizer_version.clone(),
                    age_ms: 0,
                    prompt_tokens: None,
                    counted_prompt_tokens: None,
                    writes: (0..DEPTH).map(|depth| entry(n, depth)).collect(),
                };
                let batch = CommitBatch {
                    reads: Vec::new(),
                    v: WIRE_VERSION,
                    commits: (first + batch * commits..first + (batch + 1) * commits)
                        .map(commit)
                        .collect(),
                };
                post("/v1/commit", &serde_json::to_string(&batch).unwrap())
            })
            .collect()
    }
}

fn principal(n: u64) -> Fingerprint {
    Fingerprint::new(*hash(n, u64::MAX).as_bytes())
}

fn entry(conversation: u64, depth: u64) -> NewEntry {
    NewEntry {
        hash: hash(conversation, depth),
        tokens: 2000 * (depth as u32 + 1),
        tier: Tier::OneHour,
    }
}

fn hash(a: u64, b: u64) -> PrefixHash {
    let mut random = fastrand::Rng::with_seed(a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b);
    let mut bytes = [0; 32];
    random.fill(&mut bytes);
    PrefixHash::new(bytes)
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64
}
