//! The tokenizers that are compared, each as a function from a text to its number of tokens.

use prompt_cache_index::tokens::Encoding;
use prompt_cache_index::tokens::tokenizer::{Builtin, HuggingFace, Tokenizer};

#[path = "../../tests/tokenizers/tiktoken.rs"]
mod tiktoken;

/// One of them.
pub struct Way {
    pub name: &'static str,
    pub count: Box<dyn Fn(&str) -> usize>,
}

/// The name of the one that others are compared with.
pub const REFERENCE: &str = "tokenizers 0.23";
/// The name of the one that hostile texts break.
pub const TIKTOKEN: &str = "tiktoken-rs 0.12";
/// The name of ours.
pub const OURS: &str = "this service";

fn way(name: &'static str, count: impl Fn(&str) -> usize + 'static) -> Way {
    Way {
        name,
        count: Box::new(count),
    }
}

/// All of them for one encoding, with the same ranks and word pattern.
pub fn all(encoding: Encoding) -> Vec<Way> {
    let json = tiktoken::tokenizer_json(encoding);
    let reference = tokenizers::Tokenizer::from_bytes(&json).expect("a tokenizer");
    let own_json = HuggingFace::load(&json, None).expect("a tokenizer");
    let canonical = tokenizers_1::canonicalize_str(std::str::from_utf8(&json).expect("UTF-8"))
        .expect("a convertible tokenizer");
    let next = tokenizers_1::from_json(&canonical).expect("a tokenizer");
    let ours = Builtin::new(encoding);
    let (bpe, tiktoken) = match encoding {
        Encoding::O200kBase => (
            bpe_openai::o200k_base(),
            tiktoken_rs::o200k_base_singleton(),
        ),
        Encoding::Cl100kBase => (
            bpe_openai::cl100k_base(),
            tiktoken_rs::cl100k_base_singleton(),
        ),
    };
    vec![
        way(REFERENCE, move |text| {
            reference.encode_fast(text, false).expect("tokens").len()
        }),
        way(OURS, move |text| {
            ours.count(text, &|| true).expect("a count") as usize
        }),
        way("this service, tokenizer.json", move |text| {
            own_json.count(text, &|| true).expect("a count") as usize
        }),
        way("bpe-openai 0.3", move |text| bpe.count(text)),
        way(TIKTOKEN, move |text| tiktoken.count_ordinary(text)),
        way("tokenizers 1.0.0-rc.3", move |text| {
            let mut ids = Vec::new();
            next.encode_into(
                text,
                &tokenizers_1::pipeline::EncodeOptions::no_specials(),
                &mut ids,
            )
            .expect("tokens");
            ids.len()
        }),
    ]
}
