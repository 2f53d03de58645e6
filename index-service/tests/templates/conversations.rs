//! Generated conversations: turns, reasoning, tools and their results, texts with every kind of
//! edge.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::zoo::Animal;

/// Texts that templates trim, split, escape or mistake for their own.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,8}( [a-z]{1,8}){0,6}",
        "[ \t\n]{0,3}[a-zäß字]{1,6}[ \t\n]{0,3}",
        prop::sample::select(vec![
            "<|im_end|>",
            "<|im_start|>assistant\nfree tokens",
            "[/INST] and </s>",
            "<think>\nhm\n</think>\n\nYes.",
            "e\u{301}👩‍👩‍👧 \"quoted\" \\ \u{0} \u{2028}",
            "{{ messages }} {% raw %}",
            "日本語のテキスト、そして改行\n終わり",
            "1 < 2 & 3 > 2",
        ])
        .prop_map(str::to_owned),
    ]
}

fn tool(name: usize) -> impl Strategy<Value = Value> {
    (text(), any::<bool>()).prop_map(move |(description, required)| {
        let mut parameters = json!({"type": "object", "properties": {
            "city": {"type": "string", "description": description},
            "days": {"type": "array", "items": {"type": "integer"}},
        }});
        if required {
            parameters["required"] = json!(["city"]);
        }
        json!({"type": "function", "function": {
            "name": format!("tool_{name}"), "description": description, "parameters": parameters,
        }})
    })
}

/// The messages between two questions of the user: calls and their results, then an answer.
fn answer(calls_max: usize) -> impl Strategy<Value = Vec<Value>> {
    let call = (text(), 0..100u32);
    let calls = prop::collection::vec(call, 0..=calls_max);
    (calls, text(), text(), any::<bool>()).prop_map(|(calls, said, result, thinks)| {
        let mut messages = Vec::new();
        if !calls.is_empty() {
            let call = |(at, (city, days)): (usize, &(String, u32))| {
                json!({"id": format!("call{at:05}"), "type": "function", "function": {
                    "name": format!("tool_{at}"),
                    "arguments": json!({"city": city, "days": [days]}).to_string(),
                }})
            };
            let all: Vec<Value> = calls.iter().enumerate().map(call).collect();
            let mut message = json!({"role": "assistant", "content": null, "tool_calls": all});
            if thinks {
                message["reasoning_content"] = json!("I should look.");
            }
            messages.push(message);
            for at in 0..calls.len() {
                messages.push(
                    json!({"role": "tool", "tool_call_id": format!("call{at:05}"),
                                     "content": result}),
                );
            }
        }
        let mut message = json!({"role": "assistant", "content": said});
        if thinks {
            message["reasoning_content"] = json!("Now I know.");
        }
        messages.push(message);
        messages
    })
}

/// A conversation that the template of `animal` accepts.
pub fn conversation(animal: &Animal) -> impl Strategy<Value = Value> + use<> {
    let calls_max = match (animal.tools, animal.many_calls) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    };
    let system = animal.system;
    let tools = animal.tools;
    let turns = prop::collection::vec((text(), answer(calls_max)), 1..4);
    (
        prop::option::of(text()),
        (any::<bool>(), tool(0), tool(1)),
        turns,
        any::<bool>(),
    )
        .prop_map(
            move |(system_text, (with_tools, first, second), turns, open)| {
                let mut messages = Vec::new();
                if let Some(text) = system_text.filter(|_| system) {
                    messages.push(json!({"role": "system", "content": text}));
                }
                for (question, answer) in turns {
                    messages.push(json!({"role": "user", "content": question}));
                    messages.extend(answer);
                }
                if open {
                    // The model is to answer.
                    while messages
                        .last()
                        .is_some_and(|last| last["role"] == "assistant")
                    {
                        messages.pop();
                    }
                }
                let mut body = json!({"model": "m", "messages": messages});
                if tools && (with_tools || body.to_string().contains("tool_calls")) {
                    body["tools"] = json!([first, second]);
                }
                body
            },
        )
}
