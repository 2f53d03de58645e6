//! Conversations that are made to be slow cost every template of the zoo as much as they are long,
//! or are given up as too expensive.

use prompt_cache_core::request::scan;
use prompt_cache_index::tokens::template::{Conversation, prefix};
use serde_json::Map;

use crate::linear::assert_linear;
use crate::zoo::ZOO;

/// Head, what comes again and again, tail.
const SHAPES: &[(&str, &str, &str, &str)] = &[
    (
        "turns",
        r#"{"messages":["#,
        r#"{"role":"user","content":"x"},{"role":"assistant","content":"y"},"#,
        r#"{"role":"user","content":"x"}]}"#,
    ),
    (
        "users",
        r#"{"messages":["#,
        r#"{"role":"user","content":"x"},"#,
        r#"{"role":"user","content":"x"}]}"#,
    ),
    (
        "systems",
        r#"{"messages":["#,
        r#"{"role":"system","content":"x"},"#,
        r#"{"role":"user","content":"x"}]}"#,
    ),
    (
        "assistants",
        r#"{"messages":[{"role":"user","content":"x"}"#,
        r#",{"role":"assistant","content":"y"}"#,
        "]}",
    ),
    (
        "results",
        r#"{"messages":[{"role":"user","content":"x"}"#,
        r#",{"role":"tool","tool_call_id":"callcall1","content":"y"}"#,
        "]}",
    ),
    (
        "parts",
        r#"{"messages":[{"role":"user","content":["#,
        r#"{"type":"text","text":"x"},"#,
        r#"{"type":"text","text":"x"}]}]}"#,
    ),
    (
        "calls",
        r#"{"messages":[{"role":"user","content":"x"},{"role":"assistant","tool_calls":["#,
        r#"{"id":"callcall1","type":"function","function":{"name":"n","arguments":"{}"}},"#,
        r#"{"id":"callcall1","type":"function","function":{"name":"n","arguments":"{}"}}]}]}"#,
    ),
    (
        "tools",
        r#"{"messages":[{"role":"user","content":"x"}],"tools":["#,
        r#"{"type":"function","function":{"name":"n","parameters":{"type":"object","properties":{}}}},"#,
        r#"{"type":"function","function":{"name":"n"}}]}"#,
    ),
    (
        "properties",
        r#"{"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"n","parameters":{"type":"object","required":["#,
        r#""a","#,
        r#""a"],"properties":{"a":{"type":"string"}}}}}]}"#,
    ),
    (
        "thoughts",
        r#"{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":""#,
        "<think>x</think>",
        r#""},{"role":"user","content":"x"}]}"#,
    ),
    (
        "ends of thoughts",
        r#"{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":""#,
        r"</think>\n",
        r#""},{"role":"user","content":"x"}]}"#,
    ),
    (
        "reasoning",
        r#"{"messages":[{"role":"user","content":"x"},{"role":"assistant","reasoning_content":""#,
        r"x\n",
        r#"","content":"y"},{"role":"user","content":"x"}]}"#,
    ),
    (
        "white space",
        r#"{"messages":[{"role":"user","content":""#,
        r" \n",
        r#""}]}"#,
    ),
    (
        "quotes",
        r#"{"messages":[{"role":"user","content":"x"},{"role":"assistant","tool_calls":[{"id":"callcall1","type":"function","function":{"name":"n","arguments":{"a":""#,
        r#"\"\\"#,
        r#""}}}]}]}"#,
    ),
    (
        "templates",
        r#"{"messages":[{"role":"user","content":""#,
        "{% for x in y %}{{ x }}",
        r#""}]}"#,
    ),
];

#[test]
fn conversations_of_every_shape() {
    for animal in &ZOO {
        let template = animal.template();
        for (name, head, item, tail) in SHAPES {
            let make = |n: usize| {
                [head, item.repeat(n / item.len() + 1).as_str(), tail]
                    .concat()
                    .into_bytes()
            };
            let work = |body: &[u8]| {
                let chat = Conversation::parse(body, template.format(), &Map::new()).unwrap();
                let request = scan(body).unwrap();
                let last = u32::try_from(request.block_count() - 1).unwrap();
                let place = request.block_place(last).unwrap();
                // What a template refuses it refuses early.
                let _ = chat.render(&template, &|| true);
                let _ = prefix(&template, &chat, place, &|| true);
            };
            assert_linear(&format!("{}: {name}", animal.name), &make, 10_000, &work);
        }
    }
}
