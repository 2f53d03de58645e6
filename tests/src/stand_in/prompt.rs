//! What the stand-in sees in a prompt: its tokens, and markers that should not have come this far.

use serde_json::Value;

/// Tokens that a chat template spends on a message's frame.
const TOKENS_PER_MESSAGE: u64 = 4;
/// Tokens that open the answer.
const TOKENS_BEFORE_ANSWER: u64 = 3;
/// Members of a message, part or tool that only a caching proxy understands.
const MARKERS: [&str; 2] = ["cache_control", "prompt_cache_breakpoint"];

/// Counts the prompt with o200k_base: every text, role, name, tool definition and tool call.
pub fn count_tokens(request: &Value) -> u64 {
    let mut total = TOKENS_BEFORE_ANSWER;
    for tool in items(&request["tools"]) {
        total += count(&tool.to_string());
    }
    total += match &request["system"] {
        Value::String(text) => count(text),
        system => items(system).map(count_part).sum(),
    };
    for message in items(&request["messages"]) {
        total += TOKENS_PER_MESSAGE;
        let Some(members) = message.as_object() else {
            continue;
        };
        for value in members.values() {
            total += match value {
                Value::String(text) => count(text),
                Value::Array(parts) => parts.iter().map(count_part).sum(),
                _ => 0,
            };
        }
    }
    total
}

/// A text part counts as its text, anything else (images, tool calls) as its JSON.
fn count_part(part: &Value) -> u64 {
    part["text"]
        .as_str()
        .map_or_else(|| count(&part.to_string()), count)
}

fn count(text: &str) -> u64 {
    u64::try_from(bpe_openai::o200k_base().count(text)).unwrap_or(u64::MAX)
}

/// Path of the first cache marker, if one is left.
pub fn marker(request: &Value) -> Option<String> {
    let mut places = vec![(String::new(), request)];
    for (i, tool) in items(&request["tools"]).enumerate() {
        places.push((format!("tools[{i}]."), tool));
    }
    for (i, part) in items(&request["system"]).enumerate() {
        places.push((format!("system[{i}]."), part));
    }
    for (i, message) in items(&request["messages"]).enumerate() {
        places.push((format!("messages[{i}]."), message));
        for list in ["content", "tool_calls"] {
            for (j, item) in items(&message[list]).enumerate() {
                places.push((format!("messages[{i}].{list}[{j}]."), item));
                for (k, inner) in items(&item["content"]).enumerate() {
                    places.push((format!("messages[{i}].{list}[{j}].content[{k}]."), inner));
                }
            }
        }
    }
    places.iter().find_map(|(path, place)| {
        let name = MARKERS.iter().find(|name| place.get(name).is_some())?;
        Some(format!("{path}{name}"))
    })
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_text_wherever_it_stands() {
        let plain = json!({"messages": [{"role": "user", "content": "hello world"}]});
        let parts = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "hello world"}]}]});
        assert_eq!(count_tokens(&plain), 3 + 4 + 1 + 2);
        assert_eq!(count_tokens(&plain), count_tokens(&parts));
        let tools = json!({"tools": [{"type": "function"}], "messages": []});
        assert!(count_tokens(&tools) > 3);
    }

    #[test]
    fn finds_markers_where_they_mean_something_and_nowhere_else() {
        let mark = json!({"type": "ephemeral"});
        for (request, path) in [
            (json!({"cache_control": mark}), "cache_control"),
            (
                json!({"tools": [{}, {"cache_control": mark}]}),
                "tools[1].cache_control",
            ),
            (
                json!({"messages": [{"content": [{"prompt_cache_breakpoint": {}}]}]}),
                "messages[0].content[0].prompt_cache_breakpoint",
            ),
            (
                json!({"messages": [{"tool_calls": [{"cache_control": null}]}]}),
                "messages[0].tool_calls[0].cache_control",
            ),
        ] {
            assert_eq!(marker(&request).as_deref(), Some(path));
        }
        let data = json!({"metadata": {"cache_control": 1}, "tools": [{"function": {"parameters": {"cache_control": {}}}}]});
        assert_eq!(marker(&data), None);
    }
}
