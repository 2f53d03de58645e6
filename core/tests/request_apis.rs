//! The APIs beside chat: requests of theirs are made from generated chat requests by moving
//! members to where that API has them, so that the same facts must hold.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod request_reference;
mod request_support;

use prompt_cache_core::{
    PrefixHash,
    api::Api,
    ledger::Tier,
    request::{Edits, Implied, MarkerRules, MixedTtlOrder, scan, scan_as},
};
use proptest::prelude::*;
use request_reference::prefix::rephrased;
use request_support::*;

const APIS: [Api; 3] = [Api::Messages, Api::Responses, Api::Completions];

fn drop_members(value: &mut Json, names: &[&str]) {
    if let Object(members) = value {
        members.retain(|(name, _)| !names.contains(&name.as_str()));
    }
}

fn rename(value: &mut Json, from: &str, to: &str) {
    if let Object(members) = value {
        members.retain(|(name, _)| name != to);
        for (name, _) in members.iter_mut().filter(|(name, _)| name == from) {
            *name = to.to_owned();
        }
    }
}

fn each(value: &mut Json, name: &str, visit: &mut dyn FnMut(&mut Json)) {
    let Object(members) = value else { return };
    for (_, value) in members.iter_mut().filter(|(n, _)| n == name) {
        if let Array(items) = value {
            items.iter_mut().for_each(&mut *visit);
        }
    }
}

/// A part whose text has this API's type.
fn retype(part: &mut Json, kind: &str) {
    let Object(members) = part else { return };
    for (name, value) in members {
        if name == "type" && *value == text("text") {
            *value = text(kind);
        }
    }
}

/// The chat request as one of `api`. Markers stay where the API has them and go elsewhere, where
/// they would be data.
fn of_api(api: Api, chat: &Json) -> Json {
    let mut tree = chat.clone();
    drop_members(&mut tree, &["stream_options"]);
    match api {
        Api::Chat => {}
        Api::Messages => {
            drop_members(&mut tree, &["prompt_cache_options", "system"]);
            each(&mut tree, "messages", &mut |message| {
                drop_members(message, &["cache_control", "tool_calls"]);
                each(message, "content", &mut |part| {
                    drop_members(part, &["prompt_cache_breakpoint"]);
                });
            });
            let system = match tree.get("messages") {
                Some(Array(list)) => list.first().and_then(|first| first.get("content")).cloned(),
                _ => None,
            };
            if let (Some(system @ (Text(_) | Array(_))), Object(members)) = (system, &mut tree) {
                members.push(("system".to_owned(), system));
            }
        }
        Api::Responses => {
            drop_members(
                &mut tree,
                &["previous_response_id", "conversation", "prompt"],
            );
            each(&mut tree, "messages", &mut |message| {
                drop_members(message, &["output"]);
                each(message, "content", &mut |part| retype(part, "input_text"));
                each(message, "tool_calls", &mut |call| {
                    drop_members(call, &["prompt_cache_breakpoint"]);
                });
                rename(message, "tool_calls", "output");
            });
            rename(&mut tree, "messages", "input");
        }
        Api::Completions => {
            drop_members(
                &mut tree,
                &["prompt", "prompt_cache_options", "tools", "messages"],
            );
            rename(&mut tree, "documents", "prompt");
        }
    }
    tree
}

fn hashes(api: Api, tree: &Json, style: Style) -> Vec<PrefixHash> {
    let body = print(tree, style);
    let request = scan_as(api, &body).unwrap();
    let hashes = request.prefix_hashes(&["documents".to_owned()], u32::MAX);
    assert_eq!(hashes.len(), request.block_count());
    hashes
}

/// What the body holds is then no prefix of the prompt.
#[test]
fn a_prompt_that_is_partly_elsewhere_has_no_breakpoints() {
    let marked = r#"[{"role":"user","content":[{"type":"input_text","text":"x","cache_control":{"type":"ephemeral"}}]}]"#;
    let body = |more: &str| format!(r#"{{"model":"m",{more}"input":{marked}}}"#);
    let implied = [
        Implied::Nothing,
        Implied::LastUserMessage,
        Implied::EveryTurn(Tier::OneHour),
    ];
    let table = [
        ("", false),
        (r#""previous_response_id":null,"#, false),
        (r#""metadata":{"conversation":"c"},"#, false),
        (r#""previous_response_id":"r","#, true),
        (r#""conversation":"c","#, true),
        (r#""prompt":{"id":"p"},"#, true),
    ];
    for (more, elsewhere) in table {
        let body = body(more);
        let request = scan_as(Api::Responses, body.as_bytes()).unwrap();
        assert_eq!(request.prompt_elsewhere(), elsewhere, "{more}");
        for implied in implied {
            let rules = MarkerRules {
                tiers: &Tier::ALL,
                default_tier: Tier::FiveMinutes,
                mixed_ttl_order: MixedTtlOrder::Any,
                implied,
            };
            let breakpoints = request.breakpoints(&rules).unwrap();
            assert_eq!(breakpoints.is_empty(), elsewhere, "{more} {implied:?}");
        }
        let unmarked = request.forwarded(&Edits::default()).unwrap();
        let unmarked = String::from_utf8(unmarked).unwrap();
        assert!(!unmarked.contains("cache_control"), "{unmarked}");
    }
}

#[test]
fn only_where_usage_has_to_be_asked_for_is_it_asked_for() {
    let body = br#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
    let asked = |api| scan_as(api, body).unwrap().asked_usage();
    assert!(asked(Api::Chat) && asked(Api::Completions));
    assert!(!asked(Api::Messages) && !asked(Api::Responses));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_forwarded_is_the_request_without_its_markers(
        tree in any_request(), seed: u64, space: Option<u64>, escapes: Option<u64>,
    ) {
        for api in APIS {
            let marked = of_api(api, &with_markers(&tree, seed));
            // Markers that are `null` are none, and stay.
            let plain = of_api(api, &without_markers(&with_markers(&tree, seed), false));
            let style = Style { space, escapes };
            let body = print(&marked, style);
            let request = scan_as(api, &body).unwrap();
            let forwarded = request.forwarded(&Edits::default()).unwrap_or_else(|| body.clone());
            let found = squeeze(&forwarded);
            let expected = squeeze(&print(&plain, Style { space: None, escapes }));
            prop_assert_eq!(
                String::from_utf8_lossy(&found), String::from_utf8_lossy(&expected), "{:?}", api
            );
        }
    }

    #[test]
    fn the_same_prompt_has_the_same_hashes(
        tree in any_request(), seed: u64, space: Option<u64>, escapes: Option<u64>,
    ) {
        for api in APIS {
            let plain = hashes(api, &of_api(api, &tree), Style::default());
            let other = hashes(api, &of_api(api, &rephrased(&tree, seed)), Style { space, escapes });
            prop_assert_eq!(plain, other, "{:?}", api);
        }
    }

    #[test]
    fn another_text_has_other_hashes_from_there_on(tree in any_request(), at: prop::sample::Index) {
        for api in [Api::Messages, Api::Responses] {
            let tree = of_api(api, &tree);
            let name = if api == Api::Responses { "input" } else { "messages" };
            let Some(Array(list)) = tree.get(name) else { continue };
            let texts: Vec<usize> = (0..list.len())
                .filter(|at| matches!(list[*at].get("content"), Some(Text(_))))
                .collect();
            if texts.is_empty() { continue }
            let changed = texts[at.index(texts.len())];
            let mut list = list.clone();
            for (name, value) in list[changed].members_mut().unwrap() {
                if let (true, Text(text)) = (name == "content", value) { text.push('x') }
            }
            let mut other = tree.clone();
            for (member, value) in other.members_mut().unwrap() {
                if member == name { *value = Array(list.clone()) }
            }
            let (a, b) = (hashes(api, &tree, Style::default()), hashes(api, &other, Style::default()));
            prop_assert_eq!(a.len(), b.len());
            let first = a.iter().zip(&b).position(|(a, b)| a != b);
            prop_assert!(first.is_some_and(|first| a.iter().zip(&b).skip(first).all(|(a, b)| a != b)));
        }
    }
}

/// The hash at the last block of a request of the Messages API.
fn message_hash(body: &str) -> PrefixHash {
    let request = scan_as(Api::Messages, body.as_bytes()).unwrap();
    *request.prefix_hashes(&[], u32::MAX).last().unwrap()
}

#[test]
fn messages_that_are_the_same_prompt() {
    let pairs = [
        (
            r#"{"system":"s","messages":[{"role":"user","content":"x"}]}"#,
            r#"{"messages":[{"content":[{"text":"\u0078","type":"text","cache_control":{"type":"ephemeral"}}],"role":"user"}], "system":[{"type":"text","text":"s","cache_control":null}],"model":"m"}"#,
        ),
        (
            r#"{"tools":[{"name":"a"}],"messages":[{"content":[{"type":"tool_result","content":[{"type":"text","text":"x"},5]}]}]}"#,
            r#"{"tools":[{"cache_control":{"type":"ephemeral"},"name":"a"}],"messages":[{"content":[{"content":[{"cache_control":{"type":"ephemeral","ttl":"1h"},"type":"text","text":"x"},5],"type":"tool_result"}]}]}"#,
        ),
        (
            r#"{"system":null,"messages":[{"content":"x"}]}"#,
            r#"{"messages":[{"content":"x"}],"cache_control":{"type":"ephemeral"}}"#,
        ),
    ];
    for (a, b) in pairs {
        assert_eq!(message_hash(a), message_hash(b), "{a}\n{b}");
    }
}

#[test]
fn messages_that_are_different_prompts() {
    let bodies = [
        r#"{"messages":[{"content":"x"}]}"#,
        r#"{"messages":[{"content":"x"}],"system":[]}"#,
        r#"{"messages":[{"content":"x"}],"system":""}"#,
        r#"{"messages":[{"content":"x"}],"system":"s"}"#,
        r#"{"messages":[{"content":"s"},{"content":"x"}]}"#,
        r#"{"messages":[{"content":"x","cache_control":1}]}"#,
        r#"{"messages":[{"content":"x","tool_calls":[1]}]}"#,
        r#"{"messages":[{"content":[{"type":"text","text":"x","prompt_cache_breakpoint":{}}]}]}"#,
        r#"{"messages":[{"content":[{"type":"other","content":[{"text":"x"}]}]}]}"#,
        r#"{"messages":[{"content":[{"type":"other","content":[{"text":"x","cache_control":1}]}]}]}"#,
        r#"{"messages":[{"content":[{"type":"tool_result","content":[{"text":"x"}]}]}]}"#,
        r#"{"messages":[{"content":[{"type":"tool_result","content":[{"text":"x","a":{"cache_control":1}}]}]}]}"#,
        r#"{"messages":[{"content":[{"type":"tool_result","content":"x"}]}]}"#,
    ];
    let mut hashes: Vec<_> = bodies.iter().map(|body| message_hash(body)).collect();
    // Nor is any of them that of a chat request.
    let chat = |body: &&str| {
        *scan(body.as_bytes())
            .unwrap()
            .prefix_hashes(&[], 9)
            .last()
            .unwrap()
    };
    hashes.extend(bodies.iter().take(1).map(chat));
    let distinct: std::collections::HashSet<_> = hashes.iter().collect();
    assert_eq!(distinct.len(), hashes.len());
}
