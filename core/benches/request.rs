//! The request path beside the plain way: a tree of the body, edited and written again, SHA-256.
//!
//! `cargo bench -p prompt-cache-core --bench request`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use divan::{Bencher, black_box, counter::BytesCount};
use prompt_cache_core::{
    ledger::Tier,
    request::{Edits, MarkerRules, MixedTtlOrder, scan},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn main() {
    divan::main();
}

/// What a body is mostly made of.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A conversation in English with line breaks and some quotes.
    Chat,
    /// A conversation outside ASCII, not escaped.
    Chinese,
    /// The same, every character escaped.
    Escaped,
    /// Source code: an escape every few characters.
    Code,
    /// Tool definitions: short tokens.
    Tools,
}

const KINDS: [Kind; 5] = [
    Kind::Chat,
    Kind::Chinese,
    Kind::Escaped,
    Kind::Code,
    Kind::Tools,
];

const PROSE: &str = "The quick brown fox jumps over the lazy dog while the \"committee\" is still \
    discussing whether foxes ought to be allowed to jump at all.\n";
const CHINESE: &str = "敏捷的棕色狐狸跳过了懒狗，而委员会还在讨论是否应该允许狐狸跳跃。\n";
const CODE: &str = "    if (a[\"x\"] == \"\\n\") {\n\t\treturn f(\"%s\");\n    }\n";

fn body(kind: Kind, bytes: usize) -> Vec<u8> {
    let sentence = match kind {
        Kind::Chat | Kind::Tools => PROSE,
        Kind::Chinese | Kind::Escaped => CHINESE,
        Kind::Code => CODE,
    };
    let mut tools = Vec::new();
    if matches!(kind, Kind::Tools) {
        for i in 0..bytes / 330 {
            tools.push(json!({"type": "function", "function": {
                "name": format!("tool_{i}"), "description": "Looks something up.",
                "parameters": {"type": "object", "required": ["a"], "properties": {
                    "a": {"type": "string", "enum": ["x", "y", "z"]},
                    "b": {"type": "integer", "minimum": 0, "maximum": 100},
                    "c": {"type": "array", "items": {"type": "number"}}}}}}));
        }
    }
    let long = sentence.repeat(2_000 / sentence.len());
    let mut messages = vec![
        json!({"role": "system", "content": long, "cache_control": {"type": "ephemeral", "ttl": "1h"}}),
    ];
    let mut made = 2_000 + tools.len() * 330;
    while made < bytes {
        messages.push(json!({"role": "user", "content": [{"type": "text", "text": long}]}));
        messages
            .push(json!({"role": "assistant", "content": sentence.repeat(500 / sentence.len())}));
        made += if matches!(kind, Kind::Escaped) {
            5_200
        } else {
            2_700
        };
    }
    messages.push(json!({"role": "user", "content": [{"type": "text", "text": "go", "cache_control": {"type": "ephemeral"}}]}));
    let mut request =
        json!({"model": "m", "messages": messages, "stream": true, "temperature": 0.7});
    if !tools.is_empty() {
        request["tools"] = Value::Array(tools);
    }
    let text = request.to_string();
    if matches!(kind, Kind::Escaped) {
        let mut escaped = String::new();
        for c in text.chars() {
            if c.is_ascii() {
                escaped.push(c)
            } else {
                escaped += &format!("\\u{:04x}", c as u32)
            }
        }
        return escaped.into_bytes();
    }
    text.into_bytes()
}

const RULES: MarkerRules<'static> = MarkerRules {
    tiers: &[Tier::FiveMinutes, Tier::OneHour],
    default_tier: Tier::FiveMinutes,
    mixed_ttl_order: MixedTtlOrder::Any,
};
const EDITS: Edits<'static> = Edits {
    ensure_usage: true,
    cache_salt: None,
};

fn run<T>(bencher: Bencher<'_, '_>, body: &[u8], work: impl Fn(&[u8]) -> T + Sync) {
    bencher
        .counter(BytesCount::of_slice(body))
        .bench(|| work(black_box(body)));
}

fn delete(value: &mut Value) {
    let remove = |value: &mut Value| {
        if let Value::Object(members) = value {
            members.remove("cache_control");
        }
    };
    for name in ["tools", "messages"] {
        for item in value[name].as_array_mut().into_iter().flatten() {
            remove(item);
            for inner in ["content", "tool_calls"] {
                if let Some(list) = item.get_mut(inner).and_then(Value::as_array_mut) {
                    list.iter_mut().for_each(remove);
                }
            }
        }
    }
}

fn plain_edit(body: &[u8]) -> (Value, Vec<u8>) {
    let mut value: Value = serde_json::from_slice(body).unwrap();
    delete(&mut value);
    value["stream_options"] = json!({"include_usage": true});
    let out = serde_json::to_vec(&value).unwrap();
    (value, out)
}

/// Scan, breakpoints and splice of 100 KB.
#[divan::bench(args = KINDS)]
fn edit_100k(bencher: Bencher<'_, '_>, kind: Kind) {
    run(bencher, &body(kind, 100_000), |body| {
        let request = scan(body).unwrap();
        (
            request.breakpoints(&RULES).unwrap(),
            request.forwarded(&EDITS),
        )
    });
}

/// The plain way to the same bytes: parse to a tree, delete, write.
#[divan::bench(args = KINDS)]
fn edit_100k_plain(bencher: Bencher<'_, '_>, kind: Kind) {
    run(bencher, &body(kind, 100_000), plain_edit);
}

/// Scan and hash of 100 KB.
#[divan::bench(args = KINDS)]
fn hash_100k(bencher: Bencher<'_, '_>, kind: Kind) {
    run(bencher, &body(kind, 100_000), |body| {
        scan(body).unwrap().prefix_hashes(&[], u32::MAX)
    });
}

/// The plain way to such hashes: parse to a tree, write each message, SHA-256.
#[divan::bench(args = KINDS)]
fn hash_100k_plain(bencher: Bencher<'_, '_>, kind: Kind) {
    run(bencher, &body(kind, 100_000), |body| {
        let mut value: Value = serde_json::from_slice(body).unwrap();
        delete(&mut value);
        let mut hasher = Sha256::new();
        let blocks = [&value["tools"], &value["messages"]];
        let blocks = blocks.into_iter().filter_map(Value::as_array).flatten();
        blocks
            .map(|block| {
                hasher.update(serde_json::to_vec(block).unwrap());
                <[u8; 32]>::from(hasher.clone().finalize())
            })
            .collect::<Vec<_>>()
    });
}

/// Everything a marked request costs, by size.
#[divan::bench(args = [1_000, 10_000, 100_000, 1_000_000])]
fn all_of_chat(bencher: Bencher<'_, '_>, bytes: usize) {
    run(bencher, &body(Kind::Chat, bytes), |body| {
        let request = scan(body).unwrap();
        let breakpoints = request.breakpoints(&RULES).unwrap();
        (
            breakpoints,
            request.prefix_hashes(&[], u32::MAX),
            request.forwarded(&EDITS),
        )
    });
}

/// The same, the plain way.
#[divan::bench(args = [1_000, 10_000, 100_000, 1_000_000])]
fn all_of_chat_plain(bencher: Bencher<'_, '_>, bytes: usize) {
    run(bencher, &body(Kind::Chat, bytes), |body| {
        let (value, out) = plain_edit(body);
        let mut hasher = Sha256::new();
        let hashes: Vec<[u8; 32]> = value["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| {
                hasher.update(serde_json::to_vec(message).unwrap());
                hasher.clone().finalize().into()
            })
            .collect();
        (out, hashes)
    });
}

/// The scan alone.
#[divan::bench(args = KINDS)]
fn scan_100k(bencher: Bencher<'_, '_>, kind: Kind) {
    run(bencher, &body(kind, 100_000), |body| {
        scan(body).unwrap().block_count()
    });
}

/// What reading without keeping anything costs in `serde_json`.
#[divan::bench(args = KINDS)]
fn scan_100k_serde_ignored(bencher: Bencher<'_, '_>, kind: Kind) {
    run(bencher, &body(kind, 100_000), |body| {
        serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
    });
}
