//! The forwarded body, byte for byte: one marker after the other is cut out of the text, then one
//! edit after the other is made, and the text is read anew each time.

use std::ops::Range;

use prompt_cache_core::request::Edits;

use crate::{
    request_support::Carrier,
    response_reference::text::{Members, Node, named, object},
};

/// What is to be forwarded in place of `body`, which is an object.
pub fn forwarded(body: &str, edits: &Edits<'_>) -> String {
    let mut text = body.to_owned();
    while let Some(cut) = top(&text, &members(&text)) {
        text.replace_range(cut, "");
    }
    if edits.ensure_usage && last(&text, "stream").is_some_and(|(value, _)| text[value] == *"true")
    {
        ask_for_usage(&mut text);
    }
    if let Some(salt) = edits.cache_salt {
        let salt = serde_json::to_string(salt).unwrap();
        match last(&text, "cache_salt") {
            Some((value, _)) => text.replace_range(value, &salt),
            None => add(&mut text, "cache_salt", &salt),
        }
    }
    text
}

fn ask_for_usage(text: &mut String) {
    const ASKED: &str = r#"{"include_usage":true}"#;
    match last(text, "stream_options") {
        None => add(text, "stream_options", ASKED),
        Some((value, Node::Object(_))) => {
            let mut options = text[value.clone()].to_owned();
            match last(&options, "include_usage") {
                Some((flag, _)) => options.replace_range(flag, "true"),
                None => add(&mut options, "include_usage", "true"),
            }
            text.replace_range(value, &options);
        }
        Some((value, _)) if text[value.clone()] == *"null" => text.replace_range(value, ASKED),
        Some(_) => {}
    }
}

fn members(text: &str) -> Members {
    object(text.as_bytes()).expect("an object")
}

/// The last member of that name.
fn last(text: &str, name: &str) -> Option<(Range<usize>, Node)> {
    let mut found = members(text);
    found.retain(|(key, _, _)| named(text.as_bytes(), key, name));
    found.pop().map(|(_, value, node)| (value, node))
}

/// Adds a member at the end of an object.
fn add(text: &mut String, name: &str, value: &str) {
    let comma = if members(text).is_empty() { "" } else { "," };
    let close = text.rfind('}').unwrap();
    text.insert_str(close, &format!("{comma}\"{name}\":{value}"));
}

/// What goes with the first marker of an object and of all it carries.
fn top(text: &str, members: &Members) -> Option<Range<usize>> {
    let tools = items(text, members, "tools").find_map(|tool| cut(text, tool, Carrier::ToolOrCall));
    let messages = || items(text, members, "messages").find_map(|it| message(text, it));
    tools
        .or_else(messages)
        .or_else(|| cut(text, members, Carrier::Top))
}

fn message(text: &str, members: &Members) -> Option<Range<usize>> {
    let parts = items(text, members, "content").find_map(|part| cut(text, part, Carrier::Part));
    let calls =
        || items(text, members, "tool_calls").find_map(|call| cut(text, call, Carrier::ToolOrCall));
    parts
        .or_else(calls)
        .or_else(|| cut(text, members, Carrier::Message))
}

/// The objects in all arrays of that name.
fn items<'a>(
    text: &'a str,
    members: &'a Members,
    name: &'a str,
) -> impl Iterator<Item = &'a Members> {
    members
        .iter()
        .filter(move |(key, _, _)| named(text.as_bytes(), key, name))
        .flat_map(|(_, _, node)| match node {
            Node::Array(items) => items.as_slice(),
            _ => &[],
        })
        .filter_map(|(_, item)| match item {
            Node::Object(members) => Some(members),
            _ => None,
        })
}

/// The first marker of that object, with one comma and the white space between the two.
fn cut(text: &str, members: &Members, carrier: Carrier) -> Option<Range<usize>> {
    let at = members.iter().position(|(key, value, _)| {
        let name: String = serde_json::from_str(&text[key.clone()]).unwrap();
        carrier.is_marker(&name) && text[value.clone()] != *"null"
    })?;
    let (key, value, _) = &members[at];
    if at > 0 {
        let before = members[at - 1].1.end;
        let comma = before + text[before..].find(',').unwrap();
        Some(comma..value.end)
    } else if members.len() > 1 {
        let comma = value.end + text[value.end..].find(',').unwrap();
        Some(key.start..comma + 1)
    } else {
        Some(key.start..value.end)
    }
}
