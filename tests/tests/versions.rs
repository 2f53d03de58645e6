//! Filter and service of different releases: what one of them does not know costs cache entries,
//! never a request, a breaker or a wrong number.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use prompt_cache_e2e::{
    faults::{Fault, Route, Tamper},
    http::Request,
    world::{Options, World, cache_of, chat, completion, long_prefix, marked},
};
use serde_json::{Value, json};

const CLASSIFY: &str = "promptcache_classify_total";
const BYPASS: &str = "promptcache_bypass_total";
const OPENED: &str = "promptcache_breaker_opened_total";

/// One worker, so that a breaker and a policy are the test's own.
fn with_plugin(plugin: Value) -> Options {
    Options {
        plugin,
        concurrency: Some(1),
        ..Options::default()
    }
}

#[tokio::test]
async fn what_the_service_refuses_opens_no_breaker() {
    const REFUSED: u64 = 12;
    let mut world = World::with(with_plugin(json!({"breaker_failures": 2}))).await;
    // What an older service says to an API, a tier or a member that it does not know.
    for status in [400, 404, 413] {
        let answer = json!({"error": {"code": "invalid_request", "message": "malformed request"}});
        world.faults.set(
            Route::Classify,
            Fault::Answer(status, answer.to_string().into()),
        );
        let request = chat("a", &marked(&long_prefix("refused")));
        for _ in 0..REFUSED / 3 {
            let (response, _) = world.exchange(&request, &completion(5000)).await;
            assert_eq!(response.text(), completion(5000).to_string());
        }
    }
    world
        .await_counter(CLASSIFY, &[("outcome", "error")], REFUSED)
        .await;
    world
        .await_counter(BYPASS, &[("reason", "classify_refused")], REFUSED)
        .await;
    // Other questions are asked and answered meanwhile.
    world.faults.set(Route::Classify, Fault::None);
    let request = chat("a", &marked(&long_prefix("accepted")));
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    assert!(cache_of(&response.usage()).five_minutes > 1024);
    let stats = world.stats().await;
    assert_eq!(stats.counter(OPENED, &[]), 0);
    assert_eq!(stats.counter(CLASSIFY, &[("outcome", "error")]), REFUSED);
}

#[tokio::test]
async fn a_service_of_another_version_is_asked_for_its_policy_only() {
    let mut world = World::with(with_plugin(json!({"policy_refresh_ms": 100}))).await;
    let request = chat("a", &marked(&long_prefix("versions")));
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    let written = cache_of(&response.usage()).five_minutes;
    assert!(written > 1024);
    world.await_commits(1).await;

    // As if the service had been replaced by one that has given version 1 up.
    let policy = json!({"v": 1, "speaks": [2, 3], "models": [], "later": {"a": 1}});
    world
        .faults
        .set(Route::Policy, Fault::Answer(200, policy.to_string().into()));
    let end = std::time::Instant::now() + prompt_cache_e2e::deadline::PATIENCE;
    let foreign = [("reason", "wire_version")];
    while world.stats().await.counter(BYPASS, &foreign) == 0 {
        world.exchange(&request, &completion(5000)).await;
        assert!(std::time::Instant::now() < end, "nobody noticed");
    }
    let asked = |world: &World| {
        let seen = |route| world.faults.seen(route).len();
        (seen(Route::Classify), seen(Route::Ready))
    };
    let before = asked(&world);
    for _ in 0..20 {
        let (response, _) = world.exchange(&request, &completion(5000)).await;
        assert_eq!(response.text(), completion(5000).to_string());
    }
    assert_eq!(asked(&world), before, "neither asked nor probed");
    assert_eq!(world.stats().await.counter(OPENED, &[]), 0);

    // And back. What was leased before is no longer trusted: the service is asked.
    world.faults.set(Route::Policy, Fault::None);
    loop {
        let (response, _) = world.exchange(&request, &completion(5000)).await;
        if response.usage().get("cache_read_input_tokens").is_some() {
            assert_eq!(cache_of(&response.usage()).read, written);
            break;
        }
        assert!(std::time::Instant::now() < end, "it is not asked again");
    }
    assert!(asked(&world).0 > before.0);
    world.assert_no_vm_lost().await;
}

/// Adds a member to every object of a message.
fn add_members(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(add_members);
            members.insert("member of a later release".into(), json!({"a": [1, null]}));
        }
        Value::Array(items) => items.iter_mut().for_each(add_members),
        _ => {}
    }
}

fn grow(json: &[u8]) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(json).unwrap();
    add_members(&mut value);
    value.to_string().into_bytes()
}

/// The head of a classification with the prompt is a line of its own.
fn grow_request(request: &mut Request) {
    if request.body.is_empty() {
        return;
    }
    let end = request.body.iter().position(|byte| *byte == b'\n');
    let text = request.body.split_off(end.unwrap_or(request.body.len()));
    request.body = [grow(&request.body), text].concat();
    let length = request.body.len().to_string();
    for (name, value) in &mut request.headers.0 {
        if name.eq_ignore_ascii_case("content-length") {
            value.clone_from(&length);
        }
    }
}

#[tokio::test]
async fn members_of_later_releases_are_ignored_by_both() {
    for plugin in [
        json!({"text_at_once_bytes_max": 0}),
        json!({"lease_bytes_max": 0}),
    ] {
        let mut options = with_plugin(plugin);
        options.without_policy = true;
        let mut world = World::with(options).await;
        world.faults.tamper(Tamper {
            request: grow_request,
            answer: |_, body| {
                if !body.is_empty() {
                    *body = grow(body);
                }
            },
        });
        // The first policy may have come before.
        world.envoy.await_policy().await.unwrap();
        let request = chat("a", &marked(&long_prefix("later")));
        let (response, _) = world.exchange(&request, &completion(5000)).await;
        let written = cache_of(&response.usage()).five_minutes;
        assert!(written > 1024);
        world.await_commits(1).await;
        for _ in 0..3 {
            let (response, _) = world.exchange(&request, &completion(5000)).await;
            assert_eq!(cache_of(&response.usage()).read, written);
        }
        let stats = world.stats().await;
        assert_eq!(stats.counter(CLASSIFY, &[("outcome", "error")]), 0);
        assert!(!world.faults.seen(Route::Commit).is_empty());
    }
}
