//! An engine's answers: a text that depends on the prompt alone, and the usage with what was cached.

use serde_json::{Value, json};

use super::prompt::Shape;

/// Words of an answer.
const WORDS: usize = 32;
const VOCABULARY: [&str; 16] = [
    "river", "stone", "amber", "quiet", "seven", "letter", "window", "copper", "garden", "north",
    "paper", "silver", "harbour", "early", "morning", "thread",
];

/// What an engine says to a prompt; the same for the same prompt.
pub fn text(seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let words: Vec<&str> = (0..WORDS)
        .map(|_| *random.choice(&VOCABULARY).unwrap_or(&""))
        .collect();
    words.join(" ")
}

/// The tokens of one exchange.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokens {
    /// Of the prompt.
    pub prompt: usize,
    /// Of those, found in the cache.
    pub cached: usize,
    /// Of the answer.
    pub answer: usize,
}

/// The whole answer in the API's shape.
pub fn whole(shape: Shape, model: &Value, text: &str, tokens: Tokens) -> Value {
    let usage = usage(shape, tokens);
    match shape {
        Shape::Chat => json!({
            "id": "c1", "object": "chat.completion", "created": 1, "model": model, "usage": usage,
            "choices": [{
                "index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop",
            }],
        }),
        Shape::Completions => json!({
            "id": "c1", "object": "text_completion", "created": 1, "model": model, "usage": usage,
            "choices": [{"index": 0, "text": text, "finish_reason": "stop"}],
        }),
        Shape::Messages => json!({
            "id": "m1", "type": "message", "role": "assistant", "model": model, "usage": usage,
            "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": null,
        }),
        Shape::Responses => json!({
            "id": "r1", "object": "response", "created_at": 1, "model": model, "usage": usage,
            "status": "completed",
            "output": [{
                "id": "i1", "type": "message", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": text, "annotations": []}],
            }],
        }),
    }
}

/// The events of a streamed chat completion, with the usage at its end.
pub fn events(model: &Value, text: &str, tokens: Tokens) -> Vec<String> {
    let chunk = |choices: Value, usage: Value| {
        json!({
            "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model,
            "choices": choices, "usage": usage,
        })
        .to_string()
    };
    let choice =
        |delta: Value, end: Value| json!([{"index": 0, "delta": delta, "finish_reason": end}]);
    vec![
        chunk(
            choice(json!({"role": "assistant", "content": text}), Value::Null),
            Value::Null,
        ),
        chunk(choice(json!({}), json!("stop")), Value::Null),
        chunk(json!([]), usage(Shape::Chat, tokens)),
        "[DONE]".to_owned(),
    ]
}

/// As vLLM, which names no cached tokens where there were none.
fn usage(shape: Shape, tokens: Tokens) -> Value {
    let Tokens {
        prompt,
        cached,
        answer,
    } = tokens;
    let total = prompt + answer;
    let some = |value: Value| if cached > 0 { value } else { Value::Null };
    match shape {
        Shape::Chat | Shape::Completions => json!({
            "prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": total,
            "prompt_tokens_details": some(json!({"cached_tokens": cached})),
        }),
        // This API's numbers are disjoint.
        Shape::Messages => json!({
            "input_tokens": prompt - cached, "output_tokens": answer,
            "cache_read_input_tokens": some(json!(cached)), "cache_creation_input_tokens": null,
        }),
        Shape::Responses => json!({
            "input_tokens": prompt, "output_tokens": answer, "total_tokens": total,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens_details": {"reasoning_tokens": 0},
        }),
    }
}
