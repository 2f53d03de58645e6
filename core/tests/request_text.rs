//! The text that is counted for a block, where a model has no chat template.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod request_support;

use std::borrow::Cow;

use prompt_cache_core::{
    api::Api,
    request::{scan, scan_as},
};
use proptest::prelude::*;
use request_support::*;

fn texts(body: &[u8]) -> Vec<String> {
    let request = scan(body).unwrap();
    let texts = (0..).map_while(|block| request.block_text(block).map(Cow::into_owned));
    let texts: Vec<String> = texts.collect();
    assert_eq!(texts.len(), request.block_count());
    texts
}

#[test]
fn text_of_each_kind_of_block() {
    let cases: [(&str, &[&str]); 12] = [
        (r#"{}"#, &[]),
        (
            r#"{"messages":[{"content":"a\n\u00e9\ud83d\ude00"}]}"#,
            &["a\né😀"],
        ),
        (
            r#"{"messages":[{"content":[{"type":"text","text":"a"},{"text":"b","cache_control":{}},"c"]}]}"#,
            &["a", "b", "c"],
        ),
        (
            r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"data:x"}},{"type":"refusal","refusal":"no"},{"type":"thinking","thinking":"hm"},{"text":5},5,null,[]]}]}"#,
            &["", "no", "hm", "", "", "", ""],
        ),
        (
            r#"{"messages":[{"role":"user"},{"content":null},{"content":[]},7,"x"]}"#,
            &["", "", "", "", ""],
        ),
        (
            r#"{"messages":[{"content":[{"text":"b"},{"text":"c"}],"reasoning_content":"a","refusal":"d"}]}"#,
            &["adb", "c"],
        ),
        (
            r#"{"messages":[{"reasoning_content":"a","refusal":null,"content":null}]}"#,
            &["a"],
        ),
        (
            r#"{"messages":[{"tool_calls":[{"id":"1"}],"reasoning_content":"a","content":"b"},{"reasoning_content":"c","tool_calls":[ { "x" : 1 } ]}]}"#,
            &["ab", r#"{"id":"1"}"#, r#"c{"x":1}"#],
        ),
        (
            r#"{"messages":[{"content":"m"}],"tools":[{ "cache_control": {}, "f" : { "b":[ 1.50 , true,false,null ], "a\u002f":"\u0041\"\n", "cache_control":{} } , "b":1, "b":2 }]}"#,
            &[
                r#"{"f":{"b":[1.50,true,false,null],"a/":"A\"\n","cache_control":{}},"b":1,"b":2}"#,
                "m",
            ],
        ),
        (
            r#"{"tools":[{"cache_control":null},5,"x"]}"#,
            &["{}", "5", "\"x\""],
        ),
        (
            r#"{"messages":[{"content":"x","content":"y"}],"tools":{}}"#,
            &["y"],
        ),
        (
            r#"{"messages":[{"content":[{"text":"x","text":"y"}]}],"tools":null}"#,
            &["y"],
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(texts(body.as_bytes()), expected, "{body}");
    }
}

#[test]
fn text_of_tools_system_and_messages_in_their_order() {
    let body = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"m"},{"type":"text","text":"n"}]}],"system":[{"type":"text","text":"s"},{"type":"text","text":"t"}],"tools":[{"name":"a"},{"name":"b"},{"name":"c"}]}"#;
    let request = scan_as(Api::Messages, body.as_bytes()).unwrap();
    let texts: Vec<_> = (0..)
        .map_while(|block| request.block_text(block).map(Cow::into_owned))
        .collect();
    let tools = ["a", "b", "c"].map(|name| format!(r#"{{"name":"{name}"}}"#));
    assert_eq!(texts[..3], tools);
    assert_eq!(texts[3..], ["s", "t", "m", "n"]);
}

#[test]
fn plain_text_is_borrowed() {
    let body = br#"{"messages":[{"content":"plain"},{"content":[{"type":"text","text":"too"}]}]}"#;
    let request = scan(body).unwrap();
    for block in 0..2 {
        assert!(matches!(request.block_text(block), Some(Cow::Borrowed(_))));
    }
    assert_eq!(request.block_text(2), None);
    assert_eq!(request.block_text(usize::MAX), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_pure_function_of_what_is_hashed(tree in any_request(), markers: u64, space: u64, escapes: u64) {
        let other = with_markers(&tree, markers);
        let other = print(&other, Style { space: Some(space), escapes: Some(escapes) });
        prop_assert_eq!(texts(&compact(&tree)), texts(&other));
    }
}

#[test]
fn a_part_is_told_as_it_came() {
    let body = br#"{"tools":[{"a":1}],"messages":[{"content":"s"},{"content":[ {"type" : "image_url","cache_control":{}} ,"x",7],"tool_calls":[{"id":"1"}]},{}]}"#;
    let request = scan(body).unwrap();
    let parts: Vec<_> = (0..9).map(|block| request.part_json(block)).collect();
    let mut expected = [None; 9];
    expected[2] = Some(&br#"{"type" : "image_url","cache_control":{}}"#[..]);
    assert_eq!(request.block_count(), 7);
    assert_eq!(parts, expected);
}
