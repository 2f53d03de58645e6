//! A built-in encoding as a `tokenizer.json`: the same ranks and word pattern, for another engine.

use std::collections::HashMap;

use prompt_cache_index::tokens::Encoding;
use serde_json::json;

/// The published word patterns.
fn pattern(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Cl100kBase => {
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        }
        Encoding::O200kBase => {
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        }
    }
}

/// The `tokenizer.json` of `encoding`.
pub fn tokenizer_json(encoding: Encoding) -> Vec<u8> {
    let bpe = match encoding {
        Encoding::Cl100kBase => &bpe_openai::cl100k_base().bpe,
        Encoding::O200kBase => &bpe_openai::o200k_base().bpe,
    };
    let letters = byte_letters();
    let spell = |bytes: &[u8]| -> String { bytes.iter().map(|b| letters[*b as usize]).collect() };
    let tokens: Vec<&[u8]> = (0..bpe.num_tokens() as u32)
        .map(|id| bpe.token_bytes(id))
        .collect();
    let ranks: HashMap<&[u8], usize> = tokens.iter().enumerate().map(|(i, t)| (*t, i)).collect();
    let merges: Vec<[String; 2]> = tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| token.len() > 1)
        .map(|(rank, token)| {
            let at = last_merge(token, rank, &ranks);
            [spell(&token[..at]), spell(&token[at..])]
        })
        .collect();
    let vocab: HashMap<String, usize> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (spell(token), id))
        .collect();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern(encoding)}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges},
    });
    serde_json::to_vec(&tokenizer).unwrap()
}

/// Where the last merge that makes `token` puts its two halves together.
fn last_merge(token: &[u8], rank: usize, ranks: &HashMap<&[u8], usize>) -> usize {
    // Ends of the parts; every byte is a part at first.
    let mut ends: Vec<usize> = (1..=token.len()).collect();
    while ends.len() > 2 {
        let start = |i: usize| if i == 0 { 0 } else { ends[i - 1] };
        let best = (0..ends.len() - 1)
            .filter_map(|i| Some((*ranks.get(&token[start(i)..ends[i + 1]])?, i)))
            .filter(|(merged, _)| *merged < rank)
            .min();
        let (_, i) = best.expect("every token comes from two lower ones");
        ends.remove(i);
    }
    ends[0]
}

/// How byte-level vocabularies spell a byte: printable ones as themselves, the others from
/// U+0100 on.
fn byte_letters() -> Vec<char> {
    let mut next = 0x100;
    (0..=255u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap()
            }
        })
        .collect()
}
