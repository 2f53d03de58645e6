//! Every kind of message between filter and service, as the two programs really send them:
//! what they say must be in the fixtures that every later release has to read
//! (`core/tests/wire/`, `core/tests/wire_fixtures.rs`). `WIRE_RECORD=FILE` writes the fixture of
//! the release that runs, which `UPGRADE_FROM` may make an older one.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use prompt_cache_core::wire::{CLASSIFY_PATH, COMMIT_PATH, POLICY_PATH, TEXT_CONTENT_TYPE};
use prompt_cache_e2e::{
    client::{Client, Response},
    deadline::PATIENCE,
    faults::Route,
    http::Request,
    layout::Layout,
    world::{Options, World, cache_of, chat, completion, long_prefix, marked},
};
use serde_json::{Map, Value, json};

/// Messages by kind, each said once.
#[derive(Default)]
struct Recording(Map<String, Value>);

impl Recording {
    fn note(&mut self, kind: &str, message: Value) {
        let messages = self.0.entry(kind).or_insert_with(|| json!([]));
        let messages = messages.as_array_mut().unwrap();
        // One of each shape: which members there are, and of which choices.
        let shape = shape(&message);
        if messages.iter().all(|other| self::shape(other) != shape) {
            messages.push(message);
        }
    }
}

/// The paths of a message's members, and what chooses between forms.
fn shape(message: &Value) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    walk(message, "", &mut paths);
    for choice in ["status", "reason", "api"] {
        if let Some(chosen) = message[choice].as_str() {
            paths.insert(format!("/{choice}={chosen}"));
        }
    }
    paths
}

fn walk(value: &Value, path: &str, paths: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                walk(value, &format!("{path}/{name}"), paths);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, path, paths)),
        _ => drop(paths.insert(path.to_owned())),
    }
}

/// The message of a request, and what the service answers to it.
async fn replay(recording: &mut Recording, service: &Client, seen: &Request) {
    let kinds = match seen.target.as_str() {
        CLASSIFY_PATH => ["classify_requests", "classify_answers"],
        COMMIT_PATH => ["commit_batches", "commit_answers"],
        POLICY_PATH => ["", "policies"],
        _ => return,
    };
    if !kinds[0].is_empty() {
        let head = seen.body.split(|byte| *byte == b'\n').next().unwrap();
        recording.note(kinds[0], serde_json::from_slice(head).unwrap());
    }
    let unconditional = Request {
        headers: prompt_cache_e2e::http::Headers(
            seen.headers
                .0
                .iter()
                .filter(|(name, _)| !name.eq_ignore_ascii_case("if-none-match"))
                .cloned()
                .collect(),
        ),
        ..seen.clone()
    };
    let answer: Response = service.call(&unconditional).await;
    if answer.status == 200 {
        recording.note(kinds[1], answer.json());
    }
}

/// Two models, one of which caches requests without markers; what older services do not know is
/// not asked of them.
fn config(older: bool) -> Option<String> {
    let text = "models:\n  - {model: demo, encoding: o200k_base}\n  - {model: auto, encoding: o200k_base, auto: 1h}\n";
    (!older).then(|| text.to_owned())
}

async fn record() -> Recording {
    let older = std::env::var_os("UPGRADE_FROM").is_some();
    let mut world = World::with(Options {
        plugin: json!({"text_at_once_bytes_max": 0}),
        concurrency: Some(1),
        index_config: config(older),
        layout: Some(Layout::of_older_release()),
        ..Options::default()
    })
    .await;
    // Hashes, then the prompt; then a prefix that is known and one that is new.
    let first = chat("a", &marked(&long_prefix("recorded")));
    let (response, _) = world.exchange(&first, &completion(5000)).await;
    assert!(cache_of(&response.usage()).creation() > 1024);
    world.await_commits(1).await;
    let mut grown = marked(&long_prefix("recorded"));
    grown["messages"][1]["content"] = json!([
        {"type": "text", "text": long_prefix("more"), "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]);
    world.exchange(&chat("a", &grown), &completion(9000)).await;
    // Below the floor, and through the other APIs.
    world
        .exchange(&chat("a", &marked("short")), &completion(50))
        .await;
    let body = json!({"model": "demo", "max_tokens": 5, "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": long_prefix("other"), "cache_control": {"type": "ephemeral"}},
        ]},
    ], "input": [
        {"role": "user", "content": [
            {"type": "input_text", "text": long_prefix("other"), "prompt_cache_breakpoint": {"mode": "explicit"}},
        ]},
    ]});
    // Marked by the model's policy.
    let plain = json!({"model": "auto", "prompt": long_prefix("plain")});
    for (path, body) in [
        ("/v1/messages", &body),
        ("/v1/responses", &body),
        ("/v1/completions", &plain),
    ] {
        let request = Request::post(path, body.to_string()).header("authorization", "Bearer a");
        let sent = world.client.send(&request).await;
        // Not every release handles every API, or this body in it.
        let call = world.upstream.next().await;
        call.json(200, completion(5000).to_string()).await;
        sent.finish().await;
    }
    // Reads from leases, until one is reported.
    let end = std::time::Instant::now() + PATIENCE;
    let reads = |world: &World| {
        let mut commits = world.faults.seen(Route::Commit).into_iter();
        commits.any(|call| call.json()["reads"].is_array())
    };
    while !reads(&world) && (!older || std::time::Instant::now() < end - PATIENCE / 2) {
        world.exchange(&first, &completion(5000)).await;
        assert!(std::time::Instant::now() < end, "no read is reported");
    }

    let mut recording = Recording::default();
    let service = Client::new(world.index.address());
    let mut unknown = None;
    for route in [Route::Policy, Route::Classify, Route::Commit] {
        for seen in world.faults.seen(route) {
            replay(&mut recording, &service, &seen).await;
            let with_text = seen.headers.get("content-type") == Some(TEXT_CONTENT_TYPE);
            if route == Route::Classify && !with_text {
                unknown = Some(seen);
            }
        }
    }
    // What the filter asks when the policy has just lost a model.
    let mut unknown = unknown.expect("a classification by hashes");
    let mut body = unknown.json();
    body["model"] = json!("gone");
    unknown.body = body.to_string().into_bytes();
    unknown
        .headers
        .0
        .retain(|(name, _)| !name.eq_ignore_ascii_case("content-length"));
    let answer = service.call(&unknown).await;
    recording.note("classify_answers", answer.json());
    recording
}

#[tokio::test]
async fn what_the_programs_say_is_in_the_fixtures() {
    let recording = record().await;
    if let Some(file) = std::env::var_os("WIRE_RECORD") {
        let text = serde_json::to_string_pretty(&recording.0).unwrap();
        std::fs::write(file, text + "\n").unwrap();
        return;
    }
    let folder = Layout::of_tests().root().join("core/tests/wire");
    let mut known = Recording::default();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let fixture: Map<String, Value> = serde_json::from_str(&text).unwrap();
        for (kind, messages) in fixture {
            for message in messages.as_array().unwrap() {
                known.note(&kind, message.clone());
            }
        }
    }
    for kind in [
        "classify_requests",
        "classify_answers",
        "commit_batches",
        "commit_answers",
        "policies",
    ] {
        let known: BTreeSet<String> = known.0[kind]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(shape)
            .collect();
        for message in recording.0[kind].as_array().unwrap() {
            let new: Vec<_> = shape(message).difference(&known).cloned().collect();
            assert!(
                new.is_empty(),
                "{kind}: {new:?} is in no fixture: add one with WIRE_RECORD (docs/testing.md)"
            );
        }
    }
}
