//! Markers that should not have come this far.

use serde_json::Value;

use super::items;

/// Members of a message, part, item or tool that only a caching proxy understands.
const MARKERS: [&str; 2] = ["cache_control", "prompt_cache_breakpoint"];
/// The same at the top level.
const OPTIONS: &str = "prompt_cache_options";

/// Path of the first cache marker, if one is left.
pub fn find(request: &Value) -> Option<String> {
    if request.get(OPTIONS).is_some() {
        return Some(OPTIONS.to_owned());
    }
    let mut places = vec![(String::new(), request)];
    for list in ["tools", "system"] {
        for (i, item) in items(&request[list]).enumerate() {
            places.push((format!("{list}[{i}]."), item));
        }
    }
    for turns in ["messages", "input"] {
        for (i, turn) in items(&request[turns]).enumerate() {
            places.push((format!("{turns}[{i}]."), turn));
            for list in ["content", "tool_calls", "output"] {
                for (j, item) in items(&turn[list]).enumerate() {
                    places.push((format!("{turns}[{i}].{list}[{j}]."), item));
                    for (k, inner) in items(&item["content"]).enumerate() {
                        places.push((format!("{turns}[{i}].{list}[{j}].content[{k}]."), inner));
                    }
                }
            }
        }
    }
    places.iter().find_map(|(path, place)| {
        let name = MARKERS.iter().find(|name| place.get(name).is_some())?;
        Some(format!("{path}{name}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_markers_where_they_mean_something_and_nowhere_else() {
        let mark = json!({"type": "ephemeral"});
        for (request, path) in [
            (json!({"cache_control": mark}), "cache_control"),
            (
                json!({"prompt_cache_options": null}),
                "prompt_cache_options",
            ),
            (
                json!({"tools": [{}, {"cache_control": mark}]}),
                "tools[1].cache_control",
            ),
            (
                json!({"system": [{"cache_control": mark}]}),
                "system[0].cache_control",
            ),
            (
                json!({"messages": [{"content": [{"prompt_cache_breakpoint": {}}]}]}),
                "messages[0].content[0].prompt_cache_breakpoint",
            ),
            (
                json!({"messages": [{"content": [{"content": [{"cache_control": mark}]}]}]}),
                "messages[0].content[0].content[0].cache_control",
            ),
            (
                json!({"messages": [{"tool_calls": [{"cache_control": null}]}]}),
                "messages[0].tool_calls[0].cache_control",
            ),
            (
                json!({"input": ["", {"cache_control": mark}]}),
                "input[1].cache_control",
            ),
            (
                json!({"input": [{"content": [{"prompt_cache_breakpoint": {}}]}]}),
                "input[0].content[0].prompt_cache_breakpoint",
            ),
            (
                json!({"input": [{"output": [{"cache_control": mark}]}]}),
                "input[0].output[0].cache_control",
            ),
        ] {
            assert_eq!(find(&request).as_deref(), Some(path));
        }
        let data = json!({
            "metadata": {"cache_control": 1}, "prompt_cache_key": "k",
            "tools": [{"function": {"parameters": {"cache_control": {}}}}],
        });
        assert_eq!(find(&data), None);
    }
}
