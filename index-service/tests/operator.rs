//! The binary's other commands: accounts, purge, export and import, as an operator types them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{Fingerprint, NewEntry, Tier};
use prompt_cache_index::config::EmbeddedConfig;
use prompt_cache_index::store::embedded::EmbeddedStore;
use prompt_cache_index::store::{Cursor, ScopeInfo, Store, Write};

fn run(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_prompt-cache-index"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn good(args: &[&str], stdin: &str) -> String {
    let output = run(args, stdin);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn bad(args: &[&str]) -> (Option<i32>, String) {
    let output = run(args, "");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    (output.status.code(), stderr)
}

#[test]
fn accounts_are_edited_and_keys_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (file, secret) = (dir.path().join("a.yaml"), dir.path().join("key"));
    let (file, secret) = (file.to_str().unwrap(), secret.to_str().unwrap());
    std::fs::write(secret, "the filter's key\n").unwrap();
    let fingerprint = |key: &str| {
        let args = ["accounts", "fingerprint", "--key-file", secret];
        let printed = good(&args, key);
        assert!(!printed.contains(key.trim()), "{printed}");
        printed.trim().to_owned()
    };
    let (one, two) = (fingerprint("sk-secret-one\n"), fingerprint("sk-secret-two"));
    let expected = Fingerprint::of(b"the filter's key", b"sk-secret-one").unwrap();
    assert_eq!(one, expected.to_string());

    let add = |more: &[&str]| good(&[&["accounts", "add", "--file", file], more].concat(), "");
    add(&["--account", "acme", "--fingerprint", &one]);
    add(&["--account", "acme", "--fingerprint", &two]);
    add(&[
        "--account",
        "with: \"quotes\"",
        "--continues",
        &"cd".repeat(32),
    ]);
    let list = || good(&["accounts", "list", "--file", file], "");
    assert_eq!(
        list(),
        format!("acme\t{one}\nacme\t{two}\nwith: \"quotes\"\t-\n")
    );

    fn remove<'a>(file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["accounts", "remove", "--file", file], more].concat()
    }
    good(
        &remove(file, &["--account", "acme", "--fingerprint", &one]),
        "",
    );
    assert_eq!(list(), format!("acme\t{two}\nwith: \"quotes\"\t-\n"));
    // The same by way of the configuration that names the file.
    let config = dir.path().join("index.yaml");
    let text = "models: [{model: m, encoding: o200k_base}]\naccounts_file: a.yaml\n";
    std::fs::write(&config, text).unwrap();
    let configured = ["accounts", "list", "--config", config.to_str().unwrap()];
    assert_eq!(good(&configured, ""), list());
    std::fs::write(&config, text.replace("accounts_file: a.yaml", "")).unwrap();
    let (status, stderr) = bad(&configured);
    assert!(
        status == Some(1) && stderr.contains("names no accounts"),
        "{stderr}"
    );
    let before = std::fs::read_to_string(file).unwrap();
    for (args, code, says) in [
        (remove(file, &["--account", "nobody"]), 1, "no such account"),
        (
            remove(file, &["--account", "acme", "--fingerprint", &one]),
            1,
            "is not a key of",
        ),
        (
            vec![
                "accounts",
                "add",
                "--file",
                file,
                "--account",
                "b",
                "--fingerprint",
                &two,
            ],
            2,
            "a key is listed twice",
        ),
    ] {
        let (status, stderr) = bad(&args);
        assert!(
            status == Some(code) && stderr.contains(says),
            "{status:?} {stderr}"
        );
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), before);
    good(&remove(file, &["--account", "acme"]), "");
    assert_eq!(list(), "with: \"quotes\"\t-\n");
}

/// A configuration with a ledger of its own.
struct Ledger {
    _dir: tempfile::TempDir,
    config: PathBuf,
    data_dir: PathBuf,
}

impl Ledger {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (config, data_dir) = (dir.path().join("c.yaml"), dir.path().join("data"));
        let yaml = format!(
            "models: [{{model: demo, encoding: o200k_base}}]\n\
             store: {{embedded: {{data_dir: {}}}}}\n",
            data_dir.display()
        );
        std::fs::write(&config, yaml).unwrap();
        Self {
            _dir: dir,
            config,
            data_dir,
        }
    }

    fn with<T>(&self, work: impl AsyncFnOnce(&EmbeddedStore) -> T) -> T {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let config = EmbeddedConfig {
                data_dir: self.data_dir.clone(),
                cache_bytes: 8 << 20,
                refresh_flush_ms: 10,
            };
            let store = EmbeddedStore::open(&config).unwrap();
            let result = work(&store).await;
            store.close().await;
            result
        })
    }

    fn config(&self) -> &str {
        self.config.to_str().unwrap()
    }

    /// Everything in it, in order.
    fn all(&self) -> (Vec<Write>, Vec<ScopeInfo>) {
        self.with(async |store| {
            let mut entries = store
                .scan(Cursor::default(), usize::MAX)
                .await
                .unwrap()
                .items;
            entries.sort_by_key(|write| (write.scope, write.entry.hash));
            let mut scopes = store
                .scopes(Cursor::default(), usize::MAX)
                .await
                .unwrap()
                .items;
            scopes.sort_by_key(ScopeInfo::scope);
            (entries, scopes)
        })
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64
}

fn infos() -> Vec<ScopeInfo> {
    (0..3u8)
        .map(|n| ScopeInfo {
            account: Fingerprint::new([n; 32]),
            model: if n == 2 {
                "other".to_owned()
            } else {
                "demo \"1\"".to_owned()
            },
            tokenizer_version: "v".to_owned(),
        })
        .collect()
}

fn fill(ledger: &Ledger, entries: u32, life_ms: u64) {
    let now_ms = now_ms();
    let scopes = infos();
    let writes: Vec<Write> = (0..entries)
        .map(|n| {
            let mut hash = [7; 32];
            hash[..4].copy_from_slice(&n.to_le_bytes());
            Write {
                scope: scopes[n as usize % 3].scope(),
                entry: NewEntry {
                    hash: PrefixHash::new(hash),
                    tokens: n,
                    tier: Tier::ALL[n as usize % 2],
                },
                expires_at_ms: now_ms + life_ms + u64::from(n),
            }
        })
        .collect();
    ledger.with(async |store| {
        store.register(&scopes).await.unwrap();
        for batch in writes.chunks(4096) {
            store
                .write(batch.to_vec(), now_ms - 1_000_000)
                .await
                .unwrap();
        }
    });
}

#[test]
fn an_export_imports_into_an_equal_ledger() {
    let (from, to) = (Ledger::new(), Ledger::new());
    fill(&from, 10_000, 3_600_000);
    let file = to.data_dir.with_file_name("export");
    let file = file.to_str().unwrap();
    let said = good(&["export", "--config", from.config(), "--out", file], "");
    assert_eq!(said, "exported 10000 entries of 3 scopes\n");
    for _ in 0..2 {
        let said = good(&["import", "--config", to.config(), "--from", file], "");
        assert_eq!(said, "imported 10000 entries of 3 scopes, 0 had expired\n");
    }
    assert!(from.all() == to.all(), "the ledgers differ");
    let (code, _) = bad(&["export", "--config", from.config(), "--out", file]);
    assert_eq!(code, Some(1), "an existing file is not overwritten");
}

#[test]
fn what_is_expired_does_not_travel_and_a_damaged_export_is_refused() {
    let (from, to) = (Ledger::new(), Ledger::new());
    fill(&from, 6, 3_600_000);
    let file = to.data_dir.with_file_name("export");
    let path = file.to_str().unwrap();
    good(&["export", "--config", from.config(), "--out", path], "");
    let export = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = export.lines().collect();
    let entry = lines[4];
    let cut = lines[..6].join("\n");
    let missing = [&lines[..4], &lines[5..]].concat().join("\n");
    let mut strange: serde_json::Value = serde_json::from_str(entry).unwrap();
    strange["scope"] = "0".repeat(32).into();
    let unknown = export.replace(entry, &strange.to_string());
    let newer = export.replace("\"ledger\":1", "\"ledger\":2");
    for (text, says) in [
        (cut.as_str(), "line 7: the export is cut off"),
        (missing.as_str(), "5 were read"),
        (newer.as_str(), "line 1: format 2"),
        ("{\"scopes\":0,\"entries\":0}\n", "line 1: not an export"),
        ("nonsense", "line 1: not a line of an export"),
        ("", "line 1: the export is cut off"),
        (unknown.as_str(), "line 5: an entry of a scope"),
    ] {
        std::fs::write(&file, text).unwrap();
        let (code, stderr) = bad(&["import", "--config", to.config(), "--from", path]);
        assert!(code == Some(1) && stderr.contains(says), "{says}: {stderr}");
    }
    // Dead on arrival.
    let aged = export.replace("\"expires_at_ms\":1", "\"expires_at_ms\":0");
    std::fs::write(&file, aged.replace("expires_at_ms\":0", "expires_at_ms\":")).unwrap();
    let said = good(&["import", "--config", to.config(), "--from", path], "");
    assert_eq!(said, "imported 0 entries of 3 scopes, 6 had expired\n");
}

#[test]
fn a_stopped_ledger_is_purged_by_command() {
    let ledger = Ledger::new();
    fill(&ledger, 30, 3_600_000);
    let purge = |more: &[&str]| {
        good(
            &[&["purge", "--config", ledger.config()], more].concat(),
            "",
        )
    };
    let first = Fingerprint::new([0; 32]).to_string();
    assert_eq!(
        purge(&["--principal", &first, "--model", "other"]),
        "purged 0 entries of 0 scopes\n"
    );
    assert_eq!(
        purge(&["--principal", &first]),
        "purged 10 entries of 1 scopes\n"
    );
    assert_eq!(
        purge(&["--model", "other"]),
        "purged 10 entries of 1 scopes\n"
    );
    assert_eq!(ledger.all().0.len(), 10);
    assert_eq!(
        run(&["purge", "--config", ledger.config()], "")
            .status
            .code(),
        Some(2)
    );
    let (code, stderr) = bad(&["purge", "--config", ledger.config(), "--account", "a"]);
    assert!(
        code == Some(1) && stderr.contains("no such account"),
        "{stderr}"
    );
}
