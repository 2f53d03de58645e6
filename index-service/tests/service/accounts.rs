//! Several keys of one account, their rotation, and purges.

use std::path::Path;

use prompt_cache_core::wire::{ClassifyAnswer, Policy, Uncached};
use prompt_cache_index::upkeep::FileSource;
use serde_json::{Value, json};

use crate::harness::{H1, M5, Running, chat, principal, request, start, text};

/// An accounts file with one account, `acme`, of these keys.
fn write_accounts(path: &Path, keys: &[u8]) {
    let keys: Vec<String> = keys.iter().map(|n| principal(*n).to_string()).collect();
    let yaml = json!({"accounts": [{"account": "acme", "keys": keys}]});
    std::fs::write(path, yaml.to_string()).unwrap();
}

fn epoch(running: &Running) -> String {
    let policy: Policy = serde_json::from_str(&running.get("/v1/policy", &[]).body).unwrap();
    policy.epoch
}

fn read(running: &Running, tenant: u8, body: &[u8]) -> u64 {
    match running.ask(&request(tenant, body, &[(0, M5)])) {
        ClassifyAnswer::Ok(classified) => classified.split.read,
        ClassifyAnswer::TextNeeded { read } => read,
        ClassifyAnswer::Inactive { reason } => panic!("{reason:?}"),
    }
}

#[test]
fn a_key_is_rotated_and_the_account_keeps_what_it_cached() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("accounts.yaml");
    write_accounts(&file, &[1]);
    let running = start(&format!("accounts_file: {}", file.display()));
    let mut source = FileSource::new(file.clone());
    assert!(!running.look(&mut source));
    let body = chat(&[&text(20)]);
    running.exchange(&request(1, &body, &[(0, M5)]), &body);
    assert_eq!(
        (read(&running, 1, &body), read(&running, 2, &body)),
        (20, 0)
    );

    let before = epoch(&running);
    write_accounts(&file, &[1, 2]);
    assert!(!running.look(&mut source));
    assert_eq!(
        (read(&running, 1, &body), read(&running, 2, &body)),
        (20, 20)
    );
    let both = epoch(&running);
    assert_ne!(both, before, "edges hear that a key changed hands");

    // The same accounts in other words.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("# comment\n{text}")).unwrap();
    assert!(!running.look(&mut source));
    assert_eq!(epoch(&running), both);

    write_accounts(&file, &[2]);
    assert!(!running.look(&mut source));
    assert_eq!(
        (read(&running, 1, &body), read(&running, 2, &body)),
        (0, 20)
    );
}

#[test]
fn a_bad_accounts_file_keeps_the_last_good_one_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("accounts.yaml");
    write_accounts(&file, &[1, 2]);
    let running = start(&format!(
        "unknown_principal: inactive\naccounts_file: {}",
        file.display()
    ));
    let mut source = FileSource::new(file.clone());
    let body = chat(&[&text(20)]);
    running.exchange(&request(1, &body, &[(0, M5)]), &body);
    for bad in ["accounts: [{account: a, keys: [zz]}]", "{", "acounts: []"] {
        std::fs::write(&file, bad).unwrap();
        assert!(running.look(&mut source), "{bad}");
        assert_eq!(read(&running, 2, &body), 20, "{bad}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(running.look(&mut source));
    assert_eq!(read(&running, 2, &body), 20);
    let reloads = |result| {
        running.metric(&format!(
            "prompt_cache_index_account_reloads_total{{result=\"{result}\"}}"
        ))
    };
    assert_eq!((reloads("ok"), reloads("error")), (0.0, 4.0));
    // It comes back without the second key, which is unknown now.
    write_accounts(&file, &[1]);
    assert!(!running.look(&mut source));
    assert_eq!(read(&running, 1, &body), 20);
    let unknown = running.ask(&request(2, &body, &[(0, M5)]));
    let reason = Uncached::UnknownPrincipal;
    assert_eq!(unknown, ClassifyAnswer::Inactive { reason });
    assert_eq!(
        (reloads("ok"), running.metric("prompt_cache_index_accounts")),
        (1.0, 1.0)
    );
}

fn purge(running: &Running, what: &Value) -> Value {
    let token = [("authorization", "Bearer sesame")];
    let answer = running.post("/v1/purge", &token, what.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

const MODELS: &str = "models: [{model: demo, encoding: o200k_base, min_prefix_tokens: 10}, \
                      {model: other, encoding: o200k_base, min_prefix_tokens: 10}]\n\
                      admin_token: sesame\n";

#[test]
fn a_purge_removes_a_principal_an_account_or_a_model_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("accounts.yaml");
    write_accounts(&file, &[3, 4]);
    let running = start(&format!("{MODELS}accounts_file: {}", file.display()));
    let body = chat(&[&text(20), &text(30)]);
    let ask = |tenant: u8, model: &str| {
        let mut request = request(tenant, &body, &[(0, M5), (1, H1)]);
        request.model = model.to_owned();
        request
    };
    let all = [
        (1, "demo"),
        (2, "demo"),
        (3, "demo"),
        (1, "other"),
        (2, "other"),
        (4, "other"),
    ];
    let fill = || {
        for (tenant, model) in all {
            running.exchange(&ask(tenant, model), &body);
        }
    };
    let left = || -> Vec<(u8, &str)> {
        let lives = |(tenant, model): &(u8, &str)| {
            matches!(running.ask(&ask(*tenant, model)), ClassifyAnswer::Ok(_))
        };
        all.into_iter().filter(lives).collect()
    };
    let table = [
        (
            json!({"v": 1, "principal": principal(1)}),
            json!({"scopes": 2, "entries": 4}),
            vec![(2, "demo"), (3, "demo"), (2, "other"), (4, "other")],
        ),
        (
            json!({"v": 1, "account": "acme"}),
            json!({"scopes": 2, "entries": 4}),
            vec![(1, "demo"), (2, "demo"), (1, "other"), (2, "other")],
        ),
        (
            json!({"v": 1, "principal": principal(4)}),
            json!({"scopes": 2, "entries": 4}),
            vec![(1, "demo"), (2, "demo"), (1, "other"), (2, "other")],
        ),
        (
            json!({"v": 1, "model": "demo"}),
            json!({"scopes": 3, "entries": 6}),
            vec![(1, "other"), (2, "other"), (4, "other")],
        ),
        (
            json!({"v": 1, "model": "other", "principal": principal(2)}),
            json!({"scopes": 1, "entries": 2}),
            vec![
                (1, "demo"),
                (2, "demo"),
                (3, "demo"),
                (1, "other"),
                (4, "other"),
            ],
        ),
        (
            json!({"v": 1, "model": "nobody's"}),
            json!({"scopes": 0, "entries": 0}),
            all.to_vec(),
        ),
    ];
    for (what, purged, stays) in table {
        fill();
        assert_eq!(left(), all);
        let before = epoch(&running);
        assert_eq!(purge(&running, &what), purged, "{what}");
        assert_eq!(left(), stays, "{what}");
        assert_ne!(epoch(&running), before, "{what}");
    }
    assert_eq!(
        running.metric("prompt_cache_index_purged_entries_total"),
        20.0
    );
}

#[test]
fn a_purge_asks_for_the_admin_token_and_for_a_selection() {
    let running = start(&format!("{MODELS}auth_token: filter"));
    let what = json!({"v": 1, "model": "demo"}).to_string();
    for headers in [
        &[][..],
        &[("authorization", "Bearer filter")],
        &[("authorization", "Bearer sesam")],
    ] {
        let answer = running.post("/v1/purge", headers, what.as_bytes());
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (401, "unauthorized")
        );
    }
    let token = [("authorization", "Bearer sesame")];
    for bad in [
        json!({"v": 1}),
        json!({"v": 1, "account": "nobody"}),
        json!({"v": 1, "account": "a", "principal": principal(1)}),
        json!({"v": 1, "modell": "demo"}),
        json!({"v": 1, "principal": "ab"}),
    ] {
        let answer = running.post("/v1/purge", &token, bad.to_string().as_bytes());
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "invalid_request")
        );
    }
    let answer = running.post("/v1/purge", &token, b"{\"v\": 2}");
    assert_eq!(answer.code(), "unsupported_version");
    let off = start("").post("/v1/purge", &token, what.as_bytes());
    assert_eq!((off.status, off.code().as_str()), (403, "disabled"));
}
