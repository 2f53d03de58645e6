//! What only requests of the Messages API have: volatile blocks, and a marker of the whole request.

use super::*;

const AGENT: &str = r#"{"model":"m","system":[{"type":"text","text":"x-anthropic-billing-header: cch=1;"},{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":"x"}]}"#;

#[test]
fn volatile_blocks_are_no_part_of_the_prefix() {
    let mut given = Given {
        api: Api::Messages,
        ..Given::default()
    };
    let hashes = |given: &Given, body: &str| match given.forward(body).callout {
        Callout::Ask(request) => request.candidates,
        other => panic!("{other:?}"),
    };
    let other = AGENT.replace("cch=1", "cch=2");
    let without = r#"{"model":"m","system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":"x"}]}"#;
    let marked = without.replace(r#""s""#, r#""s","cache_control":{"type":"ephemeral"}"#);
    assert_eq!(hashes(&given, AGENT), hashes(&given, &other));
    assert_eq!(hashes(&given, AGENT), hashes(&given, &marked));
    let forward = given.forward(AGENT);
    assert_eq!(forward.body.as_deref(), Some(without.as_bytes()));
    let steady = forward.steady.unwrap();
    assert_eq!((steady.body, steady.left_out), (marked.into_bytes(), 1));

    let only_unmarked = AGENT.replace(r#","cache_control":{"type":"ephemeral"}"#, "");
    let forward = given.forward(&only_unmarked);
    assert_eq!(forward.body.as_deref(), Some(without.as_bytes()));

    given.config.forward_volatile_blocks = true;
    assert_eq!(given.forward(&only_unmarked).body, None);
    let forward = given.forward(AGENT);
    assert_eq!(forward.body.as_deref(), Some(only_unmarked.as_bytes()));
    assert!(forward.steady.is_some());

    given.config.volatile_prefixes = Vec::new();
    assert_ne!(hashes(&given, AGENT), hashes(&given, &other));
    assert_eq!(given.forward(AGENT).steady, None);
}

#[test]
fn volatile_blocks_of_a_request_that_is_not_cached_are_forwarded() {
    let given = Given {
        api: Api::Messages,
        ..Given::default()
    };
    let body = AGENT.replace("\"m\"", "\"n\"");
    let forward = given.forward(&body);
    let only_unmarked = body.replace(r#","cache_control":{"type":"ephemeral"}"#, "");
    assert_eq!(forward.body.as_deref(), Some(only_unmarked.as_bytes()));
    assert_eq!(forward.steady, None);
}

#[test]
fn a_marker_is_refused_by_its_place_in_the_client_s_own_body() {
    let given = Given {
        api: Api::Messages,
        ..Given::default()
    };
    let Plan::Refuse(refusal) = given.plan(&AGENT.replace("ephemeral", "x")) else {
        panic!("not refused");
    };
    assert_eq!(refusal.param, "system[1].cache_control");
}

#[test]
fn the_marker_of_the_whole_request_is_counted_in_what_is_refused() {
    let given = Given {
        api: Api::Messages,
        ..Given::default()
    };
    let part = r#"{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}"#;
    let body = format!(
        r#"{{"model":"m","max_tokens":1,"cache_control":{{"type":"ephemeral"}},"messages":[{{"role":"user","content":[{part},{part},{part},{part},{part}]}}]}}"#
    );
    let Plan::Refuse(refusal) = given.plan(&body) else {
        panic!("not refused");
    };
    assert_eq!(refusal.reason, RefusalReason::TooManyBreakpoints);
    assert!(refusal.message.ends_with("Found 6."), "{}", refusal.message);
}
