//! `cache_salt`: tenants share nothing in the engine's cache, and the salt tells nothing of them.

use prompt_cache_core::ledger::Fingerprint;
use prompt_cache_e2e::{
    engine::Engine,
    http::Request,
    world::{CHAT, Options, World, completion, long_prefix},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::fleet::{Fleet, Setup};

const SECRET: &str = "the key of fingerprints";

/// An API, and a marked request of it.
struct Case {
    target: &'static str,
    body: fn(&str) -> Value,
}

/// Those that the filter handles.
const CASES: [Case; 4] = [
    Case {
        target: CHAT,
        body: |prefix| {
            json!({"model": "demo", "messages": [
                {"role": "system", "content": [part(prefix)]}, {"role": "user", "content": "And now?"},
            ]})
        },
    },
    Case {
        target: "/v1/messages",
        body: |prefix| {
            json!({"model": "demo", "max_tokens": 9, "system": [part(prefix)], "messages": [
                {"role": "user", "content": "And now?"},
            ]})
        },
    },
    Case {
        target: "/v1/responses",
        body: |prefix| {
            let part = json!({
                "type": "input_text", "text": prefix, "prompt_cache_breakpoint": {"mode": "explicit"},
            });
            json!({"model": "demo", "input": [
                {"role": "system", "content": [part]}, {"role": "user", "content": "And now?"},
            ]})
        },
    },
    Case {
        target: "/v1/completions",
        body: |prefix| json!({"model": "demo", "prompt": prefix, "cache_control": {"type": "ephemeral"}}),
    },
];

fn part(text: &str) -> Value {
    json!({"type": "text", "text": text, "cache_control": {"type": "ephemeral"}})
}

fn request(case: &Case, key: &str, body: &Value) -> Request {
    Request::post(case.target, body.to_string()).header("authorization", &format!("Bearer {key}"))
}

fn options(salted: bool) -> Options {
    Options {
        plugin: json!({"cache_salt": salted, "fingerprint_key": SECRET}),
        concurrency: Some(2),
        ..Options::default()
    }
}

/// The salt with which the request arrived.
async fn salt(world: &mut World, request: &Request) -> String {
    let (_, seen) = world.exchange(request, &completion(5000)).await;
    let salt = &seen.json()["cache_salt"];
    salt.as_str().unwrap_or_else(|| panic!("{salt}")).to_owned()
}

#[tokio::test]
async fn a_tenant_has_one_salt_everywhere_and_no_other_has_it() {
    let mut salts = vec![];
    // The second time in another Envoy with another index service.
    for _ in 0..2 {
        let mut world = World::with(options(true)).await;
        for case in &CASES {
            let mut body = (case.body)(&long_prefix("salted"));
            for key in ["alice", "bob"] {
                // Enough connections for both workers, with one body and then another.
                for n in 0..6 {
                    body["seed"] = json!(n / 3);
                    salts.push((key, salt(&mut world, &request(case, key, &body)).await));
                }
            }
            // Unmarked requests are cached by the engine as well.
            let body = json!({
                "model": "demo", "max_tokens": 9, "messages": [{"role": "user", "content": "?"}],
                "input": "?", "prompt": "?",
            });
            salts.push((
                "alice",
                salt(&mut world, &request(case, "alice", &body)).await,
            ));
            // The same key, as clients of the other API send it.
            let other = Request::post(case.target, body.to_string()).header("x-api-key", "alice");
            salts.push(("alice", salt(&mut world, &other).await));
        }
    }
    let of = |key| {
        let all: Vec<_> = salts
            .iter()
            .filter(|(k, _)| *k == key)
            .map(|(_, salt)| salt)
            .collect();
        assert!(all.iter().all(|salt| *salt == all[0]), "{all:?}");
        all[0].clone()
    };
    let [alice, bob] = [of("alice"), of("bob")];
    assert_ne!(alice, bob);
    for (key, salt) in [("alice", &alice), ("bob", &bob)] {
        assert!(salt.len() >= 43, "as long as engines advise: {salt}");
        let fingerprint = Fingerprint::of(SECRET.as_bytes(), key.as_bytes())
            .unwrap()
            .to_string();
        let digests = [
            key.to_owned(),
            hex(&Sha256::digest(key)),
            hex(&Sha256::digest(&fingerprint)),
            fingerprint,
        ];
        assert!(
            digests.iter().all(|known| !salt.contains(known.as_str())),
            "{salt}"
        );
    }

    // It is the secret's as well: who does not know it cannot compute a tenant's salt from its key.
    let mut other = options(true);
    other.plugin["fingerprint_key"] = json!("another");
    let mut world = World::with(other).await;
    let body = (CASES[0].body)(&long_prefix("salted"));
    assert_ne!(
        salt(&mut world, &request(&CASES[0], "alice", &body)).await,
        alice
    );
}

#[tokio::test]
async fn a_clients_own_salt_is_replaced() {
    let mut world = World::with(options(true)).await;
    for case in &CASES {
        let body = (case.body)(&long_prefix("own"));
        let ours = salt(&mut world, &request(case, "bob", &body)).await;
        let text = body.to_string();
        let members = text
            .strip_prefix('{')
            .and_then(|t| t.strip_suffix('}'))
            .unwrap();
        let with = |own: &str| {
            [
                format!("{{{own},{members}}}"),
                format!("{{{members}, {own} }}"),
            ]
        };
        for member in [
            r#""cache_salt":"alice's""#,
            r#""cache_salt":null"#,
            r#""cache_salt":{"a":["}"]}"#,
            r#""cache\u005fsalt":"alice's""#,
            r#""cache_salt":"one","cache_salt":"two""#,
        ] {
            for body in with(member) {
                let request =
                    Request::post(case.target, body.clone()).header("authorization", "Bearer bob");
                assert_eq!(salt(&mut world, &request).await, ours, "{member}");
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_added_where_it_is_off_or_nobody_is_known() {
    let expect = async |world: &mut World, case: &Case, key: Option<&str>, model: &str| {
        for own in [None, Some("mine")] {
            let mut body = (case.body)(&long_prefix("plain"));
            body["model"] = json!(model);
            if let Some(own) = own {
                body["cache_salt"] = json!(own);
            }
            let mut request = Request::post(case.target, body.to_string());
            if let Some(key) = key {
                request = request.header("authorization", &format!("Bearer {key}"));
            }
            let (_, seen) = world.exchange(&request, &completion(5000)).await;
            assert_eq!(
                seen.json().get("cache_salt"),
                own.map(|own| json!(own)).as_ref()
            );
        }
    };
    let mut off = World::with(options(false)).await;
    let mut on = World::with(options(true)).await;
    for case in &CASES {
        expect(&mut off, case, Some("alice"), "demo").await;
        expect(&mut on, case, Some("alice"), "somebody-else's").await;
        expect(&mut on, case, None, "demo").await;
    }
}

/// Cached tokens of bob's first request, after alice sent the same prompt, and of his second.
async fn bobs_hits(salted: bool, case: &Case) -> (usize, usize) {
    let fleet = Fleet::start(Setup {
        plugin: json!({"cache_salt": salted}),
        ..Setup::default()
    })
    .await;
    let body = (case.body)(&long_prefix("the same for both"));
    let mut hits = vec![];
    for key in ["alice", "bob", "bob"] {
        let before = fleet.tokens().cached;
        let response = fleet.world.client.call(&request(case, key, &body)).await;
        assert_eq!(response.status, 200, "{}", response.text());
        hits.push(fleet.tokens().cached - before);
    }
    let used = |engine: &&Engine| !engine.served().is_empty();
    assert_eq!(
        fleet.engines.iter().filter(used).count(),
        1,
        "one prefix, one engine"
    );
    assert_eq!(hits[0], 0);
    (hits[1], hits[2])
}

#[tokio::test]
async fn a_tenants_blocks_are_its_own_in_the_engine() {
    for case in &CASES {
        let (first, second) = bobs_hits(true, case).await;
        assert_eq!(first, 0, "{}", case.target);
        assert!(second > 1024, "{}", case.target);
        // Without a salt he finds what alice has left there.
        let (first, second) = bobs_hits(false, case).await;
        assert!(first > 1024 && first == second, "{}", case.target);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
