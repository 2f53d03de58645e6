//! Small tokenizers of every kind, trained here: nothing to download.

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::models::{ModelWrapper, TrainerWrapper};
use tokenizers::normalizers::{BertNormalizer, NFC, Prepend, Replace, Sequence};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::{AddedToken, NormalizerWrapper, Tokenizer};

/// What they are trained on, and what texts are made of.
pub const CORPUS: &[&str] = &[
    "The service counts the tokens of each prefix and remembers them with the hash.",
    "fn main() { println!(\"{}\", vec![1, 2, 3].iter().sum::<i32>()); }",
    "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Zürich\", \"days\": 3}}",
    "En été, l'œuvre naïve coûte 12,50 € — déjà vu? Ça va, merci beaucoup.",
    "日本語のトークンを数える。中文字符也要计算，한국어도 마찬가지입니다.",
    "Привет, мир! Сколько здесь токенов? Двадцать три, не больше.",
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, e\u{301} combining, zero\u{200b}width, tab\tand  two   three spaces\n\n",
];

/// A tokenizer with its name for messages.
pub struct Trained {
    pub name: &'static str,
    pub engine: Tokenizer,
}

impl Trained {
    /// Its `tokenizer.json`.
    pub fn json(&self) -> Vec<u8> {
        self.engine.to_string(false).unwrap().into_bytes()
    }
}

/// Chat markers, as models have them.
pub const SPECIAL: &[&str] = &["<|im_start|>", "<|im_end|>", "<s>", "</s>", "<|im|>"];

fn finish(
    name: &'static str,
    mut engine: Tokenizer,
    trainer: impl Into<TrainerWrapper>,
) -> Trained {
    let mut trainer: TrainerWrapper = trainer.into();
    let lines = CORPUS.iter().cycle().take(CORPUS.len() * 20);
    engine.train(&mut trainer, lines).unwrap();
    let special = SPECIAL.iter().map(|token| AddedToken::from(*token, true));
    engine.add_special_tokens(special).unwrap();
    let plain = [
        AddedToken::from("<tool>", false)
            .normalized(false)
            .rstrip(true),
        AddedToken::from("<think>", false)
            .normalized(false)
            .lstrip(true),
        AddedToken::from("Zürich", false)
            .normalized(true)
            .single_word(true),
    ];
    engine.add_tokens(plain).unwrap();
    Trained { name, engine }
}

/// One of each kind.
pub fn all() -> Vec<Trained> {
    vec![
        byte_level(),
        byte_level_nfc(),
        byte_fallback(),
        unigram(),
        word_piece(),
    ]
}

/// GPT-like: byte-level BPE with its own word pattern.
pub fn byte_level() -> Trained {
    let mut engine = Tokenizer::new(BPE::default());
    engine.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    // Moves the ends of tokens, which must not move our counts.
    engine.with_post_processor(Some(ByteLevel::new(true, true, true)));
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(600)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    finish("byte-level BPE", engine, trainer)
}

/// Words are no limit to its tokens, so that some end in spaces, which its post-processor trims.
pub fn trimming() -> Trained {
    let mut engine = Tokenizer::new(BPE::default());
    engine.with_pre_tokenizer(Some(ByteLevel::new(false, true, false)));
    engine.with_post_processor(Some(ByteLevel::new(false, true, false)));
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(600)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    finish("byte-level BPE without words", engine, trainer)
}

/// GPT-like behind a Unicode normalizer.
fn byte_level_nfc() -> Trained {
    let mut engine = Tokenizer::new(BPE::default());
    engine.with_normalizer(Some(NFC)).unwrap();
    engine.with_pre_tokenizer(Some(ByteLevel::new(true, false, true)));
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(500)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    finish("byte-level BPE, NFC", engine, trainer)
}

/// Llama-2-like: no pre-tokenizer at all, unknown characters as bytes.
fn byte_fallback() -> Trained {
    let bytes = (0..=255u8).map(|byte| AddedToken::from(format!("<0x{byte:02X}>"), true));
    let model = BPE::builder()
        .byte_fallback(true)
        .unk_token("<unk>".to_owned())
        .fuse_unk(true)
        .build()
        .unwrap();
    let mut engine = Tokenizer::new(model);
    let normalizers: Vec<NormalizerWrapper> = vec![
        Prepend::new("▁".to_owned()).into(),
        Replace::new(" ", "▁").unwrap().into(),
    ];
    engine
        .with_normalizer(Some(Sequence::new(normalizers)))
        .unwrap();
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(700)
        .limit_alphabet(60)
        .special_tokens(
            std::iter::once(AddedToken::from("<unk>", true))
                .chain(bytes)
                .collect(),
        )
        .build();
    finish("BPE with byte fallback", engine, trainer)
}

/// T5-like: Unigram over words.
fn unigram() -> Trained {
    let mut engine = Tokenizer::new(Unigram::default());
    engine.with_pre_tokenizer(Some(Metaspace::new('▁', PrependScheme::First, true)));
    let trainer = UnigramTrainer::builder()
        .show_progress(false)
        .vocab_size(400)
        .unk_token(Some("<unk>".to_owned()))
        .special_tokens(vec![AddedToken::from("<unk>", true)])
        .build()
        .unwrap();
    finish("Unigram", engine, trainer)
}

/// BERT-like: lower case, no accents.
fn word_piece() -> Trained {
    let model = WordPiece::builder()
        .unk_token("[UNK]".to_owned())
        .build()
        .unwrap();
    let mut engine = Tokenizer::new(ModelWrapper::from(model));
    engine
        .with_normalizer(Some(BertNormalizer::default()))
        .unwrap();
    engine.with_pre_tokenizer(Some(BertPreTokenizer));
    let trainer = WordPieceTrainer::builder()
        .show_progress(false)
        .vocab_size(500)
        .special_tokens(vec![AddedToken::from("[UNK]", true)])
        .build();
    finish("WordPiece", engine, trainer)
}
