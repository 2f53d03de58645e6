//! How many tokens a prompt has, whichever API it came by.

use serde_json::Value;

use super::items;

/// Tokens that a chat template spends on a message's frame.
const TOKENS_PER_MESSAGE: u64 = 4;
/// Tokens that open the answer.
const TOKENS_BEFORE_ANSWER: u64 = 3;
/// What each image counts: one tile at the rate that OpenAI publishes.
const TOKENS_PER_IMAGE: u64 = 255;

/// Counts the prompt with o200k_base: every text, role, name, tool definition and tool call.
pub fn count_tokens(request: &Value) -> u64 {
    let mut total = TOKENS_BEFORE_ANSWER;
    for tool in items(&request["tools"]) {
        total += count(&tool.to_string());
    }
    total += contents(&request["system"]) + contents(&request["instructions"]);
    if let Value::String(text) = &request["input"] {
        total += TOKENS_PER_MESSAGE + count(text);
    }
    for turn in items(&request["messages"]).chain(items(&request["input"])) {
        let members = turn.as_object().into_iter().flatten();
        total += TOKENS_PER_MESSAGE + members.map(|(_, value)| contents(value)).sum::<u64>();
    }
    total
}

/// Counts a text.
pub fn count(text: &str) -> u64 {
    u64::try_from(bpe_openai::o200k_base().count(text)).unwrap_or(u64::MAX)
}

fn contents(value: &Value) -> u64 {
    match value {
        Value::String(text) => count(text),
        Value::Array(parts) => parts.iter().map(count_part).sum(),
        _ => 0,
    }
}

/// A text counts as itself, an image the same always, a tool's result as what is in it, anything
/// else (tool calls, documents) as its JSON.
fn count_part(part: &Value) -> u64 {
    if part["type"]
        .as_str()
        .is_some_and(|kind| kind.contains("image"))
    {
        return TOKENS_PER_IMAGE;
    }
    match (&part["text"], &part["content"]) {
        (Value::String(text), _) => count(text),
        (_, content @ (Value::Array(_) | Value::String(_))) => contents(content),
        _ => count(&part.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_text_wherever_it_stands() {
        let part = json!([{"type": "text", "text": "hello world"}]);
        for request in [
            json!({"messages": [{"role": "user", "content": "hello world"}]}),
            json!({"messages": [{"role": "user", "content": part}]}),
            json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "content": part}]}]}),
            json!({"input": [{"role": "user", "content": part}]}),
            json!({"input": "hello world", "instructions": "user"}),
            json!({"input": [{"role": "user"}], "system": part}),
        ] {
            assert_eq!(count_tokens(&request), 3 + 4 + 1 + 2, "{request}");
        }
        let tools = json!({"tools": [{"type": "function"}], "messages": []});
        assert!(count_tokens(&tools) > 3);
    }

    #[test]
    fn an_image_counts_the_same_whatever_its_bytes() {
        for part in [
            json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}),
            json!({"type": "image", "source": {"type": "base64", "data": "A".repeat(9999)}}),
            json!({"type": "input_image", "image_url": "data:image/png;base64,AAAA"}),
        ] {
            let request = json!({"messages": [{"content": [part]}]});
            assert_eq!(
                count_tokens(&request),
                3 + 4 + TOKENS_PER_IMAGE,
                "{request}"
            );
        }
    }
}
