//! Two requests have the same prefix hash exactly where their prompts are the same up to there:
//! named cases, a second implementation of `docs/prefix-hash.md`, and its vectors.
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
    request::{scan, scan_as},
};
use proptest::prelude::*;
use request_reference::prefix::{model, mutate, reference, rephrased};
use request_support::*;

fn params() -> Vec<String> {
    [
        "chat_template",
        "chat_template_kwargs",
        "reasoning_effort",
        "documents",
    ]
    .map(Into::into)
    .into()
}

fn hashes(body: impl AsRef<[u8]>) -> Vec<PrefixHash> {
    let request = scan(body.as_ref()).unwrap();
    let hashes = request.prefix_hashes(&params(), u32::MAX);
    assert_eq!(hashes.len(), request.block_count());
    hashes
}

fn equal(a: &str, b: &str) {
    assert_eq!(hashes(a), hashes(b), "{a}\n{b}");
}

/// The hashes differ from block `from` on, and are equal before.
fn differ_from(from: usize, a: &str, b: &str) {
    let (first, second) = (hashes(a), hashes(b));
    assert!(first.len() > from && second.len() > from, "{a}\n{b}");
    for (i, (x, y)) in first.iter().zip(&second).enumerate() {
        assert_eq!(x == y, i < from, "block {i}\n{a}\n{b}");
    }
}

fn differ(a: &str, b: &str) {
    differ_from(0, a, b);
}

/// A request with that one message.
fn message(members: &str) -> String {
    format!(r#"{{"messages":[{{{members}}}]}}"#)
}

/// A request with that one part.
fn part(members: &str) -> String {
    message(&format!(r#""role":"user","content":[{{{members}}}]"#))
}

fn with_tool(tool: &str) -> String {
    format!(r#"{{"tools":[{tool}],"messages":[{{"role":"user","content":"u"}}]}}"#)
}

fn with_top(members: &str) -> String {
    format!(r#"{{"messages":[{{"role":"user","content":"u"}}]{members}}}"#)
}

#[test]
fn string_content_equals_its_one_part_form() {
    let string = message(r#""role":"user","content":"hello\nworld""#);
    equal(&string, &part(r#""type":"text","text":"hello\nworld""#));
    equal(
        &string,
        &part(r#""text":"hello\nworld","type":"text","cache_control":{}"#),
    );
    differ(
        &string,
        &part(r#""type":"text","text":"hello\nworld","x":1"#),
    );
    differ(
        &string,
        &part(r#""type":"input_text","text":"hello\nworld""#),
    );
    differ(&string, &part(r#""text":"hello\nworld""#));
    differ(
        &string,
        &message(r#""role":"user","content":["hello\nworld"]"#),
    );
}

#[test]
fn white_space_between_tokens_is_nothing() {
    equal(
        r#"{"tools":[{"a":[1,{"b":2}]}],"messages":[{"role":"user","content":[{"type":"x","y":[]}]}]}"#,
        " { \"tools\" : [ { \"a\" : [ 1 , { \"b\" :\t2 } ] } ] ,\n\"messages\":[ {\"role\": \"user\",\r\n\"content\":[ { \"type\":\"x\",\"y\":[ ] } ] } ] } ",
    );
    differ(
        &part(r#""type":"text","text":"a b""#),
        &part(r#""type":"text","text":"a  b""#),
    );
}

#[test]
fn escapes_are_what_they_stand_for() {
    equal(
        &message(r#""content":"A\u00e9\ud83d\ude00\/\n""#),
        &message(r#""content":"\u0041é😀/\u000A""#),
    );
    equal(
        &with_tool(r#"{"n\u0061me":"A"}"#),
        &with_tool(r#"{"name":"\u0041"}"#),
    );
    equal(
        &message(r#""r\u006fle":"user""#),
        &message(r#""role":"user""#),
    );
    differ(
        &message(r#""content":"\\u0041""#),
        &message(r#""content":"\u0041""#),
    );
}

#[test]
fn member_order_of_messages_and_parts_is_nothing() {
    equal(
        r#"{"messages":[{"role":"user","name":"n","content":[{"type":"image_url","image_url":{"url":"u"}}]}]}"#,
        r#"{"messages":[{"content":[{"image_url":{"url":"u"},"type":"image_url"}],"name":"n","role":"user"}]}"#,
    );
    equal(
        r#"{"messages":[{"content":"a","tool_calls":[{"id":"1"}]}],"tools":[{"b":1}]}"#,
        r#"{"tools":[{"b":1}],"messages":[{"tool_calls":[{"id":"1"}],"content":"a"}]}"#,
    );
}

#[test]
fn markers_are_nothing_wherever_they_are() {
    let plain = r#"{"tools":[{"a":1}],"messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"y"}],"tool_calls":[{"id":"1"}]}]}"#;
    equal(
        plain,
        r#"{"cache_control":{"type":"ephemeral"},"prompt_cache_options":{"mode":"implicit"},"tools":[{"cache_control":{"type":"ephemeral","ttl":"1h"},"a":1}],"messages":[{"cache_control":5,"role":"user","content":[{"type":"text","cache_control":{},"text":"x"},{"type":"y","prompt_cache_breakpoint":{"mode":"explicit"}}],"tool_calls":[{"id":"1","cache_control":"24h"}]}]}"#,
    );
    equal(
        plain,
        r#"{"cache_control":null,"tools":[{"cache_control":null,"a":1}],"messages":[{"cache_control":null,"role":"user","content":[{"type":"text","cache_control":null,"text":"x"},{"type":"y","prompt_cache_breakpoint":null}],"tool_calls":[{"id":"1","cache_control":null}]}]}"#,
    );
}

#[test]
fn data_of_a_markers_name_is_data() {
    differ(
        &with_tool(r#"{"f":{"cache_control":1}}"#),
        &with_tool(r#"{"f":{}}"#),
    );
    differ(
        &with_tool(r#"{"prompt_cache_breakpoint":1}"#),
        &with_tool("{}"),
    );
    differ(&message(r#""prompt_cache_breakpoint":1"#), &message(""));
    differ(
        &part(r#""image_url":{"cache_control":1}"#),
        &part(r#""image_url":{}"#),
    );
}

#[test]
fn sampling_and_bookkeeping_are_no_part_of_it() {
    let plain = with_top("");
    for member in [
        r#","model":"m""#,
        r#","stream":true,"stream_options":{"include_usage":true}"#,
        r#","temperature":0.5"#,
        r#","user":"u""#,
        r#","metadata":{"a":1}"#,
        r#","tool_choice":"auto""#,
        r#","response_format":{"type":"json_object"}"#,
        r#","cache_salt":"s""#,
        r#","prompt_cache_key":"k""#,
    ] {
        equal(&plain, &with_top(member));
    }
}

#[test]
fn message_boundaries_differ() {
    differ_from(
        1,
        r#"{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#,
    );
    differ(
        &message(r#""content":"ab""#),
        &message(r#""content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]"#),
    );
    differ_from(
        1,
        r#"{"messages":[{"role":"user","content":"a"},{"role":"user"},{"content":"c"}]}"#,
        r#"{"messages":[{"role":"user","content":"a"},{"content":"c"}]}"#,
    );
}

#[test]
fn message_members_differ() {
    let plain = message(r#""role":"user","content":"a""#);
    for other in [
        r#""role":"system","content":"a""#,
        r#""content":"a""#,
        r#""role":null,"content":"a""#,
        r#""role":"user","content":"a","name":"n""#,
        r#""role":"user","content":"a","tool_call_id":"1""#,
        r#""role":"user","content":"a","reasoning_content":"r""#,
        r#""role":"user","content":"a","refusal":null"#,
        r#""role":"user","content":"a","anything":{}"#,
        r#""role":"user","content":"b""#,
        r#""role":"user","content":"""#,
        r#""role":"user","content":null"#,
        r#""role":"user","content":[]"#,
        r#""role":"user","content":{}"#,
        r#""role":"user","content":7"#,
        r#""role":"user","content":"a","tool_calls":[]"#,
        r#""role":"user","content":"a","tool_calls":{}"#,
    ] {
        differ(&plain, &message(other));
    }
    for name in ["name", "tool_call_id", "reasoning_content"] {
        differ(
            &message(&format!(r#""content":"a","{name}":"1""#)),
            &message(&format!(r#""content":"a","{name}":"2""#)),
        );
    }
}

#[test]
fn nothing_is_null_or_absent() {
    equal(
        &message(r#""role":"a","content":null"#),
        &message(r#""role":"a""#),
    );
    equal(
        &message(r#""content":"a","tool_calls":null"#),
        &message(r#""content":"a""#),
    );
    differ(
        &message(r#""role":"a","content":[]"#),
        &message(r#""role":"a""#),
    );
    differ(
        &message(r#""role":"a","content":"""#),
        &message(r#""role":"a""#),
    );
    equal(&with_top(r#","tools":null"#), &with_top(""));
    differ(&with_top(r#","tools":[]"#), &with_top(""));
    differ(
        &with_top(r#","tools":{"a":1}"#),
        &with_top(r#","tools":{"a":2}"#),
    );
}

#[test]
fn order_and_kind_of_parts_differ() {
    let parts = |list: &str| message(&format!(r#""content":[{list}]"#));
    differ(&parts(r#"{"x":1},{"y":1}"#), &parts(r#"{"y":1},{"x":1}"#));
    differ_from(
        1,
        &parts(r#"{"x":1},{"y":1},{"z":1}"#),
        &parts(r#"{"x":1},{"z":1}"#),
    );
    differ(
        &part(r#""type":"image_url","image_url":{"url":"http://a/1"}"#),
        &part(r#""type":"image_url","image_url":{"url":"http://a/2"}"#),
    );
    differ(
        &part(r#""type":"image_url","image_url":{"url":"u","detail":"low"}"#),
        &part(r#""type":"image_url","image_url":{"detail":"low","url":"u"}"#),
    );
    differ(&parts(r#""a""#), &parts("null"));
    differ(&parts(r#"[["a"],"b"]"#), &parts(r#"[["a","b"]]"#));
}

#[test]
fn tool_definitions_differ_in_any_value_and_in_order() {
    let tool = r#"{"type":"function","function":{"name":"f","parameters":{"a":1,"b":[2]}}}"#;
    for other in [
        r#"{"type":"function","function":{"name":"f","parameters":{"b":[2],"a":1}}}"#,
        r#"{"function":{"name":"f","parameters":{"a":1,"b":[2]}},"type":"function"}"#,
        r#"{"type":"function","function":{"name":"f","parameters":{"a":1,"b":[3]}}}"#,
        r#"{"type":"function","function":{"name":"f","parameters":{"a":1.0,"b":[2]}}}"#,
        r#"{"type":"function","function":{"name":"f","parameters":{"a":"1","b":[2]}}}"#,
        r#"{"type":"function","function":{"name":"f","parameters":{"a":1,"b":2}}}"#,
        r#"{"type":"function","function":{"name":"f","parameters":{"a":1,"b":[2],"b":[2]}}}"#,
        r#"[]"#,
    ] {
        differ(&with_tool(tool), &with_tool(other));
    }
    differ(
        &with_tool(r#"{"a":1},{"b":1}"#),
        &with_tool(r#"{"b":1},{"a":1}"#),
    );
    differ_from(1, &with_tool(tool), &with_tool(&format!("{tool},{tool}")));
}

#[test]
fn tool_calls_differ_from_parts_and_by_order_of_members() {
    differ(
        &message(r#""tool_calls":[{"x":1}]"#),
        &message(r#""content":[{"x":1}]"#),
    );
    differ(
        &message(r#""tool_calls":[{"x":1,"y":2}]"#),
        &message(r#""tool_calls":[{"y":2,"x":1}]"#),
    );
    differ_from(
        1,
        &message(r#""content":"a","tool_calls":[{"x":1}]"#),
        &message(r#""content":"a","tool_calls":[{"x":2}]"#),
    );
}

#[test]
fn prompt_shaping_parameters_differ() {
    let plain = with_top("");
    for name in params() {
        differ(&plain, &with_top(&format!(r#","{name}":"a""#)));
        differ(
            &with_top(&format!(r#","{name}":"a""#)),
            &with_top(&format!(r#","{name}":"b""#)),
        );
        equal(&plain, &with_top(&format!(r#","{name}":null"#)));
    }
    differ(
        &with_top(r#","documents":{"a":1,"b":2}"#),
        &with_top(r#","documents":{"b":2,"a":1}"#),
    );
    equal(
        &with_top(r#","documents":[],"reasoning_effort":"low""#),
        &with_top(r#","reasoning_effort":"low","documents":[]"#),
    );
}

#[test]
fn names_of_parameters_are_a_set() {
    let body = with_top(r#","a":1,"b":2,"cache_control":{"type":"ephemeral"}"#);
    let run = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        scan(body.as_bytes()).unwrap().prefix_hashes(&names, 0)
    };
    assert_eq!(run(&["a", "b"]), run(&["b", "a", "b", "absent"]));
    assert_ne!(run(&["a", "b"]), run(&["a"]));
    // What gives the blocks cannot also start the chain.
    assert_eq!(run(&["a", "messages", "tools"]), run(&["a"]));
}

#[test]
fn a_marker_is_no_parameter_even_if_named() {
    let names = ["cache_control", "prompt_cache_options"].map(str::to_owned);
    let run = |body: &str| scan(body.as_bytes()).unwrap().prefix_hashes(&names, 0);
    let plain = run(&with_top(""));
    for marker in [
        r#","cache_control":{"type":"ephemeral"}"#,
        r#","prompt_cache_options":{"mode":"explicit"}"#,
    ] {
        assert_eq!(run(&with_top(marker)), plain);
    }
}

#[test]
fn the_last_of_two_members_counts() {
    equal(
        r#"{"messages":[{"content":"x"}],"messages":[{"content":"y"}]}"#,
        &message(r#""content":"y""#),
    );
    equal(
        &message(r#""content":"x","role":"a","content":"y""#),
        &message(r#""role":"a","content":"y""#),
    );
    equal(
        &message(r#""role":"b","content":"y","role":"a""#),
        &message(r#""role":"a","content":"y""#),
    );
    equal(
        &part(r#""type":"text","text":"x","text":"y""#),
        &message(r#""role":"user","content":"y""#),
    );
    equal(
        &with_top(r#","documents":1,"documents":2"#),
        &with_top(r#","documents":2"#),
    );
    equal(
        &with_top(r#","documents":1,"documents":null"#),
        &with_top(""),
    );
}

#[test]
fn the_chain_stops_at_the_last_block_asked_for() {
    let body = r#"{"tools":[{}],"messages":[{"content":[{},{}]},{"content":"a"}]}"#;
    let all = hashes(body);
    for last in 0..6u32 {
        let some = scan(body.as_bytes())
            .unwrap()
            .prefix_hashes(&params(), last);
        assert_eq!(some, all[..all.len().min(last as usize + 1)]);
    }
    assert_eq!(hashes("{}"), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn agrees_with_the_second_implementation(tree in any_request(), space: u64, escapes: u64) {
        let body = print(&tree, Style { space: Some(space), escapes: Some(escapes) });
        prop_assert_eq!(hashes(body), reference(&model(&tree, &params())));
    }

    #[test]
    fn spelling_and_markers_change_nothing(tree in any_request(), seed: u64, space: u64, escapes: u64) {
        let other = rephrased(&tree, seed);
        let body = print(&other, Style { space: Some(space), escapes: Some(escapes) });
        prop_assert_eq!(hashes(compact(&tree)), hashes(body));
    }

    #[test]
    fn hashes_are_equal_exactly_where_the_prompts_are(tree in any_request(), seeds: [u64; 3]) {
        let mut other = tree.clone();
        for seed in seeds {
            mutate(&mut other, &mut Dice::new(seed));
            if !matches!(other, Object(_)) {
                return Ok(());
            }
            let (ours, theirs) = (model(&tree, &params()), model(&other, &params()));
            let same_start = ours.0 == theirs.0;
            let pairs = hashes(compact(&tree)).into_iter().zip(hashes(compact(&other)));
            for (i, (a, b)) in pairs.enumerate() {
                prop_assert_eq!(a == b, same_start && ours.1[..=i] == theirs.1[..=i], "block {}", i);
            }
        }
    }

    #[test]
    fn strings_around_the_sizes_of_the_buffers(length in 0usize..140_000, escaped: bool, before in 0usize..100) {
        let mut value = "x".repeat(length);
        if escaped {
            value.insert(length / 2, '\n');
        }
        let tree = object([("messages", Array(vec![
            object([("role", Json::String("r".repeat(before * 400))), ("content", Json::String(value))]),
            object([("content", text("end"))]),
        ]))]);
        prop_assert_eq!(hashes(compact(&tree)), reference(&model(&tree, &[])));
    }
}

/// One entry of the vector file.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector<'a> {
    name: String,
    #[serde(default)]
    api: Api,
    params: Vec<String>,
    #[serde(borrow)]
    request: &'a serde_json::value::RawValue,
    hashes: Vec<PrefixHash>,
}

#[test]
fn vectors() {
    let file = include_str!("vectors/prefix.json");
    let vectors: Vec<Vector<'_>> = serde_json::from_str(file).unwrap();
    assert!(vectors.len() > 10);
    for vector in vectors {
        let request = scan_as(vector.api, vector.request.get().as_bytes()).unwrap();
        assert_eq!(
            request.prefix_hashes(&vector.params, u32::MAX),
            vector.hashes,
            "{}",
            vector.name
        );
    }
}
