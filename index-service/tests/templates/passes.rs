//! What a count costs the tokenizer, and that no prefix counts more than the prompt.

use std::sync::{Arc, Mutex};

use prompt_cache_index::tokens::tokenizer::Tokenizer;
use prompt_cache_index::tokens::{Chat, CountError, Method, Prompt, Templates, TokenSource};
use serde_json::{Map, Value, json};

use crate::zoo::{ZOO, by_name, render};

/// A token for each byte; remembers how long the texts were.
#[derive(Default)]
struct Bytes(Mutex<Vec<usize>>);

impl Tokenizer for Bytes {
    fn count_prefixes(
        &self,
        text: &str,
        ends: &[usize],
        _go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<u64>, CountError> {
        self.0.lock().unwrap().push(text.len());
        Ok(ends.iter().map(|end| *end as u64).collect())
    }
}

/// The source of a template, and the passes of its tokenizer.
fn source(animal: &str) -> (Chat, Arc<Bytes>) {
    let bytes = Arc::new(Bytes::default());
    let chat = Chat {
        version: String::new(),
        tokenizer: Arc::clone(&bytes) as Arc<dyn Tokenizer>,
        templates: Templates {
            default: Some(by_name(animal)),
            tool_use: None,
        },
        variables: Map::new(),
    };
    (chat, bytes)
}

fn body() -> Value {
    json!({"messages": [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "second"},
        {"role": "user", "content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]},
        {"role": "assistant", "content": "third"},
        {"role": "user", "content": "last"},
    ]})
}

#[test]
fn four_prefixes_of_one_body_cost_one_pass() {
    let body = body();
    let bytes = serde_json::to_vec(&body).unwrap();
    let prompt = Prompt::parse(&bytes).unwrap();
    for animal in &ZOO {
        let (chat, passes) = source(animal.name);
        let counts = chat.count(&prompt, None, &[0, 1, 3, 5], &|| true).unwrap();
        let whole = render(&animal.template(), &body).unwrap().len();
        assert_eq!(counts.method, Method::Rendered, "{}", animal.name);
        assert_eq!(*passes.0.lock().unwrap(), [whole], "{}", animal.name);
        assert_eq!(counts.prompt, Some(whole as u64), "{}", animal.name);
        assert!(counts.prefixes.is_sorted_by(|a, b| a < b), "{counts:?}");
        assert!(counts.prefixes[3] < whole as u64, "{counts:?}");
    }
}

/// A later question makes the template drop reasoning that a prefix within a tool loop showed.
#[test]
fn a_prefix_never_counts_more_than_the_prompt() {
    let reasoning = "hm ".repeat(500);
    let call = json!({"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let body = json!({"messages": [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "", "reasoning_content": reasoning, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "second"},
        {"role": "assistant", "content": "third"},
        {"role": "user", "content": "last"},
    ]});
    let body = serde_json::to_vec(&body).unwrap();
    let prompt = Prompt::parse(&body).unwrap();
    let (chat, passes) = source("qwen3");
    let counts = chat.count(&prompt, None, &[0, 2, 3, 5], &|| true).unwrap();
    let whole = counts.prompt.unwrap();
    assert_eq!(counts.method, Method::Moved);
    // The prompt, and the longest prefix that is none of its leading texts, with the shorter one
    // in it.
    let passes = passes.0.lock().unwrap().clone();
    assert_eq!(passes.len(), 2, "{passes:?}");
    assert!(passes[1] > reasoning.len() && whole < reasoning.len() as u64);
    assert!(counts.prefixes[0] < whole);
    assert_eq!(counts.prefixes[1..], [whole, whole, whole]);
}
