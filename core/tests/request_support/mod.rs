//! Trees of chat requests for the property tests, and how they are generated.
#![allow(dead_code, unused_imports)]

mod tree;

use proptest::prelude::*;
pub use tree::*;

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z ]{0,12}",
        3 => "(\\PC|[\"\\\\/\n\r\t\u{0}\u{1f}\u{7f}é漢😀]){0,40}",
        1 => ("\\PC{1,8}", 1usize..400).prop_map(|(piece, times)| piece.repeat(times)),
        1 => Just("cache_control".to_owned()),
    ]
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z]{1,4}",
        1 => any_text(),
        1 => prop::sample::select(vec![
            "cache_control", "type", "text", "content", "tool_calls", "role", "name", "messages",
            "tools", "stream", "prompt_cache_breakpoint", "refusal", "reasoning_content",
        ]).prop_map(str::to_owned),
    ]
}

fn any_number() -> impl Strategy<Value = String> {
    "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,8})?([eE][+-]?[0-9]{1,2})?"
}

/// Any value; names may repeat.
pub fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Null),
        any::<bool>().prop_map(Bool),
        any_number().prop_map(Number),
        any_text().prop_map(Json::String),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Array),
            prop::collection::vec((any_name(), inner), 0..4).prop_map(Object),
        ]
    })
}

fn optional(
    name: &'static str,
    value: impl Strategy<Value = Json>,
) -> impl Strategy<Value = Vec<(String, Json)>> {
    prop::option::of(value).prop_map(move |value| {
        value
            .into_iter()
            .map(|value| (name.to_owned(), value))
            .collect()
    })
}

fn shuffled(parts: impl Strategy<Value = Vec<Vec<(String, Json)>>>) -> impl Strategy<Value = Json> {
    parts
        .prop_map(|parts| parts.concat())
        .prop_shuffle()
        .prop_map(Object)
}

fn any_part() -> impl Strategy<Value = Json> {
    prop_oneof![
        4 => any_text().prop_map(|value| object([("type", text("text")), ("text", Json::String(value))])),
        1 => (any_text(), any_json()).prop_map(|(value, extra)| object([("x", extra), ("text", Json::String(value)), ("type", text("text"))])),
        2 => any_text().prop_map(|url| object([("type", text("image_url")), ("image_url", object([("url", Json::String(url))]))])),
        1 => any_json(),
    ]
}

fn any_tool() -> impl Strategy<Value = Json> {
    prop_oneof![
        4 => (any_text(), any_json()).prop_map(|(name, schema)| object([
            ("type", text("function")),
            ("function", object([("name", Json::String(name)), ("parameters", schema)])),
        ])),
        1 => any_json(),
    ]
}

fn any_message() -> impl Strategy<Value = Json> {
    let content = prop_oneof![
        4 => any_text().prop_map(Json::String),
        4 => prop::collection::vec(any_part(), 0..4).prop_map(Array),
        1 => Just(Null),
        1 => any_json(),
    ];
    let calls = prop_oneof![
        4 => prop::collection::vec(any_tool(), 0..3).prop_map(Array),
        1 => any_json(),
    ];
    let members = (
        optional("role", prop_oneof![
            9 => prop::sample::select(vec!["user", "assistant", "system", "tool"]).prop_map(text),
            1 => any_json(),
        ]),
        optional("content", content),
        optional("tool_calls", calls),
        optional("name", any_json()),
        optional("reasoning_content", any_text().prop_map(Json::String)),
    )
        .prop_map(|(a, b, c, d, e)| vec![a, b, c, d, e]);
    prop_oneof![12 => shuffled(members), 1 => any_json()]
}

/// A chat request without markers: plausible, with odd spots. No member of it occurs twice at a
/// place whose order may be shuffled.
pub fn any_request() -> impl Strategy<Value = Json> {
    let stream_options = prop_oneof![
        Just(Null),
        Just(Bool(true)),
        Just(Object(vec![])),
        prop_oneof![Just(Null), any::<bool>().prop_map(Bool)]
            .prop_map(|v| object([("include_usage", v)])),
        any_json(),
    ];
    let tools =
        prop_oneof![4 => prop::collection::vec(any_tool(), 0..4).prop_map(Array), 1 => any_json()];
    let messages = prop_oneof![9 => prop::collection::vec(any_message(), 0..6).prop_map(Array), 1 => any_json()];
    let members = (
        optional("model", prop_oneof![4 => Just(text("m")), 1 => any_json()]),
        optional("messages", messages),
        optional("tools", tools),
        optional(
            "stream",
            prop_oneof![4 => any::<bool>().prop_map(Bool), 1 => any_json()],
        ),
        optional("stream_options", stream_options),
        optional("documents", any_json()),
        optional("temperature", any_json()),
        optional("metadata", any_json()),
    )
        .prop_map(|(a, b, c, d, e, f, g, h)| vec![a, b, c, d, e, f, g, h]);
    shuffled(members).prop_map(|tree| dedup(without_markers(&tree, true)))
}

/// Removes members that occur twice where their order may be shuffled: at the top level, in
/// messages and in parts.
fn dedup(mut tree: Json) -> Json {
    each_carrier(&mut tree, &mut |carrier, members| {
        if carrier != Carrier::ToolOrCall {
            let mut seen = std::collections::BTreeSet::new();
            members.retain(|(name, _)| seen.insert(name.clone()));
        }
    });
    tree
}
