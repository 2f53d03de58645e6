//! `GET /v1/status` and the page's own files.

use prompt_cache_core::wire::LeasedRead;
use serde_json::{Value, json};

use crate::harness::{H1, M5, NOW, Running, agent, chat, principal, request, start, text};

const MODELS: &str = "models:
  - {model: demo, encoding: o200k_base, min_prefix_tokens: 10,
     prices: {input: 2, read: 0.5, write_5m: 2.5, write_1h: 4}}
  - {model: free, encoding: o200k_base, min_prefix_tokens: 10}
currency: EUR
";

fn report(running: &Running) -> Value {
    let answer = running.get("/v1/status", &[]);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn reason(report: &Value, name: &str) -> Option<Value> {
    let reasons = report["reasons"].as_array().unwrap();
    reasons
        .iter()
        .find(|reason| reason["reason"] == name)
        .cloned()
}

#[test]
fn the_report_adds_up_what_was_classified_and_its_price() {
    let running = start(MODELS);
    let five = chat(&[&text(100)]);
    let hour = chat(&[&text(50)]);
    for _ in 0..3 {
        running.exchange(&request(1, &five, &[(0, M5)]), &five);
    }
    running.exchange(&request(2, &hour, &[(0, H1)]), &hour);
    running.exchange(&request(2, &hour, &[(0, H1)]), &hour);
    let now = report(&running);
    assert_eq!(now["v"], 1);
    assert_eq!(
        (&now["ready"], &now["currency"]),
        (&json!("ok"), &json!("EUR"))
    );
    let [demo, free] = &now["models"].as_array().unwrap()[..] else {
        panic!("{now}")
    };
    assert_eq!(
        (&demo["model"], &free["model"]),
        (&json!("demo"), &json!("free"))
    );
    assert_eq!(demo["requests"], 5);
    assert_eq!(demo["hits"], 3);
    assert_eq!(
        demo["tiers"],
        json!([
            {"tier": "5m", "read": 200, "created": 100, "saved": (200.0 * 1.5 - 100.0 * 0.5) / 1e6},
            {"tier": "1h", "read": 50, "created": 50, "saved": (50.0 * 1.5 - 50.0 * 2.0) / 1e6},
        ])
    );
    assert!(
        (demo["saved"].as_f64().unwrap() - 225e-6).abs() < 1e-12,
        "{demo}"
    );
    assert_eq!(
        (&free["saved"], &free["requests"]),
        (&Value::Null, &json!(0))
    );
    for series in ["hour", "day"] {
        let sum = |values: &Value| -> u64 {
            values
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_u64().unwrap())
                .sum()
        };
        let series = &now[series];
        assert_eq!(sum(&series["read"]), 250);
        assert_eq!(sum(&series["created"]["5m"]), 100);
        assert_eq!(sum(&series["created"]["1h"]), 50);
        assert_eq!(sum(&series["requests"]), 5);
    }
    assert_eq!(now["store"]["entries"], 2);
    assert_eq!(
        now["totals"],
        json!({"requests": 5, "hits": 3, "read": 250, "created": 150})
    );
    assert_eq!(now["accounts"], json!([]));
}

#[test]
fn reads_that_a_lease_answered_count_by_request_and_tier() {
    let running = start(MODELS);
    let body = chat(&[&text(100)]);
    let request = request(1, &body, &[(0, H1)]);
    let classified = running.exchange(&request, &body);
    let read = LeasedRead {
        principal: principal(1),
        model: "demo".to_owned(),
        tokenizer_version: classified.tokenizer_version,
        age_ms: 0,
        hashes: vec![request.candidates[0].hash],
        read_tokens: 400,
    };
    let batch = json!({"v": 1, "commits": [], "reads": [read]}).to_string();
    assert_eq!(
        running.post("/v1/commit", &[], batch.as_bytes()).status,
        200
    );
    let demo = &report(&running)["models"][0];
    assert_eq!((&demo["requests"], &demo["hits"]), (&json!(5), &json!(4)));
    assert_eq!(demo["tiers"][0]["tier"], "1h");
    assert_eq!(demo["tiers"][0]["read"], 400);
}

#[test]
fn reasons_are_counted_and_leave_the_hour() {
    let running = start(MODELS);
    let short = chat(&[&text(3)]);
    running.exchange(&request(1, &short, &[(0, M5)]), &short);
    let mut unknown = request(1, &short, &[(0, M5)]);
    unknown.model = "nobody's".to_owned();
    running.ask(&unknown);
    running.ask(&unknown);
    let now = report(&running);
    assert_eq!(reason(&now, "below_floor").unwrap()["hour"], 1);
    assert_eq!(
        reason(&now, "unknown_model").unwrap(),
        json!({"reason": "unknown_model", "hour": 2, "day": 2, "total": 2})
    );
    assert_eq!(reason(&now, "shed_timeout"), None);
    assert!(!now.to_string().contains("nobody's"));
    running.clock.set(NOW + 2 * 3_600_000);
    assert_eq!(
        reason(&report(&running), "unknown_model").unwrap(),
        json!({"reason": "unknown_model", "hour": 0, "day": 2, "total": 2})
    );
}

#[test]
fn only_configured_accounts_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("accounts.yaml");
    let with = |name: &str| {
        let accounts = json!({"accounts": [{"account": name, "keys": [principal(1)]}]});
        std::fs::write(&file, accounts.to_string()).unwrap();
    };
    with("acme");
    let running = start(&format!("{MODELS}accounts_file: {}", file.display()));
    let body = chat(&[&text(30)]);
    running.exchange(&request(1, &body, &[(0, M5)]), &body);
    running.exchange(&request(2, &body, &[(0, M5)]), &body);
    let now = report(&running);
    let expected = json!([{"account": "acme", "model": "demo", "requests": 1, "hits": 0, "read": 0, "created": 30}]);
    assert_eq!(now["accounts"], expected);
    for tenant in [1, 2] {
        let hex = serde_json::to_string(&principal(tenant)).unwrap();
        assert!(!now.to_string().contains(hex.get(1..17).unwrap()), "{now}");
    }
    // An account that is gone is named no more.
    with("umbrella");
    let mut source = prompt_cache_index::upkeep::FileSource::new(file.clone());
    assert!(!running.look(&mut source));
    assert_eq!(report(&running)["accounts"], json!([]));
}

#[test]
fn the_report_asks_for_the_token_and_the_page_holds_nothing() {
    let running = start("auth_token: sesame");
    for headers in [&[][..], &[("authorization", "Bearer wrong")]] {
        assert_eq!(running.get("/v1/status", headers).status, 401);
    }
    let token = [("authorization", "Bearer sesame")];
    let answer = running.get("/v1/status", &token);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["cache-control"], "no-store");
    for (path, kind) in [
        ("/status", "text/html"),
        ("/status/page.css", "text/css"),
        ("/status/page.js", "text/javascript"),
        ("/status/charts.js", "text/javascript"),
        ("/status/icon.svg", "image/svg+xml"),
    ] {
        let answer = running.get(path, &[]);
        assert_eq!(answer.status, 200, "{path}");
        let header = |name: &str| answer.headers[name].to_str().unwrap();
        assert!(header("content-type").starts_with(kind), "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("cache-control"), "no-store");
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"));
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"));
        assert!(!answer.body.contains("demo") && !answer.body.contains("sesame"));
        // Nothing is fetched from elsewhere, and no text becomes markup.
        for never in ["https://", "innerHTML", "style=\"", "onclick"] {
            assert!(!answer.body.contains(never), "{path}: {never}");
        }
    }
    assert_eq!(
        agent()
            .post(format!("{}/status", running.url))
            .send_empty()
            .unwrap()
            .status(),
        405
    );
}

#[test]
fn a_store_that_is_away_is_said_to_be() {
    let running = start(MODELS);
    running
        .faults
        .fail
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let now = report(&running);
    assert_eq!(now["ready"], "store_unavailable");
    assert_eq!(now["store"]["errors"], 1);
}
