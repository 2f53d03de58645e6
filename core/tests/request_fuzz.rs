//! Mutated bodies: nothing panics, whatever the bytes, and what is accepted is consistent.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod request_reference;
mod request_support;

use prompt_cache_core::api::Api;
use prompt_cache_core::request::{Edits, scan, scan_as};
use request_reference::consistent::exercise;
use request_support::Dice;

const SEEDS: &[&str] = &[
    r#"{"model":"m","messages":[{"role":"system","content":"be\nbrief","cache_control":{"type":"ephemeral"}},{"role":"user","content":[{"type":"text","text":"h\u00e9 \ud83d\ude00","cache_control":{"type":"ephemeral","ttl":"1h"}},{"type":"image_url","image_url":{"url":"data:x"},"prompt_cache_breakpoint":{"mode":"explicit"}}]},{"role":"assistant","content":null,"tool_calls":[{"id":"1","function":{"name":"f","arguments":"{}"},"cache_control":{"type":"ephemeral","ttl":"24h"}}]}],"stream":true,"stream_options":{"include_usage":false}}"#,
    r#" { "tools" : [ { "type":"function" , "cache_control":{"type":"ephemeral"} } , 1.5e3 ] , "messages" : [ ] , "cache_control" : {"type":"ephemeral","ttl":"5m"} , "prompt_cache_options":{"mode":"implicit","ttl":"30m"} , "documents":[null,true,false,{}] , "stream_options":null } "#,
    r#"{"messages":[{"content":[{"text":"a"}],"content":"b","cache_control":null},[],0,"x",null,{}],"messages":[{"role":"tool","content":[[],"s",{}],"tool_calls":[],"reasoning_content":"r"}]}"#,
];

/// Bytes that mean something, to be put into a body.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u",
    "\\ud83d",
    "null",
    "true",
    "1e309",
    "-",
    " ",
    "\n",
    "\u{0}",
    "é",
    "\"cache_control\":",
    "\"content\":[",
    "\"messages\":[{",
    "\"ttl\":\"1h\"",
    "\"type\":\"ephemeral\",",
    "\"mode\":\"explicit\"",
    "\"tools\":",
    "\"stream\":true,",
];

fn mutate(dice: &mut Dice, body: &mut Vec<u8>) {
    let at = dice.roll(body.len() + 1);
    let end = (at + dice.roll(24)).min(body.len());
    match dice.roll(6) {
        0 => drop(body.drain(at..end)),
        1 => {
            let piece = PIECES[dice.roll(PIECES.len())];
            drop(body.splice(at..at, piece.bytes()));
        }
        2 => {
            let copy = body[at..end].to_vec();
            let to = dice.roll(body.len() + 1);
            drop(body.splice(to..to, copy));
        }
        3 if at < body.len() => body[at] = dice.roll(256) as u8,
        4 if at < body.len() => body[at] ^= 1 << dice.roll(8),
        _ => {
            let other = SEEDS[dice.roll(SEEDS.len())].as_bytes();
            let from = dice.roll(other.len());
            let to = (from + dice.roll(40)).min(other.len());
            drop(body.splice(at..at, other[from..to].iter().copied()));
        }
    }
}

#[test]
fn mutated_bodies() {
    let rounds = std::env::var("FUZZ_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(8_000);
    let mut dice = Dice::new(0x9e37_79b9_7f4a_7c15);
    let mut accepted = 0;
    for round in 0..rounds {
        let mut body = SEEDS[round % SEEDS.len()].as_bytes().to_vec();
        for _ in 0..dice.roll(6) {
            mutate(&mut dice, &mut body);
        }
        accepted += usize::from(exercise(&body));
    }
    // The mutations are mild enough to reach beyond the reader.
    assert!(accepted * 20 > rounds, "{accepted} of {rounds}");
}

#[test]
fn limits_end_in_a_reason_and_in_time() {
    let cases: Vec<(String, Option<&str>)> = vec![
        (
            format!("{{\"messages\":[{}]}}", vec!["0"; 65_536].join(",")),
            None,
        ),
        (
            format!("{{\"messages\":[{}]}}", vec!["0"; 65_537].join(",")),
            Some("too_many_blocks"),
        ),
        (
            format!("{{\"tools\":[{}]}}", vec!["0"; 65_537].join(",")),
            Some("too_many_blocks"),
        ),
        (
            format!(
                "{{\"messages\":[{{\"content\":[{}]}}]}}",
                vec!["0"; 65_537].join(",")
            ),
            Some("too_many_blocks"),
        ),
        (
            format!(
                "{{\"messages\":[{{\"content\":\"\",\"tool_calls\":[{}]}}]}}",
                vec!["0"; 65_535].join(",")
            ),
            None,
        ),
        (
            format!(
                "{{\"messages\":[{{\"content\":\"\",\"tool_calls\":[{}]}}]}}",
                vec!["0"; 65_536].join(",")
            ),
            Some("too_many_blocks"),
        ),
        (
            format!("{{{}}}", vec!["\"cache_control\":0"; 65_536].join(",")),
            None,
        ),
        (
            format!("{{{}}}", vec!["\"cache_control\":0"; 65_537].join(",")),
            Some("too_many_markers"),
        ),
        (
            format!(
                "{{\"messages\":[{{{}}}]}}",
                vec!["\"a\":0"; 1_024].join(",")
            ),
            None,
        ),
        (
            format!(
                "{{\"messages\":[{{{}}}]}}",
                vec!["\"a\":0"; 1_025].join(",")
            ),
            Some("too_many_members"),
        ),
        (
            format!("{{{}}}", vec!["\"messages\":[{}]"; 100_000].join(",")),
            None,
        ),
        (
            format!(
                "{{\"messages\":[{{{}}}]}}",
                vec!["\"content\":[0,0]"; 1_024].join(",")
            ),
            None,
        ),
    ];
    for (body, expected) in cases {
        let got = scan(body.as_bytes());
        assert_eq!(
            got.as_ref().err().map(|reason| reason.as_str()),
            expected,
            "{:.60}",
            body
        );
        if let Ok(request) = got {
            assert_eq!(
                request.prefix_hashes(&[], u32::MAX).len(),
                request.block_count()
            );
            request.forwarded(&Edits::default());
        }
    }
}

/// In the Messages API the `content` of a part holds markers where the part is a tool's result;
/// of any other it is data, however often it stands there.
#[test]
fn markers_inside_other_parts_are_data() {
    let inside = vec![r#"{"cache_control":0}"#; 63].join(",");
    let contents = vec![format!(r#""content":[{inside}]"#); 1_000].join(",");
    let body = |before: &str, kind: &str, after: &str| {
        format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":[{{{before}"type":"{kind}",{contents}{after}}}]}}]}}"#
        )
    };
    let (mark, kept) = (
        r#""cache_control":{"type":"ephemeral"}"#,
        body("", "document", ""),
    );
    for marked in [
        body(&format!("{mark},"), "document", ""),
        body("", "document", &format!(",{mark}")),
    ] {
        let request = scan_as(Api::Messages, marked.as_bytes()).unwrap();
        let forwarded = request.forwarded(&Edits::default()).unwrap();
        assert!(forwarded == kept.as_bytes(), "only its own marker goes");
    }
    let result = body("", "tool_result", "");
    let request = scan_as(Api::Messages, result.as_bytes()).unwrap();
    let forwarded = request.forwarded(&Edits::default()).unwrap();
    let stripped = result.replace(r#"{"cache_control":0}"#, "{}");
    assert!(forwarded == stripped.as_bytes(), "all of them go");
}
