//! Built-in tiktoken encodings, for models without a tokenizer and template of their own.
//!
//! A prefix counts as the sum of its blocks' texts, each tokenized for itself. So counts add up:
//! the stored count of a hit plus that of the new blocks is the count of the whole, and a
//! growing conversation never tokenizes the same text twice. The price is a few tokens where an
//! engine's template would put its role markers, or where a token would span two blocks.
//!
//! The encodings are tables of a few megabytes that live once per process. Counting is linear
//! in the text, also for text without any word boundary.

use schemars::JsonSchema;
use serde::Deserialize;

use super::tokenizer::{Builtin, Tokenizer};
use super::{CountError, Counted, Counts, Method, Prompt, TokenSource};

/// Version of the rule above; a change of the rule starts fresh scopes.
const RULE: &str = "prompt-cache block texts 1";

/// A built-in encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
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
    ) -> Result<Counts, CountError> {
        let tokenizer = Builtin::new(self.encoding);
        if let Some(plain) = prompt.plain() {
            return plain.count(&tokenizer, boundaries, go_on);
        }
        let mut next = from.map_or(0, |from| from.block.saturating_add(1));
        let mut tokens = from.map_or(0, |from| from.tokens);
        let mut count_to = |end: u32| -> Result<u64, CountError> {
            for block in next..end {
                if let Some(text) = prompt.block_text(block) {
                    tokens = tokens.saturating_add(tokenizer.count(&text, go_on)?);
                }
            }
            next = end;
            Ok(tokens)
        };
        let mut prefixes = Vec::with_capacity(boundaries.len());
        for &boundary in boundaries {
            prefixes.push(count_to(boundary.saturating_add(1))?);
        }
        let blocks = u32::try_from(prompt.block_count()).unwrap_or(u32::MAX);
        Ok(Counts {
            prefixes,
            prompt: Some(count_to(blocks)?),
            method: Method::BlockTexts,
        })
    }

    fn warm_up(&self) {
        // Nobody waits for this count.
        let _ = Builtin::new(self.encoding).count("warm up", &|| true);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn prompt(texts: &[&str]) -> Vec<u8> {
        let messages: Vec<_> = texts
            .iter()
            .map(|text| serde_json::json!({"role": "user", "content": text}))
            .collect();
        serde_json::to_vec(&serde_json::json!({ "messages": messages })).unwrap()
    }

    fn count(
        encoding: Encoding,
        texts: &[&str],
        from: Option<Counted>,
        boundaries: &[u32],
    ) -> Vec<u64> {
        let body = prompt(texts);
        let source = BlockTexts::new(encoding);
        let prompt = Prompt::parse(&body).unwrap();
        let counts = source.count(&prompt, from, boundaries, &|| true).unwrap();
        counts.prefixes
    }

    /// Known from the published encodings.
    #[test]
    fn counts_are_those_of_the_encodings() {
        let table = [
            ("", 0, 0),
            ("hello world", 2, 2),
            ("tiktoken is great!", 6, 6),
            ("antidisestablishmentarianism", 6, 6),
            ("お誕生日おめでとう", 9, 8),
            ("<|endoftext|>", 7, 7),
        ];
        for (text, cl100k, o200k) in table {
            assert_eq!(
                count(Encoding::Cl100kBase, &[text], None, &[0]),
                [cl100k],
                "{text}"
            );
            assert_eq!(
                count(Encoding::O200kBase, &[text], None, &[0]),
                [o200k],
                "{text}"
            );
        }
    }

    #[test]
    fn going_on_from_a_hit_gives_the_same_as_counting_everything() {
        let texts = ["one two", " three", "four five six", "", "seven"];
        let whole = count(Encoding::O200kBase, &texts, None, &[0, 1, 2, 3, 4]);
        assert!(whole.is_sorted());
        for hit in 0..4u32 {
            let from = Counted {
                block: hit,
                tokens: whole[hit as usize],
            };
            let rest: Vec<u32> = (hit + 1..5).collect();
            assert_eq!(
                count(Encoding::O200kBase, &texts, Some(from), &rest),
                whole[hit as usize + 1..]
            );
        }
    }

    #[test]
    fn text_without_word_boundaries_stays_linear() {
        let hostile = ["a", " ", "\u{301}", "ab", "0", "\n", "!", "  a", "字"];
        for pattern in hostile {
            let text = pattern.repeat((1 << 20) / pattern.len());
            let start = Instant::now();
            let tokens = count(Encoding::O200kBase, &[&text], None, &[0])[0];
            assert!(tokens > 0);
            // Quadratic work on 1 MiB takes hours; this leaves room for an unoptimised build.
            assert!(start.elapsed() < Duration::from_secs(60), "{pattern:?}");
        }
    }

    #[test]
    fn a_count_out_of_time_is_no_count() {
        let body = prompt(&["hello"]);
        let source = BlockTexts::new(Encoding::O200kBase);
        let counted = source.count(&Prompt::parse(&body).unwrap(), None, &[0], &|| false);
        assert_eq!(counted, Err(CountError::TooSlow));
    }

    #[test]
    fn versions_are_distinct_and_stable() {
        let versions =
            [Encoding::O200kBase, Encoding::Cl100kBase].map(|e| BlockTexts::new(e).version);
        // A change here makes every stored entry unreachable: only with a new counting rule.
        assert_eq!(versions[0], "331d4f3f31c44cf4d2325bbdd2a20c26");
        assert_ne!(versions[0], versions[1]);
    }
}
