//! Where a text may be cut so that its parts tokenize as they do within the whole.
//!
//! A tokenizer looks for its added tokens first, each of which stands for itself whatever is
//! around it, and tokenizes what lies between them one by one. So the start of an added token is
//! a place to cut: a rendered chat has one or more per message.

use aho_corasick::{AhoCorasick, MatchKind};
use tokenizers::AddedToken;

/// A part is cut at the first place after so many bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// Finds the places.
pub struct Chunks {
    /// The added tokens that are looked for in the text as it came (not normalized), with
    /// whether each is a place to cut; the matching is the one of `tokenizers`.
    added: Option<(AhoCorasick, Vec<bool>)>,
}

impl Chunks {
    /// For a tokenizer with these added tokens.
    ///
    /// # Errors
    /// When there are too many to search for.
    pub fn new(added: &[AddedToken]) -> Result<Self, aho_corasick::BuildError> {
        let raw = || added.iter().filter(|token| !token.normalized);
        if raw().next().is_none() {
            return Ok(Self { added: None });
        }
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(raw().map(|token| token.content.as_bytes()))?;
        // `lstrip` reaches back before the match, `single_word` looks there.
        let cuts = raw()
            .map(|token| !token.lstrip && !token.single_word)
            .collect();
        Ok(Self {
            added: Some((search, cuts)),
        })
    }

    /// The parts of `text` with the offset each starts at; put together they are `text`.
    pub fn of<'t>(&self, text: &'t str) -> impl Iterator<Item = (usize, &'t str)> {
        let mut cuts = self.added.iter().flat_map(move |(search, cuts)| {
            search
                .find_iter(text)
                .filter(|found| {
                    cuts.get(found.pattern().as_usize())
                        .copied()
                        .unwrap_or(false)
                })
                .map(|found| found.start())
        });
        let mut start = 0;
        std::iter::from_fn(move || {
            let end = cuts
                .find(|cut| cut.saturating_sub(start) >= CHUNK_BYTES)
                .unwrap_or(text.len());
            let chunk = text.get(start..end).filter(|chunk| !chunk.is_empty())?;
            let at = start;
            start = end;
            Some((at, chunk))
        })
    }
}
