//! Answers, in pieces of every size.

use prompt_cache_core::{
    api::Api,
    ledger::Split,
    response::{Answer, BodyKind, Output, RewriteOptions, Rewriter},
};

use crate::{Shapes, linear::assert_linear, shape};

fn answers() -> Shapes {
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":9000}}"#;
    vec![
        ("blank lines", shape("", "\n", "")),
        ("carriage returns", shape("", "\r", "\n")),
        ("both", shape("", "\r\n", "")),
        ("comments", shape("", ":\n", "\n")),
        ("no line ends", shape("data: {", "x", "")),
        ("colons", shape("data", ":", "\n\n")),
        ("byte order marks", shape("", "\u{feff}", "\n\n")),
        (
            "empty data lines",
            shape("data: {\n", "data\n", "data: }\n\n"),
        ),
        (
            "data lines",
            shape("data: {\n", "data: \"usage\":{},\n", "data: \"a\":1}\n\n"),
        ),
        (
            "lines of other fields",
            shape("data: {\n", "id: \"usage\":{}\n", "data: }\n\n"),
        ),
        ("events", shape("", "data: {\"choices\":[]}\n\n", "")),
        (
            "events with a null",
            shape("", "data: {\"usage\":null}\n\n", ""),
        ),
        (
            "events that look like usage",
            shape("", "data: {\"a\":\"\\\"usage\\\": {\"}\n\n", ""),
        ),
        (
            "events that look like errors",
            shape("", "data: {\"a\":\"error event: error\"}\n\n", ""),
        ),
        (
            "escapes",
            shape("", "data: {\"\\u0061\":\"\\u0075\"}\n\n", ""),
        ),
        ("usage frames", shape("", format!("data: {usage}\n\n"), "")),
        ("ends", shape("", "data: [DONE]\n\n", "")),
        (
            "usage again and again",
            shape("data: {", "\"usage\":{},", "\"a\":1}\n\n"),
        ),
        (
            "errors again and again",
            shape("data: {", "\"error\":null,", "\"usage\":{}}\n\n"),
        ),
        ("brackets", shape("data: {\"usage\":", "[", "\n\n")),
        (
            "keys",
            shape("data: {", "\"us\\u0061ge\":1,", "\"usage\":{}}\n\n"),
        ),
        (
            "one number",
            shape("data: {\"usage\":{\"prompt_tokens\":1", "0", "}}\n\n"),
        ),
        (
            "members of usage",
            shape(
                "data: {\"usage\":{",
                "\"prompt_tokens\":1,",
                "\"a\":1}}\n\n",
            ),
        ),
        (
            "details of usage",
            shape(
                "data: {\"usage\":{",
                "\"prompt_tokens_details\":{},",
                "\"a\":1}}\n\n",
            ),
        ),
    ]
}

fn documents() -> Shapes {
    vec![
        ("white space", shape("{", " \n", "}")),
        ("members", shape("{", "\"a\":1,", "\"usage\":{}}")),
        (
            "usage again and again",
            shape("{", "\"usage\":{},", "\"a\":1}"),
        ),
        (
            "errors again and again",
            shape("{\"usage\":{},", "\"error\":null,", "\"a\":1}"),
        ),
        (
            "usage that goes on",
            shape("{\"usage\":{", "\"a\":1,", "\"b\":1}}"),
        ),
        ("one text", shape("{\"a\":\"", "x", "\",\"usage\":{}}")),
        ("escapes", shape("{\"a\":\"", "\\u0061", "\",\"usage\":{}}")),
        ("one number", shape("{\"a\":1", "0", ",\"usage\":{}}")),
        ("brackets", shape("{\"usage\":{},\"a\":", "[", "")),
        ("behind", shape("{\"usage\":{}}", " ", "")),
        ("not JSON", shape("<", "\"usage\":{", "")),
    ]
}

/// The body in pieces of `size`, the answer before all, after all, or in the middle.
fn answer_work(
    kind: BodyKind,
    size: usize,
    answered: usize,
    held_bytes_max: usize,
) -> impl Fn(&[u8]) {
    move |body: &[u8]| {
        let options = RewriteOptions {
            api: Api::Chat,
            kind,
            drop_usage_only: answered == 1,
            event_bytes_max: 1 << 20,
            held_bytes_max,
            scrub: false,
        };
        let answer = Answer::Split(Split {
            read: 5,
            ..Split::default()
        });
        let mut rewriter = Rewriter::new(options, (answered == 0).then_some(answer));
        let mut bytes = 0;
        for (at, piece) in body.chunks(size).enumerate() {
            bytes += match rewriter.push(piece) {
                Output::Unchanged => piece.len(),
                Output::Replace(new) => new.len(),
            };
            if answered == 2 && at == body.len() / size / 2 {
                bytes += rewriter.answer(answer).len();
            }
            std::hint::black_box(rewriter.held_bytes());
        }
        if let Output::Replace(new) = rewriter.end() {
            bytes += new.len();
        }
        bytes += rewriter.answer(answer).len();
        assert!(
            bytes <= 40 * body.len() + 4096,
            "{bytes} bytes of {}",
            body.len()
        );
    }
}

#[test]
fn answers_cost_as_much_as_they_are_long() {
    for (kind, shapes) in [(BodyKind::Sse, answers()), (BodyKind::Json, documents())] {
        for (name, make) in shapes {
            // In pieces of so many bytes, the answer before all (0), in the middle (2) or after all.
            for (size, answered, held_bytes_max) in [
                (1, 3, 256 << 10),
                (7, 1, 64 << 20),
                (1000, 2, 64 << 20),
                (1 << 20, 0, 256 << 10),
                (1 << 20, 3, 64 << 20),
            ] {
                let work = answer_work(kind, size, answered, held_bytes_max);
                let name = format!("{name}, {size} at once, answered {answered}");
                assert_linear(&name, &make, 50_000, &work);
            }
        }
    }
}
