//! Tokenizers count what their library counts, over any cut, and stay within bounds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod costs;
#[path = "../../../core/tests/hostile_cost/linear.rs"]
mod linear;
mod tiktoken;
mod trained;

use std::time::{Duration, Instant};

use prompt_cache_index::tokens::tokenizer::{Builtin, HuggingFace, Tokenizer};
use prompt_cache_index::tokens::{CountError, Encoding};
use proptest::prelude::*;

use trained::{CORPUS, SPECIAL, Trained};

fn load(trained: &Trained) -> HuggingFace {
    HuggingFace::load(&trained.json(), None).unwrap()
}

/// Token ends as the library tells them for the whole text at once.
fn ends_of(trained: &Trained, text: &str) -> Vec<usize> {
    let mut engine = trained.engine.clone();
    engine.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
    let encoding = engine.encode(text, false).unwrap();
    encoding.get_offsets().iter().map(|(_, end)| *end).collect()
}

/// Every character boundary.
fn boundaries(text: &str) -> Vec<usize> {
    (0..=text.len())
        .filter(|at| text.is_char_boundary(*at))
        .collect()
}

/// The prefix before the first token that ends behind `at`.
fn expected(ends: &[usize], at: usize) -> u64 {
    ends.iter().take_while(|end| **end <= at).count() as u64
}

fn check(trained: &Trained, tokenizer: &HuggingFace, text: &str) {
    let at = boundaries(text);
    let ends = ends_of(trained, text);
    let counts = tokenizer.count_prefixes(text, &at, &|| true).unwrap();
    let want: Vec<u64> = at.iter().map(|at| expected(&ends, *at)).collect();
    assert_eq!(counts, want, "{}: {text:?}", trained.name);
    assert_eq!(
        *counts.last().unwrap(),
        ends.len() as u64,
        "{}",
        trained.name
    );
}

/// Text out of words, markers and their look-alikes.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(CORPUS).prop_map(str::to_owned),
        3 => prop::sample::select(SPECIAL).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["<tool>  ", " <think>", "Zürich", "Zürichs", "<|im_", "|>", " ", "\n", ""]).prop_map(str::to_owned),
        1 => "\\PC{0,12}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

#[test]
fn counts_are_those_of_the_library_at_every_offset() {
    let zoo: Vec<_> = trained::all().into_iter().map(|t| (load(&t), t)).collect();
    let config = ProptestConfig::with_cases(64);
    proptest!(config, |(text in text())| {
        for (tokenizer, trained) in &zoo {
            check(trained, tokenizer, &text);
        }
    });
}

/// A prefix that ends among trailing spaces would hold a token that is not whole.
#[test]
fn a_post_processor_that_trims_offsets_moves_no_count() {
    let trained = trained::trimming();
    let encoding = trained.engine.encode(CORPUS[0], false).unwrap();
    let trimmed: Vec<usize> = encoding.get_offsets().iter().map(|(_, end)| *end).collect();
    assert_ne!(trimmed, ends_of(&trained, CORPUS[0]), "this one does trim");
    let tokenizer = load(&trained);
    for text in CORPUS {
        check(&trained, &tokenizer, text);
    }
}

#[test]
fn a_long_chat_is_cut_into_parts_without_a_trace() {
    // Far over the size of a part, so that it is cut many times.
    let chat: String = (0..6000)
        .map(|i| {
            let line = CORPUS[i % CORPUS.len()];
            let marker = SPECIAL[i % SPECIAL.len()];
            format!("{marker}<tool> {line} <think>{i}")
        })
        .collect();
    assert!(chat.len() > 400_000);
    for trained in trained::all() {
        let tokenizer = load(&trained);
        let at: Vec<usize> = boundaries(&chat).into_iter().step_by(997).collect();
        let ends = ends_of(&trained, &chat);
        let counts = tokenizer.count_prefixes(&chat, &at, &|| true).unwrap();
        let want: Vec<u64> = at.iter().map(|at| expected(&ends, *at)).collect();
        assert_eq!(counts, want, "{}", trained.name);
    }
}

#[test]
fn hostile_text_stays_linear() {
    let hostile = [
        "a",
        " ",
        "\u{301}",
        "ab",
        "0",
        "\n",
        "!",
        "  a",
        "字",
        "<|im_",
        "\u{1f468}\u{200d}",
    ];
    for trained in trained::all() {
        let tokenizer = load(&trained);
        for pattern in hostile {
            let text = pattern.repeat((64 << 10) / pattern.len());
            let start = Instant::now();
            let tokens = tokenizer.count(&text, &|| true).unwrap();
            // Quadratic work on 64 KiB takes minutes; this leaves room for an unoptimised build.
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{} {pattern:?}",
                trained.name
            );
            assert_eq!(tokens, ends_of(&trained, &text).len() as u64, "{pattern:?}");
        }
    }
}

#[test]
fn a_part_that_cannot_be_cut_has_a_bound() {
    let tokenizer = load(&trained::byte_level());
    let text = "a ".repeat(3 << 20);
    assert_eq!(tokenizer.count(&text, &|| true), Err(CountError::TooLarge));
}

#[test]
fn a_count_out_of_time_is_no_count() {
    let tokenizer = load(&trained::byte_level());
    assert_eq!(
        tokenizer.count("hello", &|| false),
        Err(CountError::TooSlow)
    );
}

#[test]
fn truncation_and_padding_of_the_file_do_not_count() {
    let mut trained = trained::byte_level();
    let truncation = tokenizers::TruncationParams {
        max_length: 3,
        ..Default::default()
    };
    trained.engine.with_truncation(Some(truncation)).unwrap();
    let short = load(&trained).count(CORPUS[0], &|| true).unwrap();
    trained.engine.with_truncation(None).unwrap();
    let padding = tokenizers::PaddingParams {
        strategy: tokenizers::PaddingStrategy::Fixed(500),
        ..Default::default()
    };
    trained.engine.with_padding(Some(padding));
    let padded = load(&trained).count(CORPUS[0], &|| true).unwrap();
    trained.engine.with_padding(None);
    let plain = ends_of(&trained, CORPUS[0]).len() as u64;
    assert!(plain > 3 && plain < 500);
    assert_eq!([short, padded], [plain, plain]);
}

#[test]
fn tokens_of_the_configuration_are_added() {
    let trained = trained::byte_level();
    let config = br#"{"added_tokens_decoder": {
        "9001": {"content": "<|later|>", "special": true},
        "9000": {"content": "<|im_start|>", "special": true},
        "9002": {"content": "<now>", "lstrip": false, "normalized": false, "rstrip": true, "single_word": false, "special": false}},
        "model_max_length": 4096}"#;
    let with = HuggingFace::load(&trained.json(), Some(config)).unwrap();
    let without = load(&trained);
    let count = |tokenizer: &HuggingFace, text: &str| tokenizer.count(text, &|| true).unwrap();
    assert_eq!(count(&with, "<|later|><now>  <|im_start|>"), 3);
    assert!(count(&without, "<|later|>") > 1);
}

#[test]
fn what_is_no_tokenizer_is_refused_with_the_file_s_name() {
    let error = HuggingFace::load(b"{}", None).err().unwrap().to_string();
    assert!(error.starts_with("tokenizer.json: "), "{error}");
    let json = trained::byte_level().json();
    let error = HuggingFace::load(&json, Some(b"7"))
        .err()
        .unwrap()
        .to_string();
    assert!(error.starts_with("tokenizer_config.json: "), "{error}");
}

#[test]
fn built_in_encodings_count_as_the_same_tokenizer_json() {
    let zoo: Vec<_> = [Encoding::Cl100kBase, Encoding::O200kBase]
        .map(|encoding| {
            let json = tiktoken::tokenizer_json(encoding);
            let engine = tokenizers::Tokenizer::from_bytes(json).unwrap();
            (Builtin::new(encoding), engine)
        })
        .into();
    let config = ProptestConfig::with_cases(256);
    proptest!(config, |(text in text(), more in "[a-zA-Z0-9'\\r\\n \\tÀ-ÿ\u{300}一-十./!]{0,200}")| {
        let text = format!("{text}{more}");
        for (ours, theirs) in &zoo {
            let at = boundaries(&text);
            let encoding = theirs.encode(text.as_str(), false).unwrap();
            let ends: Vec<usize> = encoding.get_offsets().iter().map(|(_, end)| *end).collect();
            let want: Vec<u64> = at.iter().map(|at| expected(&ends, *at)).collect();
            assert_eq!(ours.count_prefixes(&text, &at, &|| true).unwrap(), want, "{text:?}");
        }
    });
}
