//! Texts that are made to be slow cost as much as they are long.

use prompt_cache_index::tokens::Encoding;
use prompt_cache_index::tokens::tokenizer::{Builtin, HuggingFace, Tokenizer};

use crate::linear::assert_linear;
use crate::trained;

/// What a text is made of, again and again.
const PIECES: &[&str] = &[
    "a",
    "A",
    "aA",
    "0",
    " ",
    "\n",
    " \n",
    "\t ",
    "  x",
    "\r",
    ".",
    "'s",
    "-_",
    "_",
    "é",
    "e\u{301}",
    "\u{301}",
    "\u{323}\u{301}",
    "\u{200d}",
    "👩\u{200d}",
    "🏳",
    "漢",
    "あ",
    "각",
    "\u{1100}\u{1161}",
    "\u{fdfa}",
    "\u{feff}",
    "\u{202e}",
    "א",
    "\u{0}",
    "ﬁ",
    "<|im_start|>",
    "<|im_",
    "<",
    "<think>",
    " <think>",
    "x<think>",
    "<tool>",
    "<tool> ",
    "Zürich",
    "Zürich.",
    "</s>",
    "<0x41>",
    "▁",
    "Ġ",
    "##a",
    "[UNK]",
    "http://a.b/",
    "{\"a\":",
    "\\",
    "0123456789",
    "the quick brown fox ",
];

fn check(name: &str, tokenizer: &dyn Tokenizer, bytes: usize) {
    for piece in PIECES {
        let make = |n: usize| piece.repeat(n / piece.len() + 1).into_bytes();
        let work = |text: &[u8]| {
            let text = std::str::from_utf8(text).unwrap();
            let ends = [text.len() / 2, text.len()].map(|end| text.floor_char_boundary(end));
            tokenizer.count_prefixes(text, &ends, &|| true).unwrap();
        };
        assert_linear(&format!("{name}: {piece:?}"), &make, bytes, &work);
    }
}

#[test]
fn built_in_encodings() {
    for encoding in [Encoding::O200kBase, Encoding::Cl100kBase] {
        check(encoding.as_str(), &Builtin::new(encoding), 30_000);
    }
}

#[test]
fn tokenizers_of_every_kind() {
    for trained in trained::all().into_iter().chain([trained::trimming()]) {
        let tokenizer = HuggingFace::load(&trained.json(), None).unwrap();
        check(trained.name, &tokenizer, 10_000);
    }
}
