//! Any chunking of the same bytes gives the same bytes: every transcript, every line ending,
//! every offset, the answer before, between and after; and the result is the reference's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::string_slice)]

mod response_reference;

use prompt_cache_core::{
    ledger::{Split, TierTokens},
    response::{Answer, BodyKind, Output, RewriteOptions, Rewriter},
};
use proptest::prelude::*;
use response_reference::{
    may_be_capped, readable, rewrite,
    run::{NEVER, cut_up, run, show},
};

const SPLIT: Answer = Answer::Split(Split {
    read: 1000,
    creation: TierTokens {
        five_minutes: 200,
        one_hour: 40,
        day: 0,
    },
});

const TRANSCRIPTS: [(&str, &str); 22] = [
    ("azure", include_str!("transcripts/azure.sse")),
    ("deepseek", include_str!("transcripts/deepseek.sse")),
    ("error_event", include_str!("transcripts/error_event.sse")),
    (
        "error_mid_stream",
        include_str!("transcripts/error_mid_stream.sse"),
    ),
    (
        "error_openrouter",
        include_str!("transcripts/error_openrouter.sse"),
    ),
    ("escaped_key", include_str!("transcripts/escaped_key.sse")),
    ("fields", include_str!("transcripts/fields.sse")),
    ("groq", include_str!("transcripts/groq.sse")),
    ("mistral", include_str!("transcripts/mistral.sse")),
    ("multi_byte", include_str!("transcripts/multi_byte.sse")),
    ("no_done", include_str!("transcripts/no_done.sse")),
    ("ollama", include_str!("transcripts/ollama.sse")),
    ("openai", include_str!("transcripts/openai.sse")),
    ("openrouter", include_str!("transcripts/openrouter.sse")),
    ("reasoning", include_str!("transcripts/reasoning.sse")),
    ("sglang", include_str!("transcripts/sglang.sse")),
    ("tgi", include_str!("transcripts/tgi.sse")),
    ("tool_calls", include_str!("transcripts/tool_calls.sse")),
    ("two_usages", include_str!("transcripts/two_usages.sse")),
    (
        "usage_after_done",
        include_str!("transcripts/usage_after_done.sse"),
    ),
    ("vllm", include_str!("transcripts/vllm.sse")),
    (
        "vllm_continuous",
        include_str!("transcripts/vllm_continuous.sse"),
    ),
];

const JSON_BODIES: [&str; 12] = [
    r#"{"id":"chatcmpl-1","choices":[{"index":0,"message":{"role":"assistant","content":"see \"usage\": {"},"finish_reason":"stop"}],"usage":{"prompt_tokens":2006,"completion_tokens":3,"total_tokens":2009,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0}},"system_fingerprint":"fp"}"#,
    "{\n  \"usage\" : {\n    \"prompt_tokens\" : 1200.0\n  },\n  \"x\" : [ 1e3, { \"usage\" : { } } ]\n}\n",
    r#"{"us\u0061ge":{"prompt_tokens":12},"usage":null,"usage":{"prompt_tokens":1300,"cache_read_input_tokens":1}}"#,
    r#"{"error":{"message":"x"},"usage":{}}"#,
    r#"{"error":null,"usage":[{}]}"#,
    r#"[{"usage":{"prompt_tokens":1}}]"#,
    r#"{"usage":{"prompt_tokens":1}} x"#,
    r#"{"usage":{"prompt_tokens":1}"#,
    r#"{"usage":{"prompt_tokens":1},"a":01}"#,
    r#"{"a":{"usage":{}},"b":"\\\"usage\":{}\u00e9","é":"🦀"}"#,
    "",
    "upstream connect error",
];

fn options(kind: BodyKind) -> RewriteOptions {
    RewriteOptions {
        kind,
        drop_usage_only: false,
        event_bytes_max: 1 << 20,
        held_bytes_max: 1 << 18,
        scrub: false,
    }
}

/// Whether the moment of the answer can matter: there are usage frames that do not wait.
fn has_continuous_usage(name: &str) -> bool {
    matches!(name, "vllm_continuous" | "openrouter")
}

fn line_endings(text: &str) -> [Vec<u8>; 3] {
    ["\n", "\r\n", "\r"].map(|end| text.replace('\n', end).into_bytes())
}

fn variants(kind: BodyKind) -> [(RewriteOptions, Answer); 4] {
    let options = options(kind);
    [
        (options, SPLIT),
        (
            RewriteOptions {
                drop_usage_only: true,
                ..options
            },
            SPLIT,
        ),
        (
            RewriteOptions {
                drop_usage_only: true,
                ..options
            },
            Answer::Inactive,
        ),
        (
            RewriteOptions {
                scrub: true,
                ..options
            },
            Answer::Inactive,
        ),
    ]
}

fn check(name: &str, body: &[u8], kind: BodyKind) {
    for (i, (options, answer)) in variants(kind).into_iter().enumerate() {
        for late in [false, true] {
            let expected = rewrite(body, options, answer, late);
            let at = if late { NEVER } else { 0 };
            let whole = run([body], options, answer, at);
            assert_eq!(
                show(&whole),
                show(&expected),
                "{name} whole {options:?} late {late}"
            );
            // Every offset for two variants, every seventh for the others.
            let step = if late == (i == 1) && i < 2 { 1 } else { 7 };
            for offset in (1..body.len()).step_by(step) {
                let (a, b) = body.split_at(offset);
                let found = run([a, b], options, answer, at);
                assert!(found == expected, "{name} at {offset}: {}", show(&found));
                // An inactive answer lets the rest of a JSON body pass without a look.
                let blind = kind == BodyKind::Json && i == 2;
                if late && !blind && !has_continuous_usage(name) {
                    let found = run([a, b], options, answer, 1);
                    assert!(
                        found == expected,
                        "{name} answered at {offset}: {}",
                        show(&found)
                    );
                }
            }
            for size in [1, 2, 3, 7, 64] {
                let found = run(body.chunks(size), options, answer, at);
                assert!(found == expected, "{name} in {size}: {}", show(&found));
            }
        }
    }
}

#[test]
fn transcripts_split_anywhere() {
    for (name, text) in TRANSCRIPTS {
        for body in line_endings(text) {
            check(name, &body, BodyKind::Sse);
        }
    }
}

#[test]
fn transcripts_without_their_last_bytes() {
    for (name, text) in TRANSCRIPTS {
        for body in line_endings(text) {
            for length in 0..body.len() {
                let body = &body[..length];
                let (options, answer) = variants(BodyKind::Sse)[length % 4];
                let expected = rewrite(body, options, answer, true);
                let found = run(body.chunks(50), options, answer, NEVER);
                assert_eq!(show(&found), show(&expected), "{name} cut to {length}");
            }
        }
    }
}

/// An event leaves as soon as it is complete, and comments and `[DONE]` as soon as their line is.
/// The end of the stream is when a request is accounted: it waits for what that takes, also where
/// the frame itself is not for the client.
#[test]
fn what_follows_a_dropped_frame_waits_for_the_answer() {
    let options = RewriteOptions {
        drop_usage_only: true,
        ..options(BodyKind::Sse)
    };
    let mut rewriter = Rewriter::new(options, None);
    let usage = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":2000}}\n\n";
    assert_eq!(rewriter.push(usage), Output::Replace(Vec::new()));
    assert!(rewriter.waiting());
    let done = b"data: [DONE]\n\n";
    assert_eq!(rewriter.push(done), Output::Replace(Vec::new()));
    assert!(!rewriter.completion().done());
    assert_eq!(rewriter.answer(SPLIT), done);
    assert!(!rewriter.waiting() && rewriter.completion().done());
    assert!(rewriter.completion().shown().is_some());
}

/// The host pauses only what ends a body: a frame that waits, a document that is whole.
#[test]
fn the_end_of_a_body_is_known_before_it_comes() {
    for (kind, pieces) in [
        (
            BodyKind::Sse,
            vec![
                ("data: {\"choices\":[{}]}\n\n", false),
                ("data: {\"usage\":{}}", false),
                ("\n\n", true),
                ("data: [DONE]\n\n", true),
            ],
        ),
        (
            BodyKind::Json,
            vec![
                ("{\"usage\":{}", false),
                (",\"a\":[{}]", false),
                ("}", true),
                ("\n", true),
                ("x", false),
            ],
        ),
    ] {
        let mut rewriter = Rewriter::new(options(kind), None);
        for (piece, at_end) in pieces {
            rewriter.push(piece.as_bytes());
            assert_eq!(rewriter.at_end(), at_end, "{piece}");
        }
        rewriter.answer(SPLIT);
        assert!(kind == BodyKind::Json || !rewriter.at_end());
    }
}

#[test]
fn nothing_stays_longer_than_its_event() {
    for (name, text) in TRANSCRIPTS {
        for body in line_endings(text) {
            let mut rewriter = Rewriter::new(options(BodyKind::Sse), Some(SPLIT));
            let mut line = Vec::new();
            let mut event_bytes = 0;
            let mut previous = 0;
            for byte in &body {
                rewriter.push(&[*byte]);
                let trails = *byte == b'\n' && previous == b'\r';
                previous = *byte;
                event_bytes += 1;
                assert!(rewriter.held_bytes() <= event_bytes, "{name}");
                if trails {
                    continue;
                }
                if *byte != b'\n' && *byte != b'\r' {
                    line.push(*byte);
                    continue;
                }
                if line.is_empty() {
                    event_bytes = 0;
                }
                if line.is_empty() || line.starts_with(b": OPEN") || line.ends_with(b"[DONE]") {
                    assert_eq!(
                        rewriter.held_bytes(),
                        0,
                        "{name} {}",
                        String::from_utf8_lossy(&line)
                    );
                }
                line.clear();
            }
            rewriter.end();
        }
    }
}

#[test]
fn json_bodies_split_anywhere() {
    for body in JSON_BODIES {
        let mut bodies = line_endings(body).to_vec();
        bodies.dedup();
        for body in bodies {
            check(&String::from_utf8_lossy(&body), &body, BodyKind::Json);
        }
    }
}

#[test]
fn a_continuous_frame_behind_a_dropped_one_waits_as_the_reference_says() {
    let usage = r#""usage":{"prompt_tokens":1400}"#;
    let body = format!(
        "data: {{\"choices\":[],{usage}}}\n\ndata: {{\"choices\":[{{}}],{usage}}}\n\ndata: [DONE]\n\n"
    );
    let roomy = RewriteOptions {
        drop_usage_only: true,
        ..options(BodyKind::Sse)
    };
    // From nothing fits behind the dropped frame to all does.
    for held_bytes_max in [0, 40, 63, 64, 1 << 18] {
        let options = RewriteOptions {
            held_bytes_max,
            ..roomy
        };
        let expected = rewrite(body.as_bytes(), options, SPLIT, true);
        let found = run(body.as_bytes().chunks(9), options, SPLIT, NEVER);
        assert_eq!(show(&found), show(&expected));
    }
}

#[test]
fn a_cap_hit_by_the_second_usage_leaves_the_first_edited() {
    let body = br#"{"usage":{},"x":"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy","usage":{"prompt_tokens_details":[]}}"#;
    let options = RewriteOptions {
        held_bytes_max: 20,
        ..options(BodyKind::Json)
    };
    let found = run(body.chunks(3), options, SPLIT, 0);
    assert_eq!(found.released_unedited, 1);
    let (first, second) = found.body.split_at(found.body.len() - 41);
    assert!(first.starts_with(br#"{"usage":{"prompt_tokens_details":{"cached_tokens":1000,"#));
    assert_eq!(second, &body[body.len() - 41..]);
    assert!(may_be_capped(&found, body, options, SPLIT));
}

/// A body, cut and rearranged so that it is nearly right.
fn mutated(kind: BodyKind) -> impl Strategy<Value = Vec<u8>> {
    let whole = match kind {
        BodyKind::Sse => TRANSCRIPTS.map(|(_, text)| text.as_bytes()).to_vec(),
        BodyKind::Json => JSON_BODIES.map(str::as_bytes).to_vec(),
    };
    let pieces = prop::sample::select(vec![
        &b"\n"[..],
        b"\r",
        b"\r\n",
        b"\n\n",
        b"data: ",
        b"data:",
        b"data",
        b": ",
        b"event: error\n",
        b"event:error",
        b"id: 1\n",
        b"\"usage\":",
        b"\"usage\"",
        b"{\"usage\":{}}",
        b"{",
        b"}",
        b"null",
        b"\"choices\":[],",
        b"\"error\":{},",
        b"\"error\":null,",
        b"[DONE]",
        b"data: [DONE]\n",
        b"\\u0075",
        b"\xef\xbb\xbf",
        b"\xff",
        b",",
        b"\"",
        b"{\"prompt_tokens\":1100}",
        b"{\"prompt_tokens\":3,\"prompt_tokens\":77}",
        b"data: {\"usage\":{\"prompt_tokens\":1100}}\n\n",
        b"data: {\"choices\":[{}],\"usage\":{}}\n\n",
        b"\"us\\u0061ge\":{\"cache_creation\":{}},",
        b"data: {\"choices\":[],\n",
        b"data: \"usage\":{}}\n",
        b"\"prompt_tokens_details\":null,",
        b" ",
    ]);
    let edit = (any::<prop::sample::Index>(), 0usize..40, pieces);
    let ending = prop::sample::select(vec![&b"\n"[..], b"\r\n", b"\r"]);
    let start = (
        prop::sample::select(whole),
        any::<prop::sample::Index>(),
        ending,
    );
    (start, prop::collection::vec(edit, 0..8)).prop_map(|((body, from, ending), edits)| {
        let from = if from.index(3) == 0 {
            from.index(body.len() + 1)
        } else {
            0
        };
        let mut body: Vec<u8> = body[from..].to_vec();
        for (at, cut, piece) in edits {
            let at = at.index(body.len() + 1);
            // Half of the edits only insert, so that what is there stays whole.
            let cut = cut.saturating_sub(20);
            let end = (at + cut).min(body.len());
            body.splice(at..end, piece.iter().copied());
        }
        if ending == b"\n" {
            return body;
        }
        body.iter()
            .flat_map(|b| {
                if *b == b'\n' {
                    ending.to_vec()
                } else {
                    vec![*b]
                }
            })
            .collect()
    })
}

fn any_options(kind: BodyKind) -> impl Strategy<Value = (RewriteOptions, Answer)> {
    let sizes = (
        prop::sample::select(vec![64usize, 100, 200, 1 << 20]),
        0usize..500,
    );
    (any::<bool>(), any::<bool>(), any::<bool>(), sizes).prop_map(
        move |(drop_usage_only, scrub, active, (event_bytes_max, held))| {
            let held_bytes_max = if held < 250 { 1 << 18 } else { held };
            let options = RewriteOptions {
                kind,
                drop_usage_only,
                event_bytes_max,
                held_bytes_max,
                scrub,
            };
            (options, if active { SPLIT } else { Answer::Inactive })
        },
    )
}

/// More cases than the default unless `PROPTEST_CASES` says how many.
fn config() -> ProptestConfig {
    let default = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        default
    } else {
        ProptestConfig {
            cases: 3000,
            ..default
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn mutated_streams_match_the_reference(
        body in mutated(BodyKind::Sse),
        (options, answer) in any_options(BodyKind::Sse),
        sizes in prop::collection::vec(1usize..300, 1..6),
        late: bool,
    ) {
        let expected = rewrite(&body, options, answer, late);
        let at = if late { NEVER } else { 0 };
        let found = run(cut_up(&body, &sizes), options, answer, at);
        prop_assert_eq!(show(&found), show(&expected));
        let found = run(body.chunks(1), options, answer, at);
        prop_assert_eq!(show(&found), show(&expected));
    }

    #[test]
    fn mutated_json_matches_the_reference(
        body in mutated(BodyKind::Json),
        (options, answer) in any_options(BodyKind::Json),
        sizes in prop::collection::vec(1usize..100, 1..6),
        late: bool,
    ) {
        let roomy = RewriteOptions { held_bytes_max: 1 << 18, ..options };
        let mut expected = rewrite(&body, roomy, answer, late);
        let at = if late { NEVER } else { 0 };
        let mut found = run(cut_up(&body, &sizes), roomy, answer, at);
        if !readable(&body) {
            found.error_seen = false;
            expected.error_seen = false;
        }
        prop_assert_eq!(show(&found), show(&expected));
        // Under a tight cap the result depends on it, never on the chunks.
        let whole = run([&body[..]], options, answer, at);
        let pieces = run(cut_up(&body, &sizes), options, answer, at);
        prop_assert_eq!(show(&pieces), show(&whole));
        prop_assert!(may_be_capped(&whole, &body, options, answer));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_chunks_do_not_matter(
        body in prop::collection::vec(any::<u8>(), 0..600),
        sizes in prop::collection::vec(1usize..50, 1..6),
        answer_at in 0usize..5,
    ) {
        for kind in [BodyKind::Sse, BodyKind::Json] {
            let found = run(cut_up(&body, &sizes), options(kind), SPLIT, answer_at);
            prop_assert_eq!(found.body, &body[..]);
        }
    }
}
