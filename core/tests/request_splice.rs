//! What is forwarded: parsing it gives the parsed body without its markers, and every byte that
//! is not part of a marker or an edit is still there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod request_reference;
mod request_support;

use prompt_cache_core::request::{Edits, scan};
use proptest::prelude::*;
use request_reference::plain::{delete, edited};
use request_support::*;
use serde_json::Value;

fn forwarded(body: &[u8], edits: &Edits<'_>) -> Vec<u8> {
    scan(body)
        .unwrap()
        .forwarded(edits)
        .unwrap_or_else(|| body.to_vec())
}

fn strip(body: &str) -> String {
    String::from_utf8(forwarded(body.as_bytes(), &Edits::default())).unwrap()
}

#[test]
fn a_member_goes_with_one_comma_in_every_position() {
    let cases = [
        (r#"{"cache_control":{}}"#, r#"{}"#),
        (r#"{ "cache_control" : {} }"#, r#"{  }"#),
        (r#"{"cache_control":{},"a":1}"#, r#"{"a":1}"#),
        (r#"{"cache_control":{} , "a":1}"#, r#"{ "a":1}"#),
        (r#"{"a":1,"cache_control":{}}"#, r#"{"a":1}"#),
        (r#"{"a":1 , "cache_control":{} }"#, r#"{"a":1  }"#),
        (r#"{"a":1,"cache_control":{},"b":2}"#, r#"{"a":1,"b":2}"#),
        (r#"{"a":1, "cache_control":{}, "b":2}"#, r#"{"a":1, "b":2}"#),
        (r#"{"cache_control":1,"cache_control":2}"#, r#"{}"#),
        (
            r#"{"cache_control":1,"prompt_cache_options":2,"a":3}"#,
            r#"{"a":3}"#,
        ),
        (
            r#"{"a":3,"cache_control":1,"prompt_cache_options":2}"#,
            r#"{"a":3}"#,
        ),
        (
            r#"{"cache_control":1,"a":3,"prompt_cache_options":2}"#,
            r#"{"a":3}"#,
        ),
        (
            r#"{"cache_control":null,"cache_control":2}"#,
            r#"{"cache_control":null}"#,
        ),
        (
            r#"{"cache_control":1,"cache_control":null}"#,
            r#"{"cache_control":null}"#,
        ),
        (r#"{"c\u0061che_control":1,"x":0}"#, r#"{"x":0}"#),
        (
            r#"{"messages":[{"cache_control":1},{"cache_control":1}]}"#,
            r#"{"messages":[{},{}]}"#,
        ),
        (
            r#"{"messages":[{"content":[{"cache_control":1,"prompt_cache_breakpoint":2}],"tool_calls":[{"cache_control":1}]}]}"#,
            r#"{"messages":[{"content":[{}],"tool_calls":[{}]}]}"#,
        ),
        (
            r#"{"tools":[{"cache_control":1}],"tools":[]}"#,
            r#"{"tools":[{}],"tools":[]}"#,
        ),
        (
            r#"{"messages":[{"content":[{"cache_control":1}],"content":""}],"messages":0}"#,
            r#"{"messages":[{"content":[{}],"content":""}],"messages":0}"#,
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(strip(body), expected, "{body}");
    }
}

#[test]
fn data_of_that_name_stays() {
    let cases = [
        r#"{}"#,
        r#"{"cache_control":null,"prompt_cache_options":null}"#,
        r#"{"prompt_cache_breakpoint":{}}"#,
        r#"{"metadata":{"cache_control":{"type":"ephemeral"}}}"#,
        r#"{"tools":[{"function":{"parameters":{"cache_control":{"type":"ephemeral"}}}}]}"#,
        r#"{"tools":[{"prompt_cache_breakpoint":{"mode":"explicit"}}]}"#,
        r#"{"tools":{"cache_control":1}}"#,
        r#"{"tools":[[{"cache_control":1}]]}"#,
        r#"{"messages":{"cache_control":1}}"#,
        r#"{"messages":[{"prompt_cache_breakpoint":{"mode":"explicit"},"prompt_cache_options":1}]}"#,
        r#"{"messages":[{"content":{"cache_control":1}}]}"#,
        r#"{"messages":[{"content":[{"image_url":{"cache_control":1}}]}]}"#,
        r#"{"messages":[{"content":[{"type":"text","text":"\"cache_control\":1"}]}]}"#,
        r#"{"messages":[{"tool_calls":[{"function":{"arguments":{"cache_control":1},"cache_control":1}}]}]}"#,
        r#"{"messages":[{"tool_calls":[{"prompt_cache_breakpoint":1}]}]}"#,
        r#"{"messages":[{"tool_calls":{"cache_control":1}}]}"#,
        r#"{"messages":[{"parts":[{"cache_control":1}]}]}"#,
        r#"{"Cache_Control":1,"cache_control ":1}"#,
    ];
    for body in cases {
        assert_eq!(
            scan(body.as_bytes()).unwrap().forwarded(&Edits::default()),
            None,
            "{body}"
        );
    }
}

#[test]
fn usage_is_asked_for_in_streams_only() {
    let edits = Edits {
        ensure_usage: true,
        cache_salt: None,
    };
    let cases = [
        (
            r#"{"stream":true}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        ),
        (
            r#"{"stream":true,"stream_options":{}}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        ),
        (
            r#"{"stream":true,"stream_options":{ }}"#,
            Some(r#"{"stream":true,"stream_options":{ "include_usage":true}}"#),
        ),
        (
            r#"{"stream_options":{"x":1},"stream":true}"#,
            Some(r#"{"stream_options":{"x":1,"include_usage":true},"stream":true}"#),
        ),
        (
            r#"{"stream_options":{"include_usage":false,"x":1},"stream":true}"#,
            Some(r#"{"stream_options":{"include_usage":true,"x":1},"stream":true}"#),
        ),
        (
            r#"{"stream_options":{"include_usage":null},"stream":true}"#,
            Some(r#"{"stream_options":{"include_usage":true},"stream":true}"#),
        ),
        (
            r#"{"stream_options":{"include_usage":true},"stream":true}"#,
            None,
        ),
        (
            r#"{"stream_options":{"include_usage":false,"include_usage":true},"stream":true}"#,
            None,
        ),
        (
            r#"{"stream_options":{"include_usage":true,"include_usage":false},"stream":true}"#,
            Some(r#"{"stream_options":{"include_usage":true,"include_usage":true},"stream":true}"#),
        ),
        (
            r#"{"stream":true,"stream_options":null}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        ),
        (
            r#"{"stream":true,"stream_options":{},"stream_options":null}"#,
            Some(r#"{"stream":true,"stream_options":{},"stream_options":{"include_usage":true}}"#),
        ),
        (r#"{"stream":true,"stream_options":5}"#, None),
        (r#"{"stream":true,"stream_options":[]}"#, None),
        (r#"{"stream":true,"stream_options":"x"}"#, None),
        (
            r#"{"stream":true,"str\u0065am_options":{"include_us\u0061ge":false}}"#,
            Some(r#"{"stream":true,"str\u0065am_options":{"include_us\u0061ge":true}}"#),
        ),
        (r#"{"stream":false}"#, None),
        (r#"{"stream":1}"#, None),
        (r#"{"stream":"true"}"#, None),
        (r#"{"stream":true,"stream":false}"#, None),
        (
            r#"{"stream":false,"stream":true }"#,
            Some(r#"{"stream":false,"stream":true ,"stream_options":{"include_usage":true}}"#),
        ),
        (r#"{}"#, None),
    ];
    for (body, expected) in cases {
        let got = scan(body.as_bytes()).unwrap().forwarded(&edits);
        let got = got.map(|body| String::from_utf8(body).unwrap());
        assert_eq!(got.as_deref(), expected, "{body}");
        assert_eq!(
            scan(body.as_bytes()).unwrap().forwarded(&Edits::default()),
            None,
            "{body}"
        );
    }
}

#[test]
fn own_request_for_usage_is_remembered() {
    let cases = [
        (r#"{"stream_options":{"include_usage":true}}"#, true),
        (
            r#"{"stream_options":{"include_usage":true},"stream_options":null}"#,
            false,
        ),
        (r#"{"stream_options":{"include_usage":"true"}}"#, false),
        (r#"{"stream_options":{"x":{"include_usage":true}}}"#, false),
        (r#"{"include_usage":true}"#, false),
    ];
    for (body, expected) in cases {
        assert_eq!(
            scan(body.as_bytes()).unwrap().asked_usage(),
            expected,
            "{body}"
        );
    }
}

#[test]
fn the_salt_is_ours() {
    let edits = Edits {
        ensure_usage: true,
        cache_salt: Some("s\"1"),
    };
    let cases = [
        (r#"{}"#, Some(r#"{"cache_salt":"s\"1"}"#)),
        (r#"{"cache_control":{}}"#, Some(r#"{"cache_salt":"s\"1"}"#)),
        (r#"{"a":1}"#, Some(r#"{"a":1,"cache_salt":"s\"1"}"#)),
        (
            r#"{"cache_salt":"mine","a":1}"#,
            Some(r#"{"cache_salt":"s\"1","a":1}"#),
        ),
        (r#"{"cache_salt":"s\"1"}"#, None),
        (
            r#"{"cache_salt":1,"cache_salt":2}"#,
            Some(r#"{"cache_salt":1,"cache_salt":"s\"1"}"#),
        ),
        (
            r#"{"stream":true,"cache_control":{}}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true},"cache_salt":"s\"1"}"#),
        ),
    ];
    for (body, expected) in cases {
        let got = scan(body.as_bytes()).unwrap().forwarded(&edits);
        let got = got.map(|body| String::from_utf8(body).unwrap());
        assert_eq!(got.as_deref(), expected, "{body}");
    }
}

/// Repeats some members of the honoured objects, so that the first or the last may be in effect.
fn with_duplicates(tree: &Json, seed: u64) -> Json {
    let mut tree = tree.clone();
    let mut dice = Dice::new(seed);
    each_carrier(&mut tree, &mut |_, members| {
        if !members.is_empty() && dice.roll(3) == 0 {
            let (name, value) = members[dice.roll(members.len())].clone();
            let value = if dice.roll(2) == 0 { value } else { Null };
            members.insert(dice.roll(members.len() + 1), (name, value));
        }
    });
    tree
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn parse_of_splice_is_delete_of_parse(
        tree in any_request(), markers: u64, space: u64, escapes: u64, duplicates: u64,
        ensure_usage: bool, salt in prop::option::of("[a-z\"\\\\é]{0,4}"),
    ) {
        let tree = with_duplicates(&with_markers(&tree, markers), duplicates);
        let body = print(&tree, Style { space: Some(space), escapes: Some(escapes) });
        let edits = Edits { ensure_usage, cache_salt: salt.as_deref() };
        let out = forwarded(&body, &edits);
        let mut parsed: Value = serde_json::from_slice(&out).unwrap();
        delete(&mut parsed);
        prop_assert_eq!(parsed, edited(&body, &edits), "{}", String::from_utf8_lossy(&body));
        // A second pass finds nothing more to do.
        prop_assert_eq!(scan(&out).unwrap().forwarded(&edits), None);
        prop_assert!(!scan(&out).unwrap().marked());
    }

    #[test]
    fn only_markers_and_their_commas_go(
        tree in any_request(), markers: u64, space: u64, escapes: u64, duplicates: u64,
    ) {
        let tree = with_duplicates(&with_markers(&tree, markers), duplicates);
        let escapes = Some(escapes);
        let expected = print(&without_markers(&tree, false), Style { space: None, escapes });
        let body = print(&tree, Style { space: None, escapes });
        prop_assert_eq!(forwarded(&body, &Edits::default()), &*expected);
        let body = print(&tree, Style { space: Some(space), escapes });
        prop_assert_eq!(squeeze(&forwarded(&body, &Edits::default())), expected);
    }

    #[test]
    fn nothing_to_do_is_no_copy(tree in any_request(), space: u64, escapes: u64) {
        let body = print(&tree, Style { space: Some(space), escapes: Some(escapes) });
        prop_assert_eq!(scan(&body).unwrap().forwarded(&Edits::default()), None);
    }
}
