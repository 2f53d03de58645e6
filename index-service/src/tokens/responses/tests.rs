//! Responses requests beside the chat requests they become.

use prompt_cache_core::api::Api;
use prompt_cache_core::request::{scan, scan_as};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::chat_form;
use crate::tokens::{Encoding, PromptBody, builtin};

/// The chat form and the ends of the blocks in it, as many as the filter sees.
fn converted(body: &Value) -> (Value, Vec<u32>) {
    let body = serde_json::to_vec(body).unwrap();
    let form = chat_form(&body).unwrap();
    assert!(form.ends.is_sorted());
    let seen = scan_as(Api::Responses, &body).unwrap().block_count();
    assert_eq!(form.ends.len(), seen);
    let blocks = scan(&form.body).unwrap().block_count();
    let last = form.ends.last().copied().unwrap_or_default();
    assert!(last as usize <= blocks);
    (serde_json::from_slice(&form.body).unwrap(), form.ends)
}

fn messages(input: &Value) -> (Value, Vec<u32>) {
    let (mut chat, ends) = converted(&json!({ "input": input }));
    (chat["messages"].take(), ends)
}

#[test]
fn every_block_has_its_place_in_the_chat_form() {
    let breakpoint = json!({"mode": "explicit"});
    let (chat, ends) = converted(&json!({
        "model": "m",
        "store": false,
        "reasoning": {"effort": "high", "summary": "auto"},
        "chat_template_kwargs": {"thinking": true},
        "tools": [
            {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": true,
             "description": "d", "prompt_cache_breakpoint": breakpoint},
            {"type": "web_search"},
            {"type": "namespace", "name": "files", "tools": [
                {"type": "function", "name": "read"}, {"type": "custom", "name": "patch"},
                {"type": "function", "name": "write", "defer_loading": true},
            ]},
        ],
        "instructions": "be brief",
        "input": [
            {"role": "developer", "content": [{"type": "input_text", "text": "be exact"}]},
            {"type": "message", "role": "user", "content": "hi"},
            {"type": "reasoning", "id": "r1", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "id": "m1", "status": "completed", "content": [
                {"type": "output_text", "text": "a", "annotations": []}, {"type": "refusal", "refusal": "no"},
            ]},
            {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{\"b\": 1}"},
            {"type": "function_call", "call_id": "2", "name": "read", "namespace": "files", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "one"},
            {"type": "function_call_output", "call_id": "2", "output": [
                {"type": "input_text", "text": "x"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
            ]},
            {"type": "item_reference", "id": "i"},
            {"role": "user", "content": [
                {"type": "input_text", "text": "look", "prompt_cache_breakpoint": breakpoint},
                {"type": "input_image", "file_id": "f"},
                {"type": "input_file", "file_data": "AA=="},
            ]},
        ],
    }));
    let function = |function: Value| json!({"type": "function", "function": function});
    let text = |text: &str| json!({"type": "text", "text": text});
    assert_eq!(
        chat,
        json!({
            "reasoning_effort": "high",
            "chat_template_kwargs": {"thinking": true},
            "tools": [
                function(json!({"name": "look", "description": "d", "parameters": {"type": "object"}, "strict": true})),
                function(json!({"name": "files__read", "strict": null})),
                function(json!({"name": "files__write", "strict": null, "defer_loading": true})),
            ],
            "messages": [
                {"role": "system", "content": [text("be brief"), text("\nbe exact")]},
                {"role": "user", "content": "hi"},
                {"role": "assistant", "reasoning_content": "hm", "content": [text("a"), text("no")], "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{\"b\": 1}"}},
                    {"id": "2", "type": "function", "function": {"name": "files__read", "arguments": "{}"}},
                ]},
                {"role": "tool", "tool_call_id": "1", "content": "one"},
                {"role": "tool", "tool_call_id": "2", "content": [
                    text("x"),
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
                ]},
                {"role": "user", "content": [
                    text("look"), {"type": "image_url", "image_url": {"url": ""}}, text(""),
                ]},
            ],
        })
    );
    let expected = [
        1, 1, 3, // tools
        4, 5, // instructions, developer
        6, // user
        6, 7, 8, // reasoning and two parts
        9, 10, // calls
        11, 12, 13, // outputs
        13, // reference
        14, 15, 16, // user
    ];
    assert_eq!(ends, expected);
}

#[test]
fn a_text_is_a_message_of_the_user() {
    let (chat, ends) = converted(&json!({"input": "hi", "instructions": null, "tools": []}));
    assert_eq!(
        chat,
        json!({"messages": [{"role": "user", "content": "hi"}]})
    );
    assert_eq!(ends, [1]);
    let (chat, ends) = converted(&json!({"model": "m"}));
    assert_eq!(chat, json!({"messages": []}));
    assert_eq!(ends, [0u32; 0]);
}

#[test]
fn instructions_are_one_system_message() {
    let text = |text: &str| json!({"type": "text", "text": text});
    let table = [
        (json!("one"), json!([text("one")]), vec![1, 2, 3]),
        // Engines leave empty ones out.
        (json!(""), Value::Null, vec![0, 1, 2]),
        (json!([]), Value::Null, vec![1, 2]),
        (json!({"a": 1}), Value::Null, vec![1, 2]),
        (
            json!(["one", {"type": "input_text", "text": "two"}, {"role": "developer", "content": "three"},
                   {"role": "system", "content": [{"type": "input_text", "text": "four"}, "five"]}, 6]),
            json!([
                text("one"),
                text("\ntwo"),
                text("\nthree"),
                text("\nfour\nfive")
            ]),
            vec![1, 2, 3, 4, 4, 5, 6],
        ),
    ];
    for (instructions, system, expected) in table {
        let body = json!({"instructions": instructions, "input": [
            {"role": "user", "content": "a"}, {"role": "developer", "content": "late"},
        ]});
        let (chat, ends) = converted(&body);
        let mut all = vec![
            json!({"role": "user", "content": "a"}),
            json!({"role": "system", "content": "late"}),
        ];
        if system != Value::Null {
            all.insert(0, json!({"role": "system", "content": system}));
        }
        assert_eq!(chat["messages"], Value::Array(all), "{instructions}");
        assert_eq!(ends, expected, "{instructions}");
    }
    let parts = json!([
        {"role": "system", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"role": "system", "content": []},
        {"role": "developer", "content": [{"type": "input_image", "image_url": "u"}, "c"], "output": "no"},
    ]);
    let (found, ends) = messages(&parts);
    let image = json!({"type": "image_url", "image_url": {"url": "u"}});
    let content = json!([text("a"), text("b"), image, text("c")]);
    assert_eq!(found, json!([{"role": "system", "content": content}]));
    assert_eq!(ends, [1, 2, 2, 3, 4, 4]);
}

#[test]
fn what_an_assistant_says_is_joined_only_forwards() {
    let says = |text: &str| json!({"role": "assistant", "content": text});
    let thinks = |text: &str| json!({"type": "reasoning", "content": [{"type": "reasoning_text", "text": text}], "summary": []});
    let calls = json!({"type": "custom_tool_call", "call_id": "c", "name": "n", "input": "x"});
    let call = json!({"id": "c", "type": "function", "function": {"name": "n", "arguments": {"input": "x"}}});
    let table = [
        // Reasoning of one step, then a step of its own.
        (
            json!([thinks("1"), thinks("2"), says("a")]),
            json!([
                {"role": "assistant", "reasoning_content": "1"},
                {"role": "assistant", "reasoning_content": "2", "content": "a"},
            ]),
            vec![0, 1, 2],
        ),
        (
            json!([
                says("a"),
                says("b"),
                calls,
                calls,
                says("c"),
                thinks("1"),
                calls
            ]),
            json!([
                {"role": "assistant", "content": "a"},
                {"role": "assistant", "content": "b", "tool_calls": [call, call]},
                {"role": "assistant", "content": "c"},
                {"role": "assistant", "reasoning_content": "1", "tool_calls": [call]},
            ]),
            vec![1, 2, 3, 4, 5, 5, 6],
        ),
        // Reasoning that nothing follows counts with the next block.
        (
            json!([thinks("1"), {"role": "user", "content": "a"}, thinks("2")]),
            json!([
                {"role": "assistant", "reasoning_content": "1"},
                {"role": "user", "content": "a"},
                {"role": "assistant", "reasoning_content": "2"},
            ]),
            vec![0, 2, 2],
        ),
        (
            json!([thinks(""), {"type": "reasoning", "encrypted_content": "x", "summary": []},
                   {"role": "assistant", "content": []}, calls]),
            json!([
                {"role": "assistant", "content": null},
                {"role": "assistant", "tool_calls": [call]},
            ]),
            vec![0, 0, 1, 2],
        ),
    ];
    for (input, expected, expected_ends) in table {
        let (found, ends) = messages(&input);
        assert_eq!(found, expected, "{input}");
        assert_eq!(ends, expected_ends, "{input}");
    }
}

#[test]
fn what_nobody_sends_keeps_its_blocks() {
    let table = [
        json!("text"),
        json!(null),
        json!([]),
        json!({}),
        json!({"type": "message"}),
        json!({"role": 5, "content": ["a", 1, null]}),
        json!({"role": "user"}),
        json!({"role": "user", "content": 5}),
        json!({"role": "user", "output": ["a", "b"]}),
        json!({"role": "assistant", "content": ["a", 1], "output": ["b"]}),
        json!({"role": "assistant", "content": null, "output": "b"}),
        json!({"type": "function_call", "content": ["a"], "output": "b"}),
        json!({"type": "function_call_output", "content": ["a", "b"]}),
        json!({"type": "function_call_output", "content": ["a", "b"], "output": ["c", {}]}),
        json!({"type": "function_call_output"}),
        json!({"type": "reasoning", "content": ["a", "b"], "output": ["c"]}),
        json!({"type": "mcp_call", "output": "x"}),
        json!({"type": "computer_call_output", "output": {"type": "computer_screenshot"}}),
        json!({"type": 7, "content": "x", "output": ["y"]}),
    ];
    for first in &table {
        for second in &table {
            // They are compared there.
            messages(&json!([first, second]));
        }
    }
}

#[test]
fn bodies_that_are_no_object_have_no_chat_form() {
    for body in ["", "[]", "{", "{\"input\": \"a\"} x"] {
        assert!(chat_form(body.as_bytes()).is_none(), "{body}");
    }
    let deep = format!("{{\"input\": {}{}}}", "[".repeat(1000), "]".repeat(1000));
    assert!(chat_form(deep.as_bytes()).is_none());
}

/// Items of every kind.
fn items() -> Vec<Value> {
    let output =
        json!([{"type": "input_text", "text": "out"}, {"type": "input_image", "image_url": "u"}]);
    vec![
        json!({"role": "developer", "content": "rules"}),
        json!({"role": "system", "content": [{"type": "input_text", "text": ""}, {"type": "input_text", "text": "more rules"}]}),
        json!({"role": "user", "content": "question"}),
        json!({"role": "user", "content": [{"type": "input_text", "text": "one"}, {"type": "input_file", "file_id": "f"}]}),
        json!({"role": "user"}),
        json!({"role": "assistant", "content": [{"type": "output_text", "text": "answer"}]}),
        json!({"role": "assistant", "content": []}),
        json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": "thought"}]}),
        json!({"type": "reasoning", "content": [{"type": "reasoning_text", "text": "a"}, {"type": "reasoning_text", "text": "b"}]}),
        json!({"type": "reasoning", "summary": []}),
        json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{\"a\": 1}"}),
        json!({"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"}),
        json!({"type": "function_call_output", "call_id": "c", "output": "result"}),
        json!({"type": "function_call_output", "call_id": "c", "output": output}),
        json!({"type": "function_call_output", "call_id": "c"}),
        json!({"type": "item_reference", "id": "i"}),
        json!({"type": "mcp_call", "name": "m", "output": "x"}),
    ]
}

/// The tokens up to the end of each block.
fn counts(input: &[Value]) -> Vec<u64> {
    let body = json!({"instructions": "be brief", "input": input});
    let body = serde_json::to_vec(&body).unwrap();
    let form = PromptBody::of(Api::Responses, &body).unwrap();
    let prompt = form.prompt().unwrap();
    let boundaries: Vec<u32> = (0..).take(prompt.block_count()).collect();
    let source = builtin(Encoding::O200kBase);
    let counts = source.count(&prompt, None, &boundaries, &|| true);
    counts.unwrap().prefixes
}

proptest! {
    /// What follows a prefix changes nothing of it.
    #[test]
    fn a_prefix_counts_the_same_whatever_follows(
        input in prop::collection::vec(prop::sample::select(items()), 1..8),
        keep in 0usize..8,
    ) {
        let (kept, _) = input.split_at(keep.min(input.len()));
        let (whole, prefix) = (counts(&input), counts(kept));
        prop_assert_eq!(whole.get(..prefix.len()), Some(prefix.as_slice()));
    }
}
