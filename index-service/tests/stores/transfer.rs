//! A ledger that moves from store to store with `export` and `import`, and comes back as it was.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use prompt_cache_core::ledger::{Fingerprint, Tier};
use prompt_cache_index::store::ScopeInfo;
use prompt_cache_test_servers::fresh_name;
use serde_json::json;

use crate::samples::hash;

/// More than one page of an export.
const ENTRIES: u32 = 10_000;
const LIFE_MS: u64 = 3_600_000;

#[test]
#[ignore = "needs all servers: ./just test-stores"]
fn a_ledger_comes_back_from_a_tour_of_all_stores_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (schema, prefix) = (fresh_name(), fresh_name());
    let embedded = |name: &str| {
        let data_dir = dir.path().join(name);
        format!("{{embedded: {{data_dir: {}}}}}", data_dir.display())
    };
    let redis = |servers: &str| {
        format!("{{redis: {{{servers}, key_prefix: {prefix}, operation_timeout_ms: 30000}}}}")
    };
    let tour = [
        embedded("first"),
        format!(
            "{{postgres: {{url_env: TEST_POSTGRES_URL, schema: {schema}, \
             operation_timeout_ms: 30000}}}}"
        ),
        redis("url_env: TEST_REDIS_URL"),
        redis("url_env: TEST_REDIS_CLUSTER_URLS, cluster: true"),
        embedded("last"),
    ];
    let mut file = dir.path().join("original");
    std::fs::write(&file, ledger()).unwrap();
    let original = lines(&file);
    for (i, store) in tour.iter().enumerate() {
        let config = dir.path().join(format!("{i}.yaml"));
        let yaml = format!("models: [{{model: demo, encoding: o200k_base}}]\nstore: {store}\n");
        std::fs::write(&config, yaml).unwrap();
        let said = run("import", &config, "--from", &file);
        assert!(
            said.ends_with("of 3 scopes, 0 had expired\n"),
            "{store}: {said}"
        );
        file = dir.path().join(format!("{i}.export"));
        run("export", &config, "--out", &file);
        assert!(lines(&file) == original, "{store} holds something else");
    }
}

/// An export that was never in a store, with counts up to the largest.
fn ledger() -> String {
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64;
    let scopes: Vec<ScopeInfo> = ["demo", "other \"1\"", "é"]
        .iter()
        .enumerate()
        .map(|(n, model)| ScopeInfo {
            account: Fingerprint::new([n as u8; 32]),
            model: (*model).to_owned(),
            tokenizer_version: "v".to_owned(),
        })
        .collect();
    let mut lines = vec![json!({"ledger": 1})];
    lines.extend(scopes.iter().map(|info| {
        json!({
            "account": info.account, "model": info.model,
            "tokenizer_version": info.tokenizer_version,
        })
    }));
    lines.extend((0..ENTRIES).map(|n| {
        let scope = scopes[n as usize % scopes.len()].scope();
        json!({
            "scope": format!("{:032x}", u128::from_be_bytes(*scope.as_bytes())),
            "hash": hash(n),
            "tokens": u32::MAX - n * 400_000,
            "tier": Tier::ALL[n as usize / 3 % 3],
            "expires_at_ms": now_ms + LIFE_MS + u64::from(n),
        })
    }));
    lines.push(json!({"scopes": scopes.len(), "entries": ENTRIES}));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// What an export says, in one order, without its counts: Redis may yield an entry twice.
fn lines(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut lines: Vec<String> = text
        .lines()
        // Members in one order.
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line.get("entries").is_none())
        .map(|line| line.to_string())
        .collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

/// What the command says, once it has done its work.
fn run(command: &str, config: &Path, option: &str, file: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_prompt-cache-index"))
        .args([command, "--config"])
        .arg(config)
        .arg(option)
        .arg(file)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}
