//! What a request says, read from a `serde_json::Value` or a tree of it.

use serde_json::Value;

use crate::{
    request_reference::prefix::{Block, Body, Header},
    request_support::{Json, Text, compact},
};

fn elements(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The number of blocks.
pub fn block_count(body: &Value) -> usize {
    let of_message = |message: &Value| {
        let content = match &message["content"] {
            Value::String(_) => 1,
            other => elements(other).len(),
        };
        (content + elements(&message["tool_calls"]).len()).max(1)
    };
    let messages = elements(&body["messages"]).iter().map(of_message);
    elements(&body["tools"]).len() + messages.sum::<usize>()
}

/// Whether there is a marker, valid or not, that could give a breakpoint.
pub fn marked(body: &Value) -> bool {
    let any = |value: &Value, names: &[&str]| {
        let has = |item: &Value| names.iter().any(|name| !item[*name].is_null());
        elements(value).iter().any(has)
    };
    let options = &body["prompt_cache_options"];
    let lasts = match &options["ttl"] {
        Value::Null => true,
        Value::String(ttl) => is_duration(ttl),
        _ => false,
    };
    let only_explicit = options["mode"] == "explicit" && lasts;
    any(&body["tools"], &["cache_control"])
        || any(&body["messages"], &["cache_control"])
        || elements(&body["messages"]).iter().any(|message| {
            let part_markers = ["cache_control", "prompt_cache_breakpoint"];
            any(&message["content"], &part_markers)
                || any(&message["tool_calls"], &["cache_control"])
        })
        || !body["cache_control"].is_null()
        || !(options.is_null() || only_explicit)
}

/// A positive number of seconds, minutes, hours or days that fits into 64 bits as seconds.
fn is_duration(ttl: &str) -> bool {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86400)];
    units.iter().any(|(unit, seconds)| {
        ttl.strip_suffix(unit).is_some_and(|count| {
            let count = count.bytes().all(|it| it.is_ascii_digit()).then_some(count);
            let count = count.and_then(|count| count.parse::<u128>().ok());
            let total = count.and_then(|count| count.checked_mul(*seconds));
            total.is_some_and(|total| (1..=u128::from(u64::MAX)).contains(&total))
        })
    })
}

/// The text that is counted for a block.
pub fn text(block: &Block) -> String {
    let string = |value: Option<&Json>| match value {
        Some(Text(value)) => Some(value.clone()),
        _ => None,
    };
    let mut text = String::new();
    if let Some(Header::Members(members)) = &block.header {
        for name in ["reasoning_content", "refusal"] {
            text.extend(string(members.get(name)));
        }
    }
    match &block.body {
        Body::Text(value) | Body::OtherPart(Text(value)) => text.push_str(value),
        Body::Part(members) => {
            let names = ["text", "refusal", "thinking"];
            text.extend(names.iter().find_map(|name| string(members.get(*name))));
        }
        Body::Tool(value) | Body::ToolCall(value) => {
            text.push_str(&String::from_utf8(compact(value)).unwrap());
        }
        Body::OtherPart(_) | Body::Boundary => {}
    }
    text
}
