//! Where prefixes end, as properties over the whole zoo.

use prompt_cache_core::request::BlockPlace;
use prompt_cache_index::tokens::template::ChatTemplate;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::conversations::conversation;
use crate::zoo::{Animal, ZOO, places, prefixes, render};

/// Runs `check` on conversations for every animal.
fn for_all(check: impl Fn(&Animal, &ChatTemplate, &Value) -> Result<(), TestCaseError>) {
    for animal in &ZOO {
        let template = animal.template();
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            cases: 24,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        let checked = runner.run(&conversation(animal), |body| {
            check(animal, &template, &body)
        });
        if let Err(error) = checked {
            panic!("{}: {error}", animal.name);
        }
    }
}

/// `body` with everything after the block at `place` replaced by something else.
fn with_another_end(body: &Value, place: BlockPlace) -> Value {
    let mut body = body.clone();
    let more = json!({"role": "user", "content": "Something else entirely."});
    match place {
        BlockPlace::Tool { tool } => {
            body["tools"]
                .as_array_mut()
                .unwrap()
                .truncate(tool as usize + 1);
            body["messages"] = json!([more]);
        }
        BlockPlace::Part { message, .. } | BlockPlace::Empty { message } => {
            let messages = body["messages"].as_array_mut().unwrap();
            messages.truncate(message as usize + 1);
            messages[message as usize]
                .as_object_mut()
                .unwrap()
                .remove("tool_calls");
            messages.push(more);
        }
        BlockPlace::ToolCall { message, call } => {
            let messages = body["messages"].as_array_mut().unwrap();
            messages.truncate(message as usize + 1);
            let calls = messages[message as usize]["tool_calls"]
                .as_array_mut()
                .unwrap();
            calls.truncate(call as usize + 1);
            messages.push(more);
        }
    }
    body
}

#[test]
fn the_zoo_accepts_its_conversations() {
    for_all(|_, template, body| {
        let rendered = render(template, body);
        prop_assert!(rendered.is_ok(), "{rendered:?}");
        Ok(())
    });
}

#[test]
fn a_prefix_does_not_depend_on_what_follows() {
    for_all(|_, template, body| {
        let texts = prefixes(template, body);
        for (block, place) in places(body).into_iter().enumerate() {
            let other = prefixes(template, &with_another_end(body, place));
            prop_assert_eq!(&texts[block], &other[block], "block {}", block);
        }
        Ok(())
    });
}

#[test]
fn string_content_and_its_one_part_form_have_the_same_prefixes() {
    for_all(|_, template, body| {
        let mut parts = body.clone();
        for message in parts["messages"].as_array_mut().unwrap() {
            if let Some(text) = message["content"].as_str() {
                message["content"] = json!([{"type": "text", "text": text}]);
            }
        }
        prop_assert_eq!(prefixes(template, body), prefixes(template, &parts));
        prop_assert_eq!(render(template, body), render(template, &parts));
        Ok(())
    });
}

/// Where the model is to answer, its prompt starts with the text of the last block's prefix, and
/// nothing but the end of the message and the start of the answer comes after it.
#[test]
fn the_last_prefix_is_the_prompt_but_for_the_turn_of_the_model() {
    for_all(|_, template, body| {
        let last = body["messages"].as_array().unwrap().last().unwrap();
        if last["role"] == "assistant" {
            return Ok(());
        }
        let whole = render(template, body).unwrap();
        let prefix = prefixes(template, body).pop().unwrap().unwrap();
        let rest = whole.strip_prefix(&prefix);
        prop_assert!(
            rest.is_some_and(|rest| rest.trim().len() < 80),
            "{prefix:?}\n{whole:?}"
        );
        Ok(())
    });
}

/// Templates that render earlier messages the same whatever follows.
const STEADY: [&str; 7] = [
    "qwen2.5",
    "llama3.1",
    "mistral-tekken",
    "gemma2",
    "gemma3",
    "phi4-mini",
    "deepseek-r1",
];

#[test]
fn prefixes_of_messages_are_leading_text_of_the_prompt() {
    for_all(|animal, template, body| {
        if !STEADY.contains(&animal.name) {
            return Ok(());
        }
        let whole = render(template, body).unwrap();
        let texts = prefixes(template, body);
        let mut before = 0;
        for (place, text) in places(body).into_iter().zip(texts) {
            if matches!(place, BlockPlace::Tool { .. }) {
                continue;
            }
            let text = text.unwrap();
            prop_assert!(whole.starts_with(&text), "{place:?} {text:?}\n{whole:?}");
            prop_assert!(text.len() >= before, "{place:?} {text:?}");
            before = text.len();
        }
        Ok(())
    });
}
