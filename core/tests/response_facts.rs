//! What a rewriter knows of a response beside its bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use prompt_cache_core::{
    api::Api,
    ledger::Split,
    response::{Answer, BodyKind, Output, RewriteOptions, Rewriter},
};

fn answer() -> Answer {
    Answer::Split(Split {
        read: 1,
        ..Split::default()
    })
}

fn rewriter(api: Api, kind: BodyKind, answer: Option<Answer>) -> Rewriter {
    let options = RewriteOptions {
        api,
        kind,
        drop_usage_only: false,
        event_bytes_max: 1 << 20,
        held_bytes_max: 1 << 20,
        scrub: true,
    };
    Rewriter::new(options, answer)
}

/// What the engine itself says it had cached.
fn said(api: Api, kind: BodyKind, body: &str) -> Option<u64> {
    let mut rewriter = rewriter(api, kind, Some(answer()));
    rewriter.push(body.as_bytes());
    rewriter.end();
    rewriter.completion().engine_cached()
}

const FRAME: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5}}\n\n";
const BODY: &str = r#"{"usage":{"prompt_tokens":5}}"#;

#[test]
fn nothing_waits_that_does_not_wait_for_the_answer() {
    let mut stream = rewriter(Api::Chat, BodyKind::Sse, None);
    assert!(!stream.waiting());
    stream.push(b"data: {\"choices\":[{}]}\n\n");
    assert!(!stream.waiting(), "a token");
    stream.push(FRAME.as_bytes());
    assert!(stream.waiting());
    assert_eq!(stream.held_bytes(), FRAME.len());
    assert!(!stream.answer(answer()).is_empty());
    assert!(!stream.waiting());

    let mut json = rewriter(Api::Chat, BodyKind::Json, None);
    assert!(!json.waiting());
    json.push(BODY.as_bytes());
    assert!(!json.waiting(), "more may follow");
    json.end();
    assert!(json.waiting());
    assert!(!json.answer(answer()).is_empty());
    assert!(!json.waiting());

    let mut none = rewriter(Api::Chat, BodyKind::Json, None);
    none.push(b"{}");
    none.end();
    assert!(!none.waiting(), "there is no usage");

    let mut known = rewriter(Api::Chat, BodyKind::Sse, Some(answer()));
    known.push(FRAME.as_bytes());
    assert!(!known.waiting());
}

#[test]
fn what_turns_out_to_be_no_json_is_let_go_at_once() {
    let mut json = rewriter(Api::Chat, BodyKind::Json, None);
    json.push(br#"{"usage":{"prompt_tokens":5},"#);
    assert!(json.held_bytes() > 0);
    let out = json.push(b"x");
    assert_eq!(
        out,
        Output::Replace(br#"{"prompt_tokens":5},x"#.to_vec()),
        "all from the object on"
    );
    assert_eq!(json.held_bytes(), 0);
}

#[test]
fn an_answer_that_says_nothing_lets_go_before_the_end() {
    let mut json = rewriter(Api::Chat, BodyKind::Json, None);
    json.push(br#"{"usage":{"prompt_tokens":5}"#);
    assert_eq!(
        json.answer(Answer::Inactive),
        b"",
        "members are taken out at the end"
    );
    let options = RewriteOptions {
        api: Api::Chat,
        kind: BodyKind::Json,
        drop_usage_only: false,
        event_bytes_max: 1 << 20,
        held_bytes_max: 1 << 20,
        scrub: false,
    };
    let mut json = Rewriter::new(options, None);
    json.push(br#"{"usage":{"prompt_tokens":5}"#);
    assert_eq!(json.answer(Answer::Inactive), br#"{"prompt_tokens":5}"#);
    assert_eq!(json.push(b"}"), Output::Unchanged);

    // A split has to wait: of two objects the last counts.
    let mut json = rewriter(Api::Chat, BodyKind::Json, None);
    json.push(br#"{"usage":{"prompt_tokens":5}"#);
    assert_eq!(json.answer(answer()), b"");
    assert!(matches!(json.push(b"}"), Output::Replace(_)) || json.held_bytes() > 0);
}

#[test]
fn a_byte_order_mark_belongs_to_the_first_line_of_all() {
    let mark = "\u{feff}";
    let mut first = rewriter(Api::Chat, BodyKind::Sse, Some(answer()));
    let body = format!("{mark}{FRAME}");
    assert!(matches!(first.push(body.as_bytes()), Output::Replace(_)));
    assert!(first.completion().usage_seen());
    // Further on it makes another field of `data`, which clients ignore.
    let mut later = rewriter(Api::Chat, BodyKind::Sse, Some(answer()));
    let body = format!("data: {{}}\n\n{mark}{FRAME}");
    assert_eq!(later.push(body.as_bytes()), Output::Unchanged);
    let mut second_line = rewriter(Api::Chat, BodyKind::Sse, Some(answer()));
    let body = format!(": comment\n{mark}{FRAME}");
    assert_eq!(second_line.push(body.as_bytes()), Output::Unchanged);
    assert!(!later.completion().usage_seen() && !second_line.completion().usage_seen());
    // Nor is it data then, of an event whose next line is.
    let mut beside = rewriter(Api::Chat, BodyKind::Sse, Some(answer()));
    let body = format!("data: {{}}\n\n{mark}data: x\n{FRAME}");
    assert!(matches!(beside.push(body.as_bytes()), Output::Replace(_)));
    assert!(beside.completion().usage_seen());
}

#[test]
fn an_error_is_seen_where_each_api_has_it() {
    let table = [
        (Api::Chat, r#"{"error":{"message":"m"}}"#, true),
        (Api::Chat, r#"{"error":null,"choices":[]}"#, false),
        (Api::Chat, r#"{"response":{"error":{},"usage":{}}}"#, false),
        (Api::Messages, r#"{"type":"error","error":{}}"#, true),
        (
            Api::Messages,
            r#"{"type":"message_start","message":{"error":{},"usage":{"input_tokens":1}}}"#,
            false,
        ),
        (
            Api::Responses,
            r#"{"type":"response.incomplete","response":{"error":{"code":"c"},"usage":{}}}"#,
            true,
        ),
        (
            Api::Responses,
            r#"{"type":"response.completed","response":{"error":null,"usage":{}}}"#,
            false,
        ),
        (
            Api::Responses,
            r#"{"type":"response.failed","response":{"usage":{}}}"#,
            true,
        ),
    ];
    for (api, data, expected) in table {
        let mut rewriter = rewriter(api, BodyKind::Sse, Some(answer()));
        rewriter.push(format!("data: {data}\n\n").as_bytes());
        assert_eq!(
            rewriter.completion().error_seen(),
            expected,
            "{api:?} {data}"
        );
    }
}

#[test]
fn the_end_is_seen_where_little_can_follow() {
    let mut stream = rewriter(Api::Chat, BodyKind::Sse, None);
    stream.push(b"data: {\"choices\":[{}]}\n\n");
    assert!(!stream.at_end());
    stream.push(FRAME.as_bytes());
    assert!(stream.at_end());
    let (last, most) = BODY.as_bytes().split_last().unwrap();
    let mut json = rewriter(Api::Chat, BodyKind::Json, None);
    json.push(most);
    assert!(!json.at_end());
    json.push(&[*last]);
    assert!(json.at_end());
}

#[test]
fn what_comes_after_the_end_passes() {
    for (kind, body) in [(BodyKind::Sse, FRAME), (BodyKind::Json, BODY)] {
        let mut rewriter = rewriter(Api::Chat, kind, Some(answer()));
        assert_eq!(rewriter.push(b""), Output::Unchanged);
        rewriter.push(body.as_bytes());
        rewriter.end();
        let shown = rewriter.completion().shown();
        assert_eq!(rewriter.push(FRAME.as_bytes()), Output::Unchanged);
        assert_eq!(rewriter.push(b"data: x"), Output::Unchanged);
        assert_eq!(
            (rewriter.held_bytes(), rewriter.completion().shown()),
            (0, shown)
        );
    }
}

#[test]
fn the_engine_s_own_count_is_read_where_each_api_has_it() {
    let details = |name: &str, cached: &str| {
        format!(r#"{{"{name}":{{"cached_tokens":{cached},"audio_tokens":7}},"n":5}}"#)
    };
    let table = [
        (Api::Chat, details("prompt_tokens_details", "9"), Some(9)),
        (Api::Chat, details("prompt_tokens_details", "0"), Some(0)),
        (Api::Chat, details("prompt_tokens_details", "null"), None),
        (Api::Chat, details("input_tokens_details", "9"), None),
        (Api::Chat, r#"{"cache_read_input_tokens":9}"#.into(), None),
        (
            Api::Completions,
            details("prompt_tokens_details", "9"),
            Some(9),
        ),
        (
            Api::Responses,
            details("input_tokens_details", "9"),
            Some(9),
        ),
        (Api::Responses, details("prompt_tokens_details", "9"), None),
        (
            Api::Messages,
            r#"{"input_tokens":3,"cache_read_input_tokens":9}"#.into(),
            Some(9),
        ),
        (Api::Messages, r#"{"input_tokens":3}"#.into(), None),
    ];
    for (api, usage, expected) in table {
        let json = format!(r#"{{"id":"x","usage":{usage}}}"#);
        assert_eq!(said(api, BodyKind::Json, &json), expected, "{api:?} {json}");
        let event = match api {
            Api::Responses => format!(
                "data: {{\"type\":\"response.completed\",\"response\":{{\"usage\":{usage}}}}}\n\n"
            ),
            Api::Messages => {
                format!(
                    "event: message_delta\ndata: {{\"type\":\"message_delta\",\"usage\":{usage}}}\n\n"
                )
            }
            Api::Chat | Api::Completions => {
                format!("data: {{\"choices\":[],\"usage\":{usage}}}\n\n")
            }
        };
        assert_eq!(
            said(api, BodyKind::Sse, &event),
            expected,
            "{api:?} {event}"
        );
    }
}

#[test]
fn the_last_usage_object_that_says_so_counts() {
    let frame = |usage: &str| format!("data: {{\"choices\":[],\"usage\":{usage}}}\n\n");
    let cached = |n: u64| {
        frame(&format!(
            r#"{{"prompt_tokens_details":{{"cached_tokens":{n}}}}}"#
        ))
    };
    let silent = frame(r#"{"prompt_tokens":5}"#);
    let said = |body: String| said(Api::Chat, BodyKind::Sse, &body);
    assert_eq!(said(format!("{}{}", cached(3), cached(4))), Some(4));
    assert_eq!(said(format!("{}{silent}", cached(3))), Some(3));
    assert_eq!(said(silent), None);
}
