//! One piece of work, our way and the plain way.

use prompt_cache_core::{
    PrefixHash,
    ledger::{Breakpoint, Split, Tier},
    request::{Edits, Implied, MarkerRules, MixedTtlOrder, scan},
    response::{Answer, BodyKind, RewriteOptions, Rewriter},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const RULES: MarkerRules<'static> = MarkerRules {
    tiers: &[Tier::FiveMinutes, Tier::OneHour],
    default_tier: Tier::FiveMinutes,
    mixed_ttl_order: MixedTtlOrder::Any,
    implied: Implied::Nothing,
};
const EDITS: Edits<'static> = Edits {
    ensure_usage: true,
    cache_salt: None,
};

/// Scan, breakpoints and splice.
pub fn edit(body: &[u8]) -> (Vec<Breakpoint>, Option<Vec<u8>>) {
    let request = scan(body).unwrap();
    (
        request.breakpoints(&RULES).unwrap(),
        request.forwarded(&EDITS),
    )
}

/// The plain way to the same bytes: parse to a tree, delete, write.
pub fn edit_plain(body: &[u8]) -> (Value, Vec<u8>) {
    let mut value: Value = serde_json::from_slice(body).unwrap();
    delete(&mut value);
    value["stream_options"] = json!({"include_usage": true});
    let out = serde_json::to_vec(&value).unwrap();
    (value, out)
}

/// Scan and the hash of every prefix.
pub fn hash(body: &[u8]) -> Vec<PrefixHash> {
    scan(body).unwrap().prefix_hashes(&[], u32::MAX)
}

/// The plain way to such hashes: parse to a tree, write each block, SHA-256.
pub fn hash_plain(body: &[u8]) -> Vec<[u8; 32]> {
    let mut value: Value = serde_json::from_slice(body).unwrap();
    delete(&mut value);
    prefixes_plain(&value)
}

/// Everything a marked request costs.
pub fn all(body: &[u8]) -> (Vec<Breakpoint>, Vec<PrefixHash>, Option<Vec<u8>>) {
    let request = scan(body).unwrap();
    (
        request.breakpoints(&RULES).unwrap(),
        request.prefix_hashes(&[], u32::MAX),
        request.forwarded(&EDITS),
    )
}

/// The same, the plain way.
pub fn all_plain(body: &[u8]) -> (Vec<u8>, Vec<[u8; 32]>) {
    let (value, out) = edit_plain(body);
    (out, prefixes_plain(&value))
}

/// A rewriter whose answer is there.
pub fn rewriter(kind: BodyKind) -> Rewriter {
    let options = RewriteOptions {
        api: prompt_cache_core::api::Api::Chat,
        kind,
        drop_usage_only: true,
        event_bytes_max: 1 << 20,
        held_bytes_max: 1 << 18,
        scrub: false,
    };
    Rewriter::new(options, Some(Answer::Split(Split::default())))
}

/// The plain way to find usage in a chunk of whole events: split, parse each, look.
pub fn read_events_plain(chunk: &[u8]) -> usize {
    chunk
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"data: "))
        .filter_map(|data| serde_json::from_slice::<Value>(data).ok())
        .filter(|event| event["usage"].is_object() || !event["error"].is_null())
        .count()
}

fn prefixes_plain(value: &Value) -> Vec<[u8; 32]> {
    let mut hasher = Sha256::new();
    let blocks = [value.get("tools"), value.get("messages")];
    let blocks = blocks
        .into_iter()
        .flatten()
        .filter_map(Value::as_array)
        .flatten();
    blocks
        .map(|block| {
            hasher.update(serde_json::to_vec(block).unwrap());
            hasher.clone().finalize().into()
        })
        .collect()
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
