//! Where token counts come from: one source per model, behind one trait.
//!
//! A source counts the whole prefix that ends at each boundary, going on from what the ledger
//! already knows, so that text is tokenized once in its life.

mod encodings;
pub mod pool;
mod prompt;
pub mod template;

use std::sync::Arc;

pub use encodings::Encoding;
pub use prompt::{BadPrompt, Prompt};

/// A boundary with the tokens of the prefix that ends there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Index of the prefix's last block.
    pub block: u32,
    /// Tokens of the prefix.
    pub tokens: u64,
}

/// Why tokens could not be counted. The read stands, nothing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CountError {
    /// The count took longer than `tokenize_timeout_ms`.
    #[error("counting took too long")]
    TooSlow,
    /// The tokenizer failed on this prompt.
    #[error("the tokenizer failed")]
    Failed,
}

/// Counts the tokens of prefixes for one model. Cheap to share, blocking to call.
pub trait TokenSource: Send + Sync + 'static {
    /// Digest of everything that decides a count; a part of the scope.
    fn version(&self) -> &str;

    /// Cumulative tokens at each of `boundaries` (block indices that exist in `prompt`,
    /// ascending, all after `from`), going on from the prefix `from` if there is one. Calls
    /// `go_on` between steps and gives up with [`CountError::TooSlow`] once it says no.
    ///
    /// # Errors
    /// When the prompt cannot be counted or `go_on` said no.
    fn count(
        &self,
        prompt: &Prompt<'_>,
        from: Option<Counted>,
        boundaries: &[u32],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<u64>, CountError>;

    /// Loads what the first count would otherwise wait for.
    fn warm_up(&self);
}

/// The source of a built-in encoding.
pub fn builtin(encoding: Encoding) -> Arc<dyn TokenSource> {
    Arc::new(encodings::BlockTexts::new(encoding))
}
