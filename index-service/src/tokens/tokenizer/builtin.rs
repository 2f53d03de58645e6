//! The built-in tiktoken encodings.
//!
//! Text is ordinary text here: `<|endoftext|>` counts as the characters it is made of, as it does
//! for an engine that gets it from a user.

use super::super::{CountError, Encoding};
use super::Tokenizer;
use super::prefixes::Prefixes;

/// Pieces (words, roughly) between two looks at the deadline.
const PIECES_PER_LOOK: usize = 4096;

/// A built-in encoding: a table of a few megabytes that lives once per process.
#[derive(Clone, Copy)]
pub struct Builtin {
    tokenizer: &'static bpe_openai::Tokenizer,
}

impl Builtin {
    /// The tokenizer of `encoding`; the first call in a process builds its table.
    pub fn new(encoding: Encoding) -> Self {
        let tokenizer = match encoding {
            Encoding::O200kBase => bpe_openai::o200k_base(),
            Encoding::Cl100kBase => bpe_openai::cl100k_base(),
        };
        Self { tokenizer }
    }
}

impl Tokenizer for Builtin {
    /// Linear in the text, also for text without any word boundary.
    fn count_prefixes(
        &self,
        text: &str,
        ends: &[usize],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<u64>, CountError> {
        let bpe = &self.tokenizer.bpe;
        let mut prefixes = Prefixes::new(ends);
        let mut start = 0;
        for (i, piece) in self.tokenizer.split(text).enumerate() {
            if i % PIECES_PER_LOOK == 0 && !go_on() {
                return Err(CountError::TooSlow);
            }
            let end = start + piece.len();
            if prefixes.is_within(end) {
                let mut at = start;
                for token in bpe.encode_via_backtracking(piece.as_bytes()) {
                    at += bpe.token_len(token);
                    // The bytes of one character stay together.
                    prefixes.token(text.ceil_char_boundary(at));
                }
            } else {
                prefixes.tokens(bpe.count(piece.as_bytes()) as u64);
            }
            start = end;
        }
        Ok(prefixes.finish())
    }
}
