//! Built-in tiktoken encodings, for models without a tokenizer and template of their own.
//!
//! A prefix counts as the sum of its blocks' texts, each tokenized for itself. So counts add up:
//! the stored count of a hit plus that of the new blocks is the count of the whole, and a
//! growing conversation never tokenizes the same text twice. The price is a few tokens where an
//! engine's template would put its role markers, or where a token would span two blocks.
//!
//! The encodings are tables of a few megabytes that live once per process. Counting is linear
//! in the text, also for text without any word boundary.

use serde::Deserialize;

use super::{CountError, Counted, Prompt, TokenSource};

/// Version of the rule above; a change of the rule starts fresh scopes.
const RULE: &str = "prompt-cache block texts 1";
/// Pieces (words, roughly) between two looks at the deadline.
const PIECES_PER_LOOK: usize = 4096;

/// A built-in encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Encoding {
    /// The encoding of recent OpenAI models.
    #[serde(rename = "o200k_base")]
    O200kBase,
    /// The encoding of older OpenAI models.
    #[serde(rename = "cl100k_base")]
    Cl100kBase,
}

impl Encoding {
    /// The name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::O200kBase => "o200k_base",
            Self::Cl100kBase => "cl100k_base",
        }
    }

    fn tokenizer(self) -> &'static bpe_openai::Tokenizer {
        match self {
            Self::O200kBase => bpe_openai::o200k_base(),
            Self::Cl100kBase => bpe_openai::cl100k_base(),
        }
    }
}

/// Tokens of one text. The deadline decides whether there is a count, never what it is.
fn count_text(
    tokenizer: &bpe_openai::Tokenizer,
    text: &str,
    go_on: &dyn Fn() -> bool,
) -> Result<u64, CountError> {
    let normalized = tokenizer.normalize(text);
    let mut tokens = 0;
    for (i, piece) in tokenizer.split(normalized.as_str()).enumerate() {
        if i % PIECES_PER_LOOK == 0 && !go_on() {
            return Err(CountError::TooSlow);
        }
        tokens += tokenizer.bpe.count(piece.as_bytes()) as u64;
    }
    Ok(tokens)
}

/// Counts block texts with a built-in encoding.
pub struct BlockTexts {
    encoding: Encoding,
    version: String,
}

impl BlockTexts {
    /// A source for `encoding`.
    pub fn new(encoding: Encoding) -> Self {
        let digest = blake3::hash(format!("{RULE}\0{}", encoding.as_str()).as_bytes());
        let version = digest.to_hex().chars().take(32).collect();
        Self { encoding, version }
    }
}

impl TokenSource for BlockTexts {
    fn version(&self) -> &str {
        &self.version
    }

    fn count(
        &self,
        prompt: &Prompt<'_>,
        from: Option<Counted>,
        boundaries: &[u32],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<u64>, CountError> {
        let tokenizer = self.encoding.tokenizer();
        let mut next = from.map_or(0, |from| from.block.saturating_add(1));
        let mut tokens = from.map_or(0, |from| from.tokens);
        let mut counts = Vec::with_capacity(boundaries.len());
        for &boundary in boundaries {
            for block in next..=boundary {
                if let Some(text) = prompt.block_text(block) {
                    tokens = tokens.saturating_add(count_text(tokenizer, &text, go_on)?);
                }
            }
            next = boundary.saturating_add(1);
            counts.push(tokens);
        }
        Ok(counts)
    }

    fn warm_up(&self) {
        self.encoding.tokenizer().count("warm up");
    }
}
