//! Any chunking of the same bytes gives the same bytes: every transcript, every line ending,
//! every offset, the answer before, between and after; and the result is the reference's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::string_slice)]

mod response_corpus;
mod response_reference;

use prompt_cache_core::api::Api;
use prompt_cache_core::response::{Answer, BodyKind, Output, RewriteOptions, Rewriter};
use response_corpus::{
    JSON_BODIES, MESSAGES_BODIES, MESSAGES_TRANSCRIPTS, RESPONSES_BODIES, RESPONSES_TRANSCRIPTS,
    SPLIT, TRANSCRIPTS, options,
};
use response_reference::{
    may_be_capped, rewrite,
    run::{NEVER, run, show},
};

/// Whether the moment of the answer can matter: there are usage frames that do not wait.
fn has_continuous_usage(name: &str) -> bool {
    matches!(
        name,
        "messages" | "messages_vllm" | "litellm" | "openrouter" | "perplexity" | "vllm_continuous"
    )
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
    check_as(Api::Chat, name, body, kind);
}

fn check_as(api: Api, name: &str, body: &[u8], kind: BodyKind) {
    for (i, (options, answer)) in variants(kind).into_iter().enumerate() {
        let options = RewriteOptions { api, ..options };
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

/// Every transcript with one kind of line ending.
fn transcripts_split_anywhere(line_end: &str) {
    for (name, text) in TRANSCRIPTS {
        let body = text.replace('\n', line_end).into_bytes();
        check(name, &body, BodyKind::Sse);
        for length in 0..body.len() {
            let body = &body[..length];
            let (options, answer) = variants(BodyKind::Sse)[length % 4];
            let expected = rewrite(body, options, answer, true);
            let found = run(body.chunks(50), options, answer, NEVER);
            assert!(
                found == expected,
                "{name} cut to {length}: {}",
                show(&found)
            );
        }
    }
}

/// The Messages API: the same, for its own transcripts.
#[test]
fn messages_split_anywhere() {
    for (name, text) in MESSAGES_TRANSCRIPTS {
        for body in line_endings(text) {
            check_as(Api::Messages, name, &body, BodyKind::Sse);
        }
    }
    for body in MESSAGES_BODIES {
        check_as(Api::Messages, body, body.as_bytes(), BodyKind::Json);
    }
}

/// The Responses API, and completions, whose streams are like those of chat.
#[test]
fn responses_and_completions_split_anywhere() {
    for (name, text) in RESPONSES_TRANSCRIPTS {
        for body in line_endings(text) {
            check_as(Api::Responses, name, &body, BodyKind::Sse);
        }
    }
    for body in RESPONSES_BODIES {
        check_as(Api::Responses, body, body.as_bytes(), BodyKind::Json);
    }
    let (name, text) = ("completions", include_str!("transcripts/completions.sse"));
    for body in line_endings(text) {
        check_as(Api::Completions, name, &body, BodyKind::Sse);
    }
}

// Apart, so that they run beside each other.
#[test]
fn transcripts_with_line_feeds() {
    transcripts_split_anywhere("\n");
}

#[test]
fn transcripts_with_carriage_returns_and_line_feeds() {
    transcripts_split_anywhere("\r\n");
}

#[test]
fn transcripts_with_carriage_returns() {
    transcripts_split_anywhere("\r");
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

/// What is reported as held is what waited for the answer, or for the end of a JSON body.
#[test]
fn the_most_that_was_held_is_known() {
    let token = b"data: {\"choices\":[{}]}\n\n";
    let usage = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":2000}}\n\n";
    let done = b"data: [DONE]\n\n";
    let stream = [&token[..], usage, done].concat();
    let json = br#"{"a":1,"usage":{"prompt_tokens":2000},"b":2}"#;
    let of_usage = json.len() - json.iter().position(|b| *b == b'u').unwrap() - 7;
    let cases = [
        (BodyKind::Sse, &stream[..], None, usage.len() + done.len()),
        (BodyKind::Sse, &stream, Some(SPLIT), 0),
        (BodyKind::Json, json, None, of_usage),
        (BodyKind::Json, json, Some(SPLIT), of_usage),
    ];
    for (kind, body, answer, held) in cases {
        for size in 1..=body.len() {
            let mut rewriter = Rewriter::new(options(kind), answer);
            for piece in body.chunks(size) {
                rewriter.push(piece);
            }
            rewriter.end();
            let found = rewriter.completion().held_bytes_max();
            assert_eq!(found, held, "{kind:?} {answer:?} in {size}");
        }
    }
}

/// Chunks of whole events that hold nothing to edit leave as they are: no second buffer.
#[test]
fn whole_events_without_usage_are_not_copied() {
    for (name, text) in TRANSCRIPTS {
        for end in ["\n", "\r\n", "\r"] {
            let blank = format!("{end}{end}");
            let body = text.replace('\n', end);
            let mut rewriter = Rewriter::new(options(BodyKind::Sse), None);
            let plain = |event: &&str| {
                let nothing = [
                    "usage\":{",
                    "usage\" :",
                    "\\u00",
                    "rror",
                    "[DONE]",
                    "\u{feff}",
                ];
                !nothing.iter().any(|word| event.contains(word))
            };
            for event in body.split_inclusive(&blank).take_while(plain) {
                let output = rewriter.push(event.as_bytes());
                assert_eq!(output, Output::Unchanged, "{name}: {event}");
            }
        }
    }
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
