//! Which engine gets a request, and that the filter alone says by what.

use std::collections::{BTreeMap, BTreeSet};

use prompt_cache_e2e::{
    http::Request,
    world::{CHAT, Options, World, chat, completion, long_prefix, marked},
};
use serde_json::{Value, json};

use crate::fleet::{Fleet, HEADER, Setup};

fn unmarked(topic: usize) -> Value {
    json!({"model": "demo", "messages": [{"role": "user", "content": format!("About {topic}?")}]})
}

#[tokio::test]
async fn a_prefix_has_its_engine_and_without_one_the_tenant_has() {
    let fleet = Fleet::start(Setup {
        concurrency: Some(2),
        ..Setup::default()
    })
    .await;
    for n in 0..24 {
        // A prefix that several tenants share, and unmarked requests of each tenant.
        let topic = n % 8;
        fleet
            .world
            .client
            .call(&chat(
                &format!("tenant-{n}"),
                &marked(&long_prefix(&topic.to_string())),
            ))
            .await;
        for _ in 0..2 {
            fleet
                .world
                .client
                .call(&chat(&format!("tenant-{n}"), &unmarked(n)))
                .await;
        }
    }
    let mut by_prefix: BTreeMap<_, BTreeSet<usize>> = BTreeMap::new();
    let mut by_tenant: BTreeMap<_, BTreeSet<usize>> = BTreeMap::new();
    for (engine, served) in fleet.served() {
        let header = |name| served.request.headers.get(name).map(str::to_owned);
        let engines = match header(HEADER) {
            Some(prefix) => by_prefix.entry(prefix).or_default(),
            None => by_tenant
                .entry(header("authorization").unwrap())
                .or_default(),
        };
        engines.insert(engine);
    }
    for (groups, count) in [(by_prefix, 8), (by_tenant, 24)] {
        assert_eq!(groups.len(), count);
        assert!(
            groups.values().all(|engines| engines.len() == 1),
            "{groups:?}"
        );
        let used: BTreeSet<_> = groups.values().flatten().collect();
        assert!(used.len() > 2, "{groups:?}");
    }
}

/// All values of the header that reached the upstream.
fn values(seen: &Request) -> Vec<&str> {
    let lines = seen.headers.0.iter();
    lines
        .filter(|(name, _)| name.eq_ignore_ascii_case(HEADER))
        .map(|(_, value)| value.as_str())
        .collect()
}

#[tokio::test]
async fn the_header_is_the_first_breakpoints_prefix() {
    let mut world = World::with(Options {
        plugin: json!({"prefix_hash_header": HEADER}),
        ..Options::default()
    })
    .await;
    let mut body = marked(&long_prefix("routed"));
    let mut hashes = BTreeSet::new();
    // Another question, another marker behind the first, another tenant, a client with its own idea.
    for (tenant, question, own) in [("a", "One?", 0), ("a", "Two?", 1), ("b", "Three?", 2)] {
        body["messages"][1]["content"] = json!([
            {"type": "text", "text": question, "cache_control": {"type": "ephemeral"}},
        ]);
        let mut request = chat(tenant, &body);
        for n in 0..own {
            request = request.header(["X-Prompt-Cache-Prefix", HEADER][n], "mine");
        }
        let (_, seen) = world.exchange(&request, &completion(5000)).await;
        let [hash] = values(&seen)[..] else {
            panic!("{:?}", seen.headers);
        };
        hashes.insert(hash.to_owned());
    }
    assert_eq!(hashes.len(), 1, "{hashes:?}");
    let hash = hashes.pop_first().unwrap();
    assert!(
        hash.len() >= 32 && hash.bytes().all(|b| b.is_ascii_hexdigit()),
        "{hash}"
    );

    let (_, seen) = world
        .exchange(
            &chat("a", &marked(&long_prefix("another"))),
            &completion(5000),
        )
        .await;
    assert_ne!(values(&seen), [hash]);
}

/// What a client says itself would let it choose its engine.
#[tokio::test]
async fn a_clients_own_header_never_arrives() {
    let mut world = World::with(Options {
        plugin: json!({"prefix_hash_header": HEADER}),
        ..Options::default()
    })
    .await;
    let mut inactive = marked(&long_prefix("inactive"));
    inactive["model"] = json!("somebody-else's");
    let requests = [
        ("unmarked", chat("a", &unmarked(1))),
        ("inactive model", chat("a", &inactive)),
        (
            "no principal",
            Request::post(CHAT, marked(&long_prefix("free")).to_string()),
        ),
        (
            "no JSON",
            Request::post(CHAT, "{").header("authorization", "Bearer a"),
        ),
        (
            "another path",
            Request::post("/v1/embeddings", "{}").header("authorization", "Bearer a"),
        ),
        ("another method", Request::get("/v1/models")),
    ];
    for (what, request) in requests {
        let request = request
            .header(HEADER, "mine")
            .header("X-Prompt-Cache-Prefix", "mine too");
        let (_, seen) = world.exchange(&request, &json!({})).await;
        assert!(values(&seen).is_empty(), "{what}: {:?}", seen.headers);
    }
}
