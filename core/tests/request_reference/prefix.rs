//! A second implementation of `docs/prefix-hash.md`, from a tree of the request.

use std::collections::BTreeMap;

use prompt_cache_core::PrefixHash;

use crate::request_support::*;

/// A block as `docs/prefix-hash.md` defines it, with its place in the message.
#[derive(Debug, PartialEq, Clone)]
pub struct Block {
    pub header: Option<Header>,
    pub body: Body,
}

#[derive(Debug, PartialEq, Clone)]
pub enum Header {
    Members(BTreeMap<String, Json>),
    Other(Json),
}

#[derive(Debug, PartialEq, Clone)]
pub enum Body {
    Tool(Json),
    Text(String),
    Part(BTreeMap<String, Json>),
    OtherPart(Json),
    ToolCall(Json),
    Boundary,
}

/// The members that start the chain, and the blocks.
pub type Model = (BTreeMap<String, Json>, Vec<Block>);

fn last_of_each(members: &[(String, Json)]) -> BTreeMap<String, Json> {
    members.iter().cloned().collect()
}

fn elements(value: Option<&Json>) -> &[Json] {
    match value {
        Some(Array(items)) => items,
        _ => &[],
    }
}

/// Reads a request as the documentation says.
pub fn model(tree: &Json, params: &[String]) -> Model {
    let tree = without_markers(tree, true);
    let Object(members) = &tree else { panic!() };
    let mut start = last_of_each(members);
    start.retain(|name, value| match name.as_str() {
        "tools" | "messages" => *value != Null && elements(Some(value)).is_empty(),
        _ => *value != Null && params.contains(name),
    });
    let mut blocks = Vec::new();
    for tool in elements(tree.get("tools")) {
        blocks.push(Block {
            header: None,
            body: Body::Tool(tool.clone()),
        });
    }
    for message in elements(tree.get("messages")) {
        let first = blocks.len();
        let header = match message {
            Object(members) => {
                let mut header = last_of_each(members);
                match header.get("content") {
                    Some(Text(value)) => {
                        blocks.push(Block {
                            header: None,
                            body: Body::Text(value.clone()),
                        });
                        header.remove("content");
                    }
                    Some(Array(parts)) if !parts.is_empty() => {
                        blocks.extend(parts.iter().map(|part| Block {
                            header: None,
                            body: model_part(part),
                        }));
                        header.remove("content");
                    }
                    Some(Null) => drop(header.remove("content")),
                    _ => {}
                }
                match header.get("tool_calls") {
                    Some(Array(calls)) if !calls.is_empty() => {
                        let body = |call: &Json| Body::ToolCall(call.clone());
                        blocks.extend(calls.iter().map(|call| Block {
                            header: None,
                            body: body(call),
                        }));
                        header.remove("tool_calls");
                    }
                    Some(Null) => drop(header.remove("tool_calls")),
                    _ => {}
                }
                Header::Members(header)
            }
            other => Header::Other(other.clone()),
        };
        if blocks.len() == first {
            blocks.push(Block {
                header: None,
                body: Body::Boundary,
            });
        }
        blocks[first].header = Some(header);
    }
    (start, blocks)
}

fn model_part(part: &Json) -> Body {
    let Object(members) = part else {
        return Body::OtherPart(part.clone());
    };
    let members = last_of_each(members);
    match (members.get("type"), members.get("text")) {
        (Some(Text(kind)), Some(Text(value))) if kind == "text" && members.len() == 2 => {
            Body::Text(value.clone())
        }
        _ => Body::Part(members),
    }
}

fn encode_sized(token: u8, bytes: &str, out: &mut Vec<u8>) {
    out.push(token);
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes.bytes());
}

fn encode_string(value: &str, out: &mut Vec<u8>) {
    let spelling = serde_json::to_string(value).unwrap();
    let inside = spelling
        .strip_prefix('"')
        .unwrap()
        .strip_suffix('"')
        .unwrap();
    encode_sized(4, inside, out);
}

fn encode(value: &Json, out: &mut Vec<u8>) {
    match value {
        Null => out.push(0),
        Bool(value) => out.push(1 + u8::from(*value)),
        Number(spelling) => encode_sized(3, spelling, out),
        Text(value) => encode_string(value, out),
        Array(items) => {
            out.push(5);
            items.iter().for_each(|item| encode(item, out));
            out.push(7);
        }
        Object(members) => {
            out.push(6);
            encode_members(members.iter().map(|(name, value)| (name, value)), out);
        }
    }
}

fn encode_members<'a>(members: impl Iterator<Item = (&'a String, &'a Json)>, out: &mut Vec<u8>) {
    for (name, value) in members {
        encode_string(name, out);
        encode(value, out);
    }
    out.push(7);
}

/// The hashes, as the documentation says.
pub fn reference((start, blocks): &Model) -> Vec<PrefixHash> {
    let mut bytes = Vec::new();
    encode_string("prompt-cache-prefix/1", &mut bytes);
    encode_members(start.iter(), &mut bytes);
    let mut link = *blake3::hash(&bytes).as_bytes();
    let mut hashes = Vec::new();
    for block in blocks {
        let mut bytes = link.to_vec();
        let out = &mut bytes;
        match &block.header {
            Some(Header::Members(members)) => {
                out.push(0x11);
                encode_members(members.iter(), out);
            }
            Some(Header::Other(value)) => {
                out.push(0x12);
                encode(value, out);
            }
            None => {}
        }
        match &block.body {
            Body::Tool(tool) => {
                out.push(0x10);
                encode(tool, out);
            }
            Body::Text(value) => {
                out.push(0x13);
                encode_string(value, out);
            }
            Body::Part(members) => {
                out.push(0x14);
                encode_members(members.iter(), out);
            }
            Body::OtherPart(value) => {
                out.push(0x15);
                encode(value, out);
            }
            Body::ToolCall(call) => {
                out.push(0x16);
                encode(call, out);
            }
            Body::Boundary => out.push(0x17),
        }
        link = *blake3::hash(&bytes).as_bytes();
        hashes.push(PrefixHash::new(link));
    }
    hashes
}

/// The same request, put differently.
pub fn rephrased(tree: &Json, seed: u64) -> Json {
    let mut tree = tree.clone();
    let mut dice = Dice::new(seed);
    each_carrier(&mut tree, &mut |carrier, members| {
        if carrier == Carrier::Message && dice.roll(2) == 0 {
            for (name, value) in members.iter_mut() {
                if let (true, Text(content)) = (name == "content", &*value) {
                    *value = Array(vec![object([
                        ("type", text("text")),
                        ("text", text(content)),
                    ])]);
                }
            }
        }
        if carrier != Carrier::ToolOrCall {
            dice.shuffle(members);
        }
    });
    with_markers(&tree, seed)
}

/// Changes something, somewhere: a value, a name, an order.
pub fn mutate(value: &mut Json, dice: &mut Dice) {
    match value {
        Array(items) if !items.is_empty() && dice.roll(8) > 0 => {
            let at = dice.roll(items.len());
            match dice.roll(10) {
                0 => drop(items.remove(at)),
                1 => items.insert(at, items[at].clone()),
                2 => items.rotate_left(1),
                _ => mutate(&mut items[at], dice),
            }
        }
        Object(members) if !members.is_empty() && dice.roll(8) > 0 => {
            let at = dice.roll(members.len());
            match dice.roll(12) {
                0 => drop(members.remove(at)),
                1 => members[at].0.push('x'),
                2 => members.rotate_left(1),
                _ => mutate(&mut members[at].1, dice),
            }
        }
        Text(value) if dice.roll(4) > 0 => value.push('x'),
        Number(spelling) if dice.roll(4) > 0 && !spelling.contains(['e', 'E']) => {
            spelling.push_str("e0")
        }
        other => {
            *other = match dice.roll(5) {
                0 => Null,
                1 => Bool(true),
                2 => text("m"),
                3 => Array(vec![]),
                _ => Object(vec![]),
            }
        }
    }
}
