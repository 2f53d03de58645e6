//! Bodies that are right, and wrong ones.

use super::*;

const SENT: &str = r#"{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":1,"x":2}}"#;
const EDITED: &str = r#"{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":5,"x":2,"cache_write_tokens":3},"cache_read_input_tokens":5,"cache_creation_input_tokens":3,"cache_creation":{"ephemeral_5m_input_tokens":3,"ephemeral_1h_input_tokens":0,"ephemeral_24h_input_tokens":0}}"#;

fn pieces() -> Vec<Piece> {
    vec![
        Piece::Exact(b"data: a\n\n".to_vec()),
        Piece::Usage(UsagePiece {
            before: b"data: {\"usage\":".to_vec(),
            usage: SENT.to_owned(),
            after: b"}\n\n".to_vec(),
            only: true,
            kind: UsageKind::Chat,
        }),
        Piece::Exact(b"data: [DONE]\n\n".to_vec()),
    ]
}

fn body(usage: &str) -> String {
    format!("data: a\n\ndata: {{\"usage\":{usage}}}\n\ndata: [DONE]\n\n")
}

fn arrives(body: &str) -> Result<Vec<Seen>, String> {
    compare(&pieces(), body.as_bytes(), UsageOnly::Arrives, true)
}

#[test]
fn what_is_right() {
    assert_eq!(arrives(&body(SENT)), Ok(vec![None]));
    let shown = Shown {
        read: 5,
        five_minutes: 3,
        ..Shown::default()
    };
    assert_eq!(arrives(&body(EDITED)), Ok(vec![Some(shown)]));
    let without = b"data: a\n\ndata: [DONE]\n\n";
    for rule in [UsageOnly::IsDropped, UsageOnly::MayBeDropped] {
        assert_eq!(compare(&pieces(), without, rule, true), Ok(vec![]));
    }
    // Broken off, anywhere.
    let whole = body(EDITED);
    for end in 0..whole.len() {
        let part = &whole.as_bytes()[..end];
        assert!(
            compare(&pieces(), part, UsageOnly::Arrives, false).is_ok(),
            "{end}"
        );
        assert!(
            compare(&pieces(), part, UsageOnly::Arrives, true).is_err(),
            "{end}"
        );
    }
}

#[test]
fn the_parts_of_a_prompt_add_up_in_the_messages_api() {
    let sent = r#"{"output_tokens":1}"#;
    let usage = |input: u64| {
        format!(
            r#"{{"output_tokens":1,"input_tokens":{input},"cache_read_input_tokens":5,"cache_creation_input_tokens":3,"cache_creation":{{"ephemeral_5m_input_tokens":3,"ephemeral_1h_input_tokens":0,"ephemeral_24h_input_tokens":0}}}}"#
        )
    };
    let piece = Piece::Usage(UsagePiece {
        before: vec![],
        usage: sent.to_owned(),
        after: vec![],
        only: false,
        kind: UsageKind::Messages { total: 10 },
    });
    for (input, right) in [(2, true), (3, false), (10, false)] {
        let got = compare(
            std::slice::from_ref(&piece),
            usage(input).as_bytes(),
            UsageOnly::Arrives,
            true,
        );
        assert_eq!(got.is_ok(), right, "{input}: {got:?}");
    }
}

#[test]
fn what_is_wrong() {
    for (right, wrong) in [
        ("data: a", "data: b"),
        ("[DONE]", "[DONE] "),
        ("\"x\":2", "\"x\":3"),
        ("\"prompt_tokens\":9", "\"prompt_tokens\":8"),
        ("\"cached_tokens\":5", "\"cached_tokens\":6"),
        ("\"cache_read_input_tokens\":5,", ""),
        (
            "ephemeral_1h_input_tokens\":0",
            "ephemeral_1h_input_tokens\":1",
        ),
        ("data: a\n\n", ""),
        ("data: [DONE]\n\n", "data: [DONE]\n\ndata: more\n\n"),
    ] {
        let body = body(EDITED);
        assert!(body.contains(right), "{right}");
        assert!(arrives(&body.replace(right, wrong)).is_err(), "{wrong}");
    }
    let whole = body(EDITED);
    let dropped = compare(&pieces(), whole.as_bytes(), UsageOnly::IsDropped, true);
    assert!(dropped.is_err());
    // Broken off: a piece of the frame may arrive, not all of it.
    let brace = whole.rfind("}\n\n").unwrap();
    for (end, right) in [(brace, true), (brace + 1, false)] {
        let part = &body(SENT)[..end - EDITED.len() + SENT.len()];
        let cut = compare(&pieces(), part.as_bytes(), UsageOnly::IsDropped, false);
        assert_eq!(cut.is_ok(), right, "{part}");
    }
    assert!(arrives("data: a\n\ndata: [DONE]\n\n").is_err());
}
