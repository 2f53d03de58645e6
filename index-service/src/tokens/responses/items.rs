//! Items, parts and tools of a Responses request in the words of a chat request.

use serde_json::{Map, Value, json};

use super::super::messages::{kind, text_of};

/// Markers, which are no part of the prompt.
const MARKERS: [&str; 2] = ["cache_control", "prompt_cache_breakpoint"];

/// An element of `input`, its content and output in the chat form.
pub(super) struct Item {
    /// The rest of it.
    pub value: Value,
    pub content: Value,
    /// Blocks that `content` is.
    pub content_blocks: usize,
    pub output: Value,
    output_blocks: usize,
}

impl Item {
    pub fn of(mut value: Value) -> Self {
        let mut take = |name| match value.get_mut(name).map(Value::take) {
            Some(Value::String(text)) => (text.into(), 1),
            Some(Value::Array(parts)) if !parts.is_empty() => {
                let blocks = parts.len();
                let parts = parts.into_iter().map(part);
                (Value::Array(parts.collect()), blocks)
            }
            _ => (Value::Null, 0),
        };
        let (content, content_blocks) = take("content");
        let (output, output_blocks) = take("output");
        Self {
            value,
            content,
            content_blocks,
            output,
            output_blocks,
        }
    }

    /// Its blocks; an item without content and output is one.
    pub fn blocks(&self) -> usize {
        (self.content_blocks + self.output_blocks).max(1)
    }

    /// A call in the form of a message's `tool_calls`.
    pub fn call(&self) -> Value {
        let of = |name| self.value.get(name);
        let name = match (of("namespace"), of("name")) {
            (Some(Value::String(space)), Some(Value::String(name))) => {
                Some(in_namespace(space, name).into())
            }
            (_, name) => name.cloned(),
        };
        let arguments = match kind(&self.value) {
            "custom_tool_call" => json!({"input": of("input")}),
            _ => of("arguments").cloned().unwrap_or_default(),
        };
        json!({
            "id": of("call_id"), "type": "function",
            "function": {"name": name, "arguments": arguments},
        })
    }

    /// The text of a reasoning item: the first of its content, else of its summary.
    pub fn reasoning(&self) -> &str {
        let content = match &self.content {
            Value::String(text) => text,
            content => first_text(Some(content)),
        };
        if content.is_empty() {
            return first_text(self.value.get("summary"));
        }
        content
    }
}

/// The text of a list's first part.
fn first_text(parts: Option<&Value>) -> &str {
    let first = parts.and_then(|parts| parts.get(0));
    text_of(first.and_then(|part| part.get("text")))
}

/// A content part: text where it has any.
fn part(part: Value) -> Value {
    let text = |text: &str| json!({"type": "text", "text": text});
    let of = |name| part.get(name);
    match kind(&part) {
        "input_text" | "output_text" | "text" | "reasoning_text" | "summary_text" => {
            text(text_of(of("text")))
        }
        "refusal" => text(text_of(of("refusal"))),
        // What engines make of a file is theirs alone.
        "input_file" => text(""),
        "input_image" => {
            let mut image = match of("image_url") {
                Some(Value::Object(image)) => image.clone(),
                url => Map::from_iter([("url".to_owned(), text_of(url).into())]),
            };
            if let Some(detail) = of("detail") {
                image
                    .entry("detail".to_owned())
                    .or_insert_with(|| detail.clone());
            }
            json!({"type": "image_url", "image_url": image})
        }
        _ => match part {
            Value::String(string) => text(&string),
            part => part,
        },
    }
}

/// All text of an element of `instructions`.
pub(super) fn texts(item: &Value) -> String {
    let content = item.get("content").unwrap_or(item);
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().map(|part| match part {
                Value::String(text) => text,
                part => text_of(part.get("text")),
            });
            texts.collect::<Vec<_>>().join("\n")
        }
        content => text_of(content.get("text")).to_owned(),
    }
}

/// The functions of a tool: one, those of a namespace, or none, as engines show only functions to
/// their templates.
pub(super) fn function_tools(mut tool: Value, functions: &mut Vec<Value>) {
    match kind(&tool) {
        "function" if tool.get("function").is_some_and(Value::is_object) => functions.push(tool),
        "function" => functions.push(function(tool, None)),
        "namespace" => {
            let name = text_of(tool.get("name")).to_owned();
            if let Some(Value::Array(tools)) = tool.get_mut("tools").map(Value::take) {
                let tools = tools.into_iter().filter(|tool| kind(tool) == "function");
                functions.extend(tools.map(|tool| function(tool, Some(&name))));
            }
        }
        _ => {}
    }
}

/// A flat function as a chat request nests it. `strict` is there if the client left it out, too:
/// engines show it to the template.
fn function(tool: Value, namespace: Option<&str>) -> Value {
    let Value::Object(mut function) = tool else {
        return tool;
    };
    function.retain(|name, _| name != "type" && !MARKERS.contains(&name.as_str()));
    if let (Some(space), Some(Value::String(name))) = (namespace, function.get_mut("name")) {
        *name = in_namespace(space, name);
    }
    function.entry("strict".to_owned()).or_insert(Value::Null);
    json!({"type": "function", "function": function})
}

fn in_namespace(space: &str, name: &str) -> String {
    format!("{space}__{name}")
}
