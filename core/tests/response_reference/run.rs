//! Runs the rewriter as a host does: in pieces, with an answer at some moment.

use prompt_cache_core::response::{Answer, BodyKind, Output, RewriteOptions, Rewriter};

use super::Observed;

/// Runs a body in pieces, the answer coming before piece number `answer_at` or after the end.
pub fn run<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    options: RewriteOptions,
    answer: Answer,
    answer_at: usize,
) -> Observed {
    let mut rewriter = Rewriter::new(options, (answer_at == 0).then_some(answer));
    let mut out = Vec::new();
    let bound = match options.kind {
        BodyKind::Sse => options.event_bytes_max.max(64) + options.held_bytes_max,
        BodyKind::Json => options.held_bytes_max,
    };
    for (i, piece) in pieces.into_iter().enumerate() {
        if i == answer_at && i > 0 {
            out.extend(rewriter.answer(answer));
            assert!(!rewriter.waiting());
        }
        match rewriter.push(piece) {
            Output::Unchanged => out.extend_from_slice(piece),
            Output::Replace(bytes) => out.extend(bytes),
        }
        assert!(rewriter.held_bytes() <= bound);
    }
    if let Output::Replace(bytes) = rewriter.end() {
        out.extend(bytes);
    }
    assert_eq!(rewriter.end(), Output::Unchanged);
    // What waits may also be a frame that will not be delivered.
    assert!(rewriter.waiting() || rewriter.held_bytes() == 0);
    out.extend(rewriter.answer(answer));
    assert_eq!((rewriter.held_bytes(), rewriter.waiting()), (0, false));
    assert!(rewriter.completion().ended());
    assert!(rewriter.completion().held_bytes_max() <= options.held_bytes_max);
    Observed::new(out, rewriter.completion())
}

/// An `answer_at` after the end.
pub const NEVER: usize = usize::MAX;

pub fn cut_up<'a>(body: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = body;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, tail) = rest.split_at((*size).min(rest.len()));
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

pub fn show(observed: &Observed) -> String {
    let facts = Observed {
        body: Vec::new(),
        ..observed.clone()
    };
    format!("{:?}\n{facts:?}", String::from_utf8_lossy(&observed.body))
}
