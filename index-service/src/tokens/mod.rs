//! Where token counts come from: one source per model, behind one trait.
//!
//! A source counts the whole prefix that ends at each boundary, going on from what the ledger
//! already knows, so that text is tokenized once in its life.

mod chat;
mod completions;
mod encodings;
mod images;
pub mod memory;
mod messages;
pub mod pool;
mod prompt;
mod responses;
pub mod source;
pub mod template;
pub mod tokenizer;

use std::sync::Arc;

pub use crate::metrics::CountMethod as Method;
pub use chat::{Chat, Templates};
pub use encodings::Encoding;
pub use images::{Image, ImageTokens, Tiles};
pub use prompt::{BadPrompt, Prompt, PromptBody};

/// A boundary with the tokens of the prefix that ends there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Index of the prefix's last block.
    pub block: u32,
    /// Tokens of the prefix.
    pub tokens: u64,
}

/// What a source counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Cumulative tokens at each boundary that was asked for.
    pub prefixes: Vec<u64>,
    /// Tokens of the whole prompt as the engine gets it: with a chat template, with the
    /// generation prompt. What the upstream's `prompt_tokens` is compared with; `None` from a
    /// source that cannot tell.
    pub prompt: Option<u64>,
    /// How the counts came about.
    pub method: Method,
}

/// Why tokens could not be counted. The read stands, nothing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CountError {
    /// The count took longer than `tokenize_timeout_ms`.
    #[error("counting took too long")]
    TooSlow,
    /// A piece of the text is longer than its tokenizer can be trusted with.
    #[error("the text is too large for its tokenizer")]
    TooLarge,
    /// The tokenizer failed on this prompt.
    #[error("the tokenizer failed")]
    Failed,
}

/// Counts the tokens of prefixes for one model. Cheap to share, blocking to call.
pub trait TokenSource: Send + Sync + 'static {
    /// Digest of everything that decides a count; a part of the scope.
    fn version(&self) -> &str;

    /// Cumulative tokens at each of `boundaries` (block indices that exist in `prompt`,
    /// ascending, all after `from`), going on from the prefix `from` if there is one, and those of
    /// the whole prompt. Calls `go_on` between steps and gives up with [`CountError::TooSlow`] once it says no.
    ///
    /// # Errors
    /// When the prompt cannot be counted or `go_on` said no.
    fn count(
        &self,
        prompt: &Prompt<'_>,
        from: Option<Counted>,
        boundaries: &[u32],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Counts, CountError>;

    /// Loads what the first count would otherwise wait for.
    fn warm_up(&self);
}

/// The source of a built-in encoding.
pub fn builtin(encoding: Encoding) -> Arc<dyn TokenSource> {
    Arc::new(encodings::BlockTexts::new(encoding))
}
