//! `scan` accepts exactly the bodies that `serde_json` reads as a value, down to the recursion
//! limit and the range of numbers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod request_reference;
mod request_support;

use prompt_cache_core::request::{Opaque, scan};
use proptest::prelude::*;
use request_reference::plain::expected;
use request_support::{Style, any_json, print};

fn check(body: &[u8]) {
    let ours = scan(body).err();
    assert_eq!(ours, expected(body), "{:?}", String::from_utf8_lossy(body));
}

/// Values that RFC 8259 settles, and a few it leaves open.
const VALUES: &[&str] = &[
    "null",
    "true",
    "false",
    "nul",
    "nulll",
    "True",
    "NaN",
    "Infinity",
    "-Infinity",
    "undefined",
    "0",
    "-0",
    "00",
    "01",
    "-01",
    "-",
    "+1",
    "1.",
    ".5",
    "1.5",
    "1.5.5",
    "1e5",
    "1E+5",
    "1e-5",
    "1e",
    "1e+",
    "1e5.5",
    "0e1",
    "0.0e-0",
    "-1e308",
    "1e308",
    "1.8e308",
    "1e309",
    "-1e309",
    "1e-400",
    "1e999",
    "0e999",
    "1e99999999999999999999",
    "0e99999999999999999999",
    "1e-99999999999999999999",
    "0x10",
    "1_000",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "123456789012345678901234567890",
    "0.1234567890123456789012345678901",
    "\"\"",
    "\"a",
    "a\"",
    "'a'",
    "\"\\\"",
    "\"\\\\\"",
    "\"\\a\"",
    "\"\\/\"",
    "\"\\u0041\"",
    "\"\\u004\"",
    "\"\\u004g\"",
    "\"\\U0041\"",
    "\"\\u0000\"",
    "\"\\ud83d\\ude00\"",
    "\"\\ud83d\"",
    "\"\\ude00\"",
    "\"\\ud83d\\u0041\"",
    "\"\\ud83d\\n\"",
    "\"\\ud83dx\"",
    "\"\\uD83D\\uDE0\"",
    "\"\u{7f}\"",
    "\"\u{80}\"",
    "\"\u{feff}\"",
    "\"\u{1f}\"",
    "\"\t\"",
    "\"\n\"",
    "\"\u{0}\"",
    "\"é漢😀\"",
    "[]",
    "[ ]",
    "[",
    "]",
    "[1",
    "[1,]",
    "[,1]",
    "[1 2]",
    "[1,,2]",
    "[1]]",
    "[[]]",
    "{}",
    "{ }",
    "{",
    "}",
    "{1:2}",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\":1,}",
    "{,\"a\":1}",
    "{\"a\":1 \"b\":2}",
    "{\"a\":1,,\"b\":2}",
    "{\"a\" : 1}",
    "{\"a\"::1}",
    "{'a':1}",
    "{a:1}",
    "{\"a\":1,\"a\":2}",
    "{\"a\\u0000\":1}",
    "{\"\\ud800\":1}",
    "/* */ 1",
    "1 // x",
    "# 1",
    "",
    " ",
    "\u{feff}1",
    "\u{a0}1",
    "\u{b}1",
    "\u{c}1",
    "\u{2028}1",
    "1\u{0}",
    "[1}",
    "{\"a\":1]",
];

/// Places a value can have in a body: each goes through another part of the scanner.
const FRAMES: &[(&str, &str)] = &[
    ("", ""),
    (" \t\r\n", " \t\r\n"),
    ("[", "]"),
    ("{\"x\":", "}"),
    ("{\"x\":[[", "]]}"),
    ("{\"model\":", "}"),
    ("{\"stream\":", " }"),
    ("{\"stream_options\":", "}"),
    ("{\"stream_options\":{\"include_usage\":", "}}"),
    ("{\"cache_control\":", ",\"x\":1}"),
    ("{\"prompt_cache_options\":", "}"),
    ("{\"cache_salt\":", "}"),
    ("{\"tools\":", "}"),
    ("{\"tools\":[", "]}"),
    ("{\"tools\":[{\"cache_control\":", "}]}"),
    ("{\"messages\":", "}"),
    ("{\"messages\":[", "]}"),
    ("{\"messages\":[{\"role\":", "}]}"),
    ("{\"messages\":[{\"content\":", "}]}"),
    ("{\"messages\":[{\"content\":[", "]}]}"),
    ("{\"messages\":[{\"content\":[{\"text\":", "}]}]}"),
    ("{\"messages\":[{\"tool_calls\":[", "]}]}"),
    (
        "{\"messages\":[{\"tool_calls\":[{\"cache_control\":",
        "}]}]}",
    ),
    ("{\"x\":1}", ""),
    ("{", ":1}"),
    ("{\"a\":1,", "}"),
];

#[test]
fn corpus_in_every_place() {
    for value in VALUES {
        for (before, after) in FRAMES {
            check(format!("{before}{value}{after}").as_bytes());
        }
    }
}

#[test]
fn bytes_that_are_not_utf8() {
    let broken: [&[u8]; 7] = [
        b"\xff",
        b"\x80",
        b"\xc3",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
    ];
    for bytes in broken {
        for (before, after) in [
            ("{\"a\":\"", "\"}"),
            ("{\"a\":1}", ""),
            ("", "{}"),
            ("{\"", "\":1}"),
        ] {
            let body = [before.as_bytes(), bytes, after.as_bytes()].concat();
            assert_eq!(scan(&body).err(), Some(Opaque::NotUtf8));
        }
    }
    let utf16: Vec<u8> = "{\"a\":1}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert_eq!(scan(&utf16).err(), Some(Opaque::NotJson));
}

#[test]
fn every_kind_of_nesting_ends_at_the_same_depth() {
    for depth in 120..=130 {
        for (before, after) in FRAMES {
            for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"content\":", "}]")] {
                let (open, close) = (open.repeat(depth), close.repeat(depth));
                check(format!("{before}{open}1{close}{after}").as_bytes());
                check(format!("{before}{open}").as_bytes());
            }
        }
    }
    assert_eq!(scan(&vec![b'['; 1 << 20]).err(), Some(Opaque::TooDeep));
}

#[test]
fn every_prefix_of_a_body() {
    let body = r#"{"model":"m\u00e9","messages":[{"role":"user","content":[{"type":"text","text":"a\nb","cache_control":{"type":"ephemeral"}}],"tool_calls":[{"id":"x"}]},null],"tools":[{"a":[1.5e3,-0]}],"stream":true,"stream_options":{"include_usage":null}}"#;
    for end in 0..=body.len() {
        check(&body.as_bytes()[..end]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn generated_values(tree in any_json(), space: u64, escapes: u64, frame in 0..FRAMES.len()) {
        let (before, after) = FRAMES[frame];
        let value = print(&tree, Style { space: Some(space), escapes: Some(escapes) });
        check(&[before.as_bytes(), &value, after.as_bytes()].concat());
    }

    #[test]
    fn soup_of_tokens(tokens in prop::collection::vec(prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"a\"", "\"messages\"", "\"content\"", "\"tools\"",
        "\"cache_control\"", "1", "-", "e5", "null", "true", " ", "\"", "\\", "\\u00", "é", "\n",
    ]), 0..14)) {
        check(tokens.concat().as_bytes());
        check(format!("{{{}}}", tokens.concat()).as_bytes());
    }

    #[test]
    fn numbers(text in "[-+]?[0-9]{0,3}\\.?[0-9]{0,3}([eE][-+]?[0-9]{0,4})?") {
        check(format!("{{\"n\":{text}}}").as_bytes());
    }

    #[test]
    fn long_numbers(digits in 290usize..330, fraction in prop::bool::ANY, exponent in -400i32..400) {
        let digits = "9".repeat(digits);
        let dot = if fraction { ".5" } else { "" };
        check(format!("{{\"n\":{digits}{dot}}}").as_bytes());
        check(format!("{{\"n\":{digits}{dot}e{exponent}}}").as_bytes());
    }

    #[test]
    fn strings_of_any_length_and_any_special_byte(length in 0usize..200, at in 0usize..200, byte: u8) {
        let mut body = format!("{{\"s\":\"{}\"}}", "x".repeat(length)).into_bytes();
        let at = at % body.len();
        body[at] = byte;
        check(&body);
    }
}
