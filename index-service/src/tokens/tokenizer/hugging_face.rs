//! A model's own `tokenizer.json`, by the Hugging Face `tokenizers` crate.
//!
//! Added tokens are recognised in the text, as for a rendered chat template; nothing is added,
//! padded or truncated, whatever the file says. The crate cannot be interrupted: the text is
//! handed to it in the parts that tokenize alone ([`Chunks`]), and one that is larger than
//! [`UNCUT_BYTES_MAX`] is not counted at all.

use serde::Deserialize;
use tokenizers::{AddedToken, PostProcessor as _, PostProcessorWrapper, Tokenizer as Engine};

use super::super::CountError;
use super::Tokenizer;
use super::chunks::Chunks;
use super::prefixes::Prefixes;

/// Longest part without a place to cut. The crate takes about a second and up to 100 bytes of
/// memory per byte for it.
const UNCUT_BYTES_MAX: usize = 4 << 20;

/// Why a tokenizer did not load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// `tokenizer.json` is not one, or asks for something unknown.
    #[error("tokenizer.json: {0}")]
    Tokenizer(String),
    /// `tokenizer_config.json` is not one.
    #[error("tokenizer_config.json: {0}")]
    Config(String),
}

/// A loaded `tokenizer.json`.
pub struct HuggingFace {
    engine: Engine,
    chunks: Chunks,
    special_tokens: u64,
}

impl HuggingFace {
    /// Loads the contents of a `tokenizer.json`, and adds what the `tokenizer_config.json` beside
    /// it adds, as `transformers` does. Blocking: a second for a large vocabulary.
    ///
    /// # Errors
    /// When either is not what it should be.
    pub fn load(tokenizer_json: &[u8], config_json: Option<&[u8]>) -> Result<Self, LoadError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            LoadError::Tokenizer(error.to_string())
        };
        let mut engine = Engine::from_bytes(tokenizer_json).map_err(failed)?;
        if let Some(config) = config_json {
            add_tokens(&mut engine, config)?;
        }
        engine.with_truncation(None).map_err(failed)?;
        engine.with_padding(None);
        // What a configuration says of `add_bos_token` is not asked, as in `transformers`.
        let processor = engine.get_post_processor();
        let special_tokens = processor.map_or(0, |it| it.added_tokens(false) as u64);
        // A rendered chat brings its special tokens, and some processors move the ends of tokens.
        engine.with_post_processor(None::<PostProcessorWrapper>);
        let added: Vec<AddedToken> = engine.get_added_tokens_decoder().into_values().collect();
        let chunks =
            Chunks::new(&added).map_err(|error| LoadError::Tokenizer(error.to_string()))?;
        Ok(Self {
            engine,
            chunks,
            special_tokens,
        })
    }
}

impl Tokenizer for HuggingFace {
    fn count_prefixes(
        &self,
        text: &str,
        ends: &[usize],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<u64>, CountError> {
        let mut prefixes = Prefixes::new(ends);
        for (start, chunk) in self.chunks.of(text) {
            if !go_on() {
                return Err(CountError::TooSlow);
            }
            if chunk.len() > UNCUT_BYTES_MAX {
                return Err(CountError::TooLarge);
            }
            let encoding = self
                .engine
                .encode(chunk, false)
                .map_err(|_| CountError::Failed)?;
            for (_, end) in encoding.get_offsets() {
                prefixes.token(start + end);
            }
        }
        Ok(prefixes.finish())
    }

    fn special_tokens(&self) -> u64 {
        self.special_tokens
    }
}

/// The part of a `tokenizer_config.json` that changes how text is tokenized.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    added_tokens_decoder: std::collections::BTreeMap<String, Declared>,
}

/// A token as the configuration declares it.
#[derive(Deserialize)]
struct Declared {
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    normalized: Option<bool>,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    special: bool,
}

/// Adds the declared tokens that `tokenizer.json` lacks, in the order of their ids.
fn add_tokens(engine: &mut Engine, config_json: &[u8]) -> Result<(), LoadError> {
    let config: Config = serde_json::from_slice(config_json)
        .map_err(|error| LoadError::Config(error.to_string()))?;
    let known = engine.get_added_vocabulary().get_vocab().clone();
    let mut declared: Vec<(u32, Declared)> = config
        .added_tokens_decoder
        .into_iter()
        .filter(|(_, token)| !known.contains_key(&token.content))
        .map(|(id, token)| (id.parse().unwrap_or(u32::MAX), token))
        .collect();
    declared.sort_by_key(|(id, _)| *id);
    for (_, token) in declared {
        let special = token.special;
        let normalized = token.normalized.unwrap_or(!special);
        let token = AddedToken::from(token.content, special)
            .lstrip(token.lstrip)
            .rstrip(token.rstrip)
            .single_word(token.single_word)
            .normalized(normalized);
        let added = if special {
            engine.add_special_tokens([token])
        } else {
            engine.add_tokens([token])
        };
        added.map_err(|error| LoadError::Config(error.to_string()))?;
    }
    Ok(())
}
