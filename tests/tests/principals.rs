//! Who pays: every source of a principal, and the token between the two programs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use prompt_cache_e2e::{
    http::Request,
    world::{CHAT, Options, World, cache_of, completion, long_prefix, marked},
};
use serde_json::json;

/// The same marked request, with these headers.
fn request(headers: &[(&str, &str)]) -> Request {
    let body = marked(&long_prefix("one prompt for all")).to_string();
    headers
        .iter()
        .fold(Request::post(CHAT, body), |request, (name, value)| {
            request.header(name, value)
        })
}

#[tokio::test]
async fn one_key_is_one_principal_and_a_tenant_called_like_it_is_another() {
    let mut world = World::with(Options {
        plugin: json!({"principal": ["authorization_bearer", "x_api_key", {"header": "x-tenant"}]}),
        ..Options::default()
    })
    .await;
    // Headers, and whether somebody paid for this principal's prefix before.
    let cases: [(&[(&str, &str)], bool); 8] = [
        (&[("authorization", "Bearer sk-1")], false),
        (&[("authorization", "bearer   sk-1 ")], true),
        (&[("x-api-key", "sk-1")], true),
        (&[("x-tenant", "sk-1")], false),
        (&[("x-tenant", "sk-1"), ("x-api-key", " ")], true),
        (&[("x-api-key", "sk-2")], false),
        // The first source that is present counts.
        (
            &[("x-api-key", "sk-2"), ("authorization", "Bearer sk-1")],
            true,
        ),
        (
            &[("x-api-key", "sk-3"), ("authorization", "Basic sk-1")],
            false,
        ),
    ];
    let mut commits = 0;
    for (headers, paid) in cases {
        let (response, _) = world.exchange(&request(headers), &completion(5000)).await;
        let cached = cache_of(&response.usage());
        assert_eq!(cached.read > 0, paid, "{headers:?}");
        assert_eq!(cached.creation() > 0, !paid, "{headers:?}");
        if !paid {
            commits += 1;
            world.await_commits(commits).await;
        }
    }
    let (response, _) = world.exchange(&request(&[]), &completion(5000)).await;
    assert!(response.usage().get("cache_read_input_tokens").is_none());
}

#[tokio::test]
async fn the_token_between_the_programs_opens_every_call() {
    let index_config = r#"
auth_token: between-us
models:
  - { model: demo, encoding: o200k_base }
"#;
    let mut world = World::with(Options {
        plugin: json!({"index_token": "between-us"}),
        index_config: Some(index_config.to_owned()),
        ..Options::default()
    })
    .await;
    let request = request(&[("authorization", "Bearer k")]);
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    assert!(cache_of(&response.usage()).five_minutes > 1024);
    world.await_commits(1).await;
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    assert!(cache_of(&response.usage()).read > 1024);
}
