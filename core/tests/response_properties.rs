//! Nearly right bodies, any options, any chunks: what comes out is what the reference says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::string_slice)]

mod response_corpus;
mod response_reference;

use prompt_cache_core::response::{Answer, BodyKind, RewriteOptions};
use proptest::prelude::*;
use response_corpus::{JSON_BODIES, SPLIT, TRANSCRIPTS, options};
use response_reference::{
    may_be_capped, rewrite,
    run::{NEVER, cut_up, run, show},
    text::readable,
};

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
                api: prompt_cache_core::api::Api::Chat,
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
