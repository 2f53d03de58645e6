//! Where the blocks of a request stand in it and what they are, for people: paths and kinds, by
//! the rules of each API (`docs/prefix-hash.md`).

use prompt_cache_core::api::Api;
use serde_json::Value;

/// A block: its path and its kind.
pub(super) type Place = (String, String);

/// The blocks of a request, in order.
pub(super) fn places(api: Api, request: &Value) -> Vec<Place> {
    let mut places = Vec::new();
    match api {
        Api::Chat => {
            tools(request, &mut places);
            messages(request, &["tool_calls"], &mut places);
        }
        Api::Messages => {
            tools(request, &mut places);
            parts("system", "system", request.get("system"), &mut places);
            messages(request, &[], &mut places);
        }
        Api::Responses => {
            tools(request, &mut places);
            let instructions = request.get("instructions");
            parts("instructions", "system", instructions, &mut places);
            input(request, &mut places);
        }
        Api::Completions => {
            if let Some(prompt) = request.get("prompt") {
                let kind = match prompt {
                    Value::String(_) => "text",
                    Value::Array(_) => "list",
                    _ => "neither text nor list",
                };
                places.push(("prompt".to_owned(), kind.to_owned()));
            }
        }
    }
    places
}

fn list<'a>(request: &'a Value, name: &str) -> &'a [Value] {
    let list = request.get(name).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

fn member<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

fn tools(request: &Value, places: &mut Vec<Place>) {
    for at in 0..list(request, "tools").len() {
        places.push((format!("tools[{at}]"), "tool".to_owned()));
    }
}

/// The blocks of a text or a list of parts.
fn parts(path: &str, whose: &str, content: Option<&Value>, places: &mut Vec<Place>) {
    match content {
        Some(Value::String(_)) => places.push((path.to_owned(), format!("{whose} text"))),
        Some(Value::Array(parts)) => {
            for (at, part) in parts.iter().enumerate() {
                let kind = member(part, "type").unwrap_or("text");
                places.push((format!("{path}[{at}]"), format!("{whose} {kind}")));
            }
        }
        _ => {}
    }
}

/// The blocks of messages: of their content, then of the lists `more`.
fn messages(request: &Value, more: &[&str], places: &mut Vec<Place>) {
    for (at, message) in list(request, "messages").iter().enumerate() {
        let path = format!("messages[{at}]");
        let role = member(message, "role").unwrap_or("no role");
        let before = places.len();
        let content = message.get("content");
        parts(&format!("{path}.content"), role, content, places);
        for name in more {
            for call in 0..list(message, name).len() {
                let kind = name.trim_end_matches('s');
                places.push((format!("{path}.{name}[{call}]"), format!("{role} {kind}")));
            }
        }
        if places.len() == before {
            places.push((path, format!("{role} empty")));
        }
    }
}

/// The blocks of the items of a Responses request.
fn input(request: &Value, places: &mut Vec<Place>) {
    let items = match request.get("input") {
        Some(Value::Array(items)) => items,
        text => return parts("input", "user", text, places),
    };
    for (at, item) in items.iter().enumerate() {
        let path = format!("input[{at}]");
        let kind = member(item, "type").unwrap_or("message");
        let whose = match kind {
            "message" => member(item, "role").unwrap_or("no role"),
            kind => kind,
        };
        let before = places.len();
        for name in ["content", "output"] {
            parts(&format!("{path}.{name}"), whose, item.get(name), places);
        }
        if places.len() == before {
            let kind = if kind == "message" {
                format!("{whose} empty")
            } else {
                kind.to_owned()
            };
            places.push((path, kind));
        }
    }
}

#[cfg(test)]
mod tests {
    use prompt_cache_core::request::scan_as;
    use serde_json::json;

    use super::*;

    #[test]
    fn places_are_the_blocks_of_the_filter() {
        let part = json!({"type": "text", "text": "x"});
        let table = [
            (
                Api::Chat,
                json!({"tools": [{}, {}], "messages": [
                    {"role": "system", "content": "x"}, {"content": [part, part, "x"]}, {"role": "user"}, 5,
                    {"role": "assistant", "content": "x", "tool_calls": [{}, {}]},
                    {"role": "assistant", "tool_calls": [{}]}, {"role": "user", "content": []},
                ]}),
            ),
            (
                Api::Messages,
                json!({"tools": [{}], "system": [part, part], "messages": [
                    {"role": "user", "content": "x"}, {"role": "assistant", "content": [part, part]},
                    {"role": "user", "content": [], "tool_calls": [{}, {}]},
                ]}),
            ),
            (
                Api::Messages,
                json!({"system": "x", "messages": [{"role": "user"}]}),
            ),
            (
                Api::Responses,
                json!({"tools": [{}], "instructions": [part, part], "input": [
                    {"role": "user", "content": "x"}, {"role": "assistant", "content": [part, part]},
                    {"type": "function_call"}, {"type": "function_call_output", "output": "x"},
                    {"type": "function_call_output", "output": [part, part]}, {"content": [part], "output": [part]},
                    {"type": "reasoning", "summary": [part]}, {"role": "user", "content": []}, "x",
                ]}),
            ),
            (
                Api::Responses,
                json!({"instructions": "x", "input": "x", "messages": [{}, {}]}),
            ),
            (Api::Completions, json!({"prompt": "x"})),
            (
                Api::Completions,
                json!({"prompt": [1, 2], "messages": [{}]}),
            ),
            (Api::Completions, json!({"model": "m"})),
        ];
        for (api, request) in table {
            let body = serde_json::to_vec(&request).unwrap();
            let blocks = scan_as(api, &body).unwrap().block_count();
            assert_eq!(places(api, &request).len(), blocks, "{api:?} {request}");
        }
    }

    #[test]
    fn items_are_named_by_what_they_are() {
        let request = json!({"instructions": "x", "input": [
            {"role": "user", "content": [{"type": "input_text"}, {"type": "input_image"}]},
            {"type": "reasoning", "summary": []},
            {"type": "function_call", "name": "secret"},
            {"type": "function_call_output", "output": "x"},
            {"role": "user"},
        ]});
        let shown: Vec<String> = places(Api::Responses, &request)
            .into_iter()
            .map(|(path, kind)| format!("{path}: {kind}"))
            .collect();
        let expected = [
            "instructions: system text",
            "input[0].content[0]: user input_text",
            "input[0].content[1]: user input_image",
            "input[1]: reasoning",
            "input[2]: function_call",
            "input[3].output: function_call_output text",
            "input[4]: user empty",
        ];
        assert_eq!(shown, expected);
    }
}
