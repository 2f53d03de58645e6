//! The HTTP surface: refusals, limits, authentication, entity tags, probes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use prompt_cache_core::wire::{Policy, TEXT_CONTENT_TYPE};
use serde_json::{Value, json};

use crate::harness::{H1, M5, Running, chat, request, start, text};

#[test]
fn malformed_classifications_are_refused_with_the_rule() {
    let running = start("");
    let hash = |n: u32| format!("{n:064x}");
    let candidates = |blocks: &[u32]| -> Value {
        blocks
            .iter()
            .map(|n| json!({"block": n, "hash": hash(*n)}))
            .collect()
    };
    let breakpoints = |blocks: &[u32]| -> Value {
        blocks
            .iter()
            .map(|n| json!({"block": n, "tier": "5m"}))
            .collect()
    };
    let good = json!({
        "v": 1, "principal": "ab".repeat(32), "model": "demo",
        "breakpoints": breakpoints(&[1, 2]), "candidates": candidates(&[0, 1, 2]),
    });
    let with = |changes: &[(&str, Value)]| {
        let mut value = good.clone();
        for (key, change) in changes {
            value[*key] = change.clone();
        }
        value
    };
    let eighty_one: Vec<u32> = (0..81).collect();
    let table = [
        (with(&[("v", json!(2))]), "unsupported_version", "version 2"),
        (with(&[("v", json!("1"))]), "invalid_request", "malformed"),
        (
            with(&[("v", json!(2)), ("new", json!(1))]),
            "unsupported_version",
            "version 2",
        ),
        (
            with(&[("principal", json!("abc"))]),
            "invalid_request",
            "64 hex digits",
        ),
        (
            with(&[("model", json!(""))]),
            "invalid_request",
            "model must be",
        ),
        (
            with(&[("model", json!("m".repeat(257)))]),
            "invalid_request",
            "model must be",
        ),
        (
            with(&[("breakpoints", json!([]))]),
            "invalid_request",
            "no breakpoints",
        ),
        (
            with(&[
                ("breakpoints", breakpoints(&[0, 1, 2, 3, 4])),
                ("candidates", candidates(&[0, 1, 2, 3, 4])),
            ]),
            "invalid_request",
            "more than 4 breakpoints",
        ),
        (
            with(&[
                ("breakpoints", breakpoints(&[80])),
                ("candidates", candidates(&eighty_one)),
            ]),
            "invalid_request",
            "more than 80 candidates",
        ),
        (
            with(&[("breakpoints", breakpoints(&[2, 1]))]),
            "invalid_request",
            "ascend",
        ),
        (
            with(&[("breakpoints", breakpoints(&[2, 2]))]),
            "invalid_request",
            "ascend",
        ),
        (
            with(&[("candidates", candidates(&[1, 0, 2]))]),
            "invalid_request",
            "ascend",
        ),
        (
            with(&[("candidates", candidates(&[1, 1, 2]))]),
            "invalid_request",
            "ascend",
        ),
        (
            with(&[("candidates", candidates(&[0, 2]))]),
            "invalid_request",
            "not among",
        ),
        (
            with(&[("candidates", candidates(&[0, 1, 2, 3]))]),
            "invalid_request",
            "after the last",
        ),
        (
            with(&[(
                "candidates",
                json!([{"block": 4294967296u64, "hash": hash(1)}]),
            )]),
            "invalid_request",
            "malformed",
        ),
        (json!([]), "invalid_request", "malformed"),
    ];
    for (body, code, part) in table {
        let answer = running.post("/v1/classify", &[], body.to_string().as_bytes());
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, code),
            "{body}"
        );
        assert!(answer.body.contains(part), "{body}: {}", answer.body);
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    // What newer filters may say more is not looked at.
    let mut newer = with(&[("more", json!({"of": 1}))]);
    newer["breakpoints"][0]["more"] = json!([]);
    newer["candidates"][1]["more"] = json!("x");
    for body in [good, newer] {
        let answer = running.post("/v1/classify", &[], body.to_string().as_bytes());
        assert_eq!(answer.json(), json!({"status": "text_needed", "read": 0}));
    }
}

#[test]
fn malformed_commits_are_refused() {
    let running = start("");
    let commit = |tokens: Value, tier: &str| {
        let write = json!({"hash": "0".repeat(64), "tokens": tokens, "tier": tier});
        json!({"v": 1, "commits": [{"principal": "ab".repeat(32), "model": "demo",
            "tokenizer_version": "v", "age_ms": 0, "writes": [write]}]})
    };
    for (body, part) in [
        (commit(json!(4_294_967_296u64), "5m"), "malformed"),
        (commit(json!(-1), "5m"), "malformed"),
        (commit(json!(1), "2h"), "unknown variant"),
        (json!({"v": 1}), "missing field"),
        (json!({"v": 1, "commits": [{}]}), "missing field"),
    ] {
        let answer = running.post("/v1/commit", &[], body.to_string().as_bytes());
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.body.contains(part), "{body}: {}", answer.body);
    }
}

#[test]
fn a_prompt_that_contradicts_its_head_is_refused() {
    let running = start("");
    let body = chat(&[&text(20), &text(20)]);
    let asked = request(1, &body, &[(1, M5)]);
    for wrong in [&b"not json"[..], b"[]", b"", &chat(&["only one block"])] {
        let answer = running.post_text(&asked, wrong);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "invalid_request")
        );
    }
    let head = serde_json::to_vec(&asked).unwrap();
    let answer = running.post(
        "/v1/classify",
        &[("content-type", TEXT_CONTENT_TYPE)],
        &head,
    );
    assert_eq!(answer.status, 400, "a head without its line end");
    assert_eq!(
        running.classify(&asked, &body).split.creation.five_minutes,
        40
    );
}

#[test]
fn content_type_parameters_and_case_do_not_matter() {
    let running = start("");
    let body = chat(&[&text(20)]);
    let mut bytes = serde_json::to_vec(&request(1, &body, &[(0, M5)])).unwrap();
    bytes.push(b'\n');
    bytes.extend_from_slice(&body);
    let kind = format!("{}; charset=utf-8", TEXT_CONTENT_TYPE.to_uppercase());
    let answer = running.post("/v1/classify", &[("content-type", &kind)], &bytes);
    assert_eq!(answer.json()["status"], "ok", "{}", answer.body);
}

#[test]
fn bodies_over_their_limit_are_413() {
    let running = start(
        "limits: {classify_body_bytes_max: 16384, text_body_bytes_max: 65536, \
         text_bytes_in_flight_max: 65536, commit_body_bytes_max: 16384}",
    );
    let text_type = [("content-type", TEXT_CONTENT_TYPE)];
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let table: [(&str, Headers<'_>, usize); 3] = [
        ("/v1/classify", &[], 16384),
        ("/v1/classify", &text_type, 65536),
        ("/v1/commit", &[], 16384),
    ];
    for (path, headers, limit) in table {
        // White space in JSON, and the end of an empty head.
        let at = running.post(path, headers, &vec![b'\n'; limit]);
        let over = running.announce(path, headers, limit + 1);
        let chunked = raw_chunked(&running.url, path, headers, limit + 1);
        assert_ne!(at.status, 413, "{path}");
        assert_eq!(
            (over.status, over.code().as_str()),
            (413, "body_too_large"),
            "{path}"
        );
        assert!(chunked.starts_with("HTTP/1.1 413"), "{path}: {chunked}");
    }
    // A head may not be longer than a request without the prompt.
    let long_head = running.post(
        "/v1/classify",
        &text_type,
        &[vec![b' '; 20000], vec![b'\n']].concat(),
    );
    assert_eq!(long_head.status, 413);
}

/// Posts `bytes` spaces in one chunk, of which the length is not announced up front and the end
/// never comes: the answer must not wait for it.
fn raw_chunked(url: &str, path: &str, headers: &[(&str, &str)], bytes: usize) -> String {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    let extra: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\n{extra}transfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut chunk = format!("{bytes:x}\r\n").into_bytes();
    chunk.extend(vec![b' '; bytes]);
    stream.write_all(&chunk).unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    String::from_utf8(status.to_vec()).unwrap()
}

#[test]
fn v1_asks_for_the_token_and_probes_do_not() {
    let running = start("auth_token: sesame");
    for headers in [
        &[][..],
        &[("authorization", "Bearer wrong")],
        &[("authorization", "sesame")],
    ] {
        let policy = running.get("/v1/policy", headers);
        assert_eq!(policy.headers["www-authenticate"], "Bearer");
        let classify = running.announce("/v1/classify", headers, 2);
        let commit = running.announce("/v1/commit", headers, 2);
        for answer in [policy, classify, commit] {
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (401, "unauthorized")
            );
        }
    }
    let token = [("authorization", "Bearer sesame")];
    assert_eq!(running.get("/v1/policy", &token).status, 200);
    assert_eq!(running.post("/v1/classify", &token, b"{}").status, 400);
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(running.get(path, &[]).status, 200, "{path}");
    }
}

#[test]
fn the_policy_has_a_strong_tag_that_follows_the_configuration() {
    let running = start("");
    let first = running.get("/v1/policy", &[]);
    let policy: Policy = serde_json::from_str(&first.body).unwrap();
    assert_eq!((policy.v, policy.models[0].model.as_str()), (1, "demo"));
    assert_eq!(policy.models[0].min_prefix_tokens, 10);
    let etag = first.headers["etag"].to_str().unwrap().to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"'));
    let again = running.get("/v1/policy", &[("if-none-match", &etag)]);
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    assert_eq!(again.headers["etag"], etag.as_str());
    let other = start("models: [{model: demo, encoding: cl100k_base, min_prefix_tokens: 10}]");
    let changed = other.get("/v1/policy", &[("if-none-match", &etag)]);
    assert_eq!(changed.status, 200);
    let changed: Policy = serde_json::from_str(&changed.body).unwrap();
    assert_ne!(
        changed.models[0].tokenizer_version,
        policy.models[0].tokenizer_version
    );
}

#[test]
fn the_policy_says_which_models_cache_by_themselves_and_its_tag_follows() {
    // Without an epoch the tag is the configuration's alone.
    let policy = |more: &str| {
        let running = start(&format!(
            "models: [{{model: demo, encoding: o200k_base{more}}}]"
        ));
        running.faults.fail.store(true, Ordering::SeqCst);
        let answer = running.get("/v1/policy", &[]);
        let policy: Policy = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(policy.epoch, "");
        (policy.models[0].auto, answer.headers["etag"].clone())
    };
    let (none, tag) = policy("");
    assert_eq!(policy(""), (none, tag.clone()));
    assert_eq!(none, None);
    let (short, short_tag) = policy(", auto: 5m");
    let (long, long_tag) = policy(", auto: 1h");
    assert_eq!((short, long), (Some(M5), Some(H1)));
    assert!(short_tag != tag && long_tag != tag && short_tag != long_tag);
}

#[test]
fn the_policy_tells_one_ledger_from_another_and_from_itself_before_a_purge() {
    let running = start("");
    let policy = |running: &Running| {
        let answer = running.get("/v1/policy", &[]);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let policy: Policy = serde_json::from_str(&answer.body).unwrap();
        (policy.epoch, answer.headers["etag"].clone())
    };
    let first = policy(&running);
    assert!(!first.0.is_empty());
    assert_eq!(policy(&running), first);
    let elsewhere = policy(&start(""));
    assert_ne!(elsewhere.0, first.0);
    assert_ne!(elsewhere.1, first.1);

    running.purge(&[]);
    running.service.announcer.expire();
    let purged = policy(&running);
    assert_ne!(purged.0, first.0);
    assert_ne!(purged.1, first.1);

    // A store that is gone is no reason to stop serving models.
    running.faults.fail.store(true, Ordering::SeqCst);
    running.service.announcer.expire();
    assert_eq!(policy(&running), purged);
    assert_eq!(
        running.metric("prompt_cache_index_store_errors_total{operation=\"epoch\"}"),
        1.0
    );
}

#[test]
fn other_paths_and_methods_are_refused() {
    let running = start("");
    assert_eq!(running.get("/nowhere", &[]).status, 404);
    assert_eq!(running.get("/nowhere", &[]).code(), "not_found");
    assert_eq!(running.get("/v1/classify", &[]).status, 405);
    assert_eq!(running.post("/v1/policy", &[], b"").status, 405);
}

#[test]
fn metrics_are_open_metrics_text() {
    let running = start("");
    let body = chat(&[&text(20)]);
    running.exchange(&request(1, &body, &[(0, M5)]), &body);
    running.ask(&request(1, &body, &[(0, M5)]));
    let answer = running.get("/metrics", &[]);
    let kind = answer.headers["content-type"].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text"));
    assert!(answer.body.ends_with("# EOF\n"));
    assert!(
        answer
            .body
            .lines()
            .all(|l| l.starts_with('#') || l.starts_with("prompt_cache_index_"))
    );
    for (name, value) in [
        ("prompt_cache_index_classify_total{outcome=\"ok\"}", 2.0),
        (
            "prompt_cache_index_classify_total{outcome=\"text_needed\"}",
            1.0,
        ),
        ("prompt_cache_index_read_tokens_total{model=\"demo\"}", 20.0),
        (
            "prompt_cache_index_created_tokens_total{model=\"demo\",tier=\"5m\"}",
            20.0,
        ),
        (
            "prompt_cache_index_commit_entries_total{outcome=\"written\"}",
            1.0,
        ),
        ("prompt_cache_index_classify_duration_seconds_count", 3.0),
        ("prompt_cache_index_lookup_duration_seconds_count", 3.0),
        ("prompt_cache_index_tokenize_duration_seconds_count", 1.0),
        ("prompt_cache_index_commit_duration_seconds_count", 1.0),
        ("prompt_cache_index_entries", 1.0),
        ("prompt_cache_index_shed_total{reason=\"concurrency\"}", 0.0),
    ] {
        assert_eq!(running.metric(name), value, "{name}");
    }
}
