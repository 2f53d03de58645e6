//! Tokenizers: how many tokens each of several prefixes of one text holds, in one pass.

mod builtin;
mod chunks;
mod hugging_face;
mod prefixes;

use super::CountError;

pub use builtin::Builtin;
pub use hugging_face::{HuggingFace, LoadError};

/// Counts tokens of one model. Cheap to share, blocking to call.
pub trait Tokenizer: Send + Sync + 'static {
    /// Tokenizes `text` once, as a whole, and says for each of `ends` how many of its tokens end
    /// at or before that byte offset.
    ///
    /// `ends` ascend (repeats are fine) and are character boundaries of `text`. The counts never
    /// descend, and none exceeds the tokens of the whole, which is the count at `text.len()`. A
    /// token that crosses an offset belongs to what comes after it; the tokens that one character
    /// falls apart into (bytes) belong together. No token is added that the text does not hold.
    ///
    /// Calls `go_on` between steps and gives up once it says no.
    ///
    /// # Errors
    /// [`CountError::TooSlow`] when `go_on` said no, [`CountError::TooLarge`] for a text whose
    /// work has no bound, [`CountError::Failed`] when the tokenizer fails.
    fn count_prefixes(
        &self,
        text: &str,
        ends: &[usize],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<u64>, CountError>;

    /// How many special tokens the tokenizer itself puts around a text that no template has
    /// rendered.
    fn special_tokens(&self) -> u64 {
        0
    }

    /// Tokens of the whole text.
    ///
    /// # Errors
    /// See [`Tokenizer::count_prefixes`].
    fn count(&self, text: &str, go_on: &dyn Fn() -> bool) -> Result<u64, CountError> {
        let counts = self.count_prefixes(text, &[text.len()], go_on)?;
        counts.first().copied().ok_or(CountError::Failed)
    }
}
