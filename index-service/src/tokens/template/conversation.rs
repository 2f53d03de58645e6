//! A chat request as a template sees it: messages, tools and parameters, normalized the way vLLM
//! normalizes them before it renders.

use minijinja::value::{Serde, Value};
use prompt_cache_core::request::BlockPlace;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::{ChatTemplate, ContentFormat, RenderError};

/// A body that engines refuse before they render it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is no chat conversation")]
pub struct BadConversation;

/// The members of a request that shape its prompt.
#[derive(Debug, Deserialize)]
struct Body {
    messages: Vec<Map<String, Json>>,
    tools: Option<Vec<Json>>,
    documents: Option<Json>,
    chat_template_kwargs: Option<Map<String, Json>>,
    reasoning_effort: Option<Json>,
    add_generation_prompt: Option<bool>,
}

/// A conversation, normalized.
#[derive(Debug)]
pub struct Conversation {
    format: ContentFormat,
    /// As in the request; a part of a message is normalized with its message.
    raw: Vec<Map<String, Json>>,
    messages: Vec<Value>,
    tools: Option<Vec<Value>>,
    /// Variables besides messages and tools.
    variables: Vec<(String, Value)>,
    add_generation_prompt: bool,
    bytes: usize,
}

/// What follows a truncated conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next<'s> {
    /// A message of that role with that text.
    Message(&'static str, &'s str),
    /// The model's turn to speak.
    Reply,
    /// Nothing.
    Nothing,
}

/// What is added to the end of something, to see where that is in the rendering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum More<'s> {
    /// Nothing.
    No,
    /// Another block after the last block.
    Block(&'s str),
    /// More text at the end of the last block's own, if it is a part with text.
    Text(&'s str),
    /// Another tool after the last tool.
    Tool(&'s str),
    /// Another part of the message with that index.
    Part(usize, &'s str),
}

impl Conversation {
    /// Reads a request's body, whose markers have been removed. `defaults` are template
    /// variables that the request may override.
    ///
    /// # Errors
    /// When `messages` is no list of objects.
    pub fn parse(
        body: &[u8],
        format: ContentFormat,
        defaults: &Map<String, Json>,
    ) -> Result<Self, BadConversation> {
        let parsed: Body = serde_json::from_slice(body).map_err(|_| BadConversation)?;
        let mut kwargs = defaults.clone();
        kwargs.extend(parsed.chat_template_kwargs.unwrap_or_default());
        if let Some(effort) = parsed.reasoning_effort {
            kwargs.entry("reasoning_effort").or_insert(effort);
        }
        let mut variables = vec![("documents".to_owned(), of_json(&parsed.documents))];
        // Engines refuse to have these replaced by parameters.
        let reserved = ["messages", "tools", "chat_template", "tokenize"];
        kwargs.retain(|name, _| !reserved.contains(&name.as_str()));
        let add_generation_prompt = kwargs
            .remove("add_generation_prompt")
            .and_then(|value| value.as_bool())
            .or(parsed.add_generation_prompt)
            .unwrap_or(true);
        variables.extend(
            kwargs
                .iter()
                .map(|(name, value)| (name.clone(), of_json(value))),
        );
        let messages = parsed
            .messages
            .iter()
            .map(|message| normalize(message, format));
        Ok(Self {
            format,
            messages: messages.map(|message| of_json(&message)).collect(),
            raw: parsed.messages,
            tools: parsed.tools.map(|tools| {
                tools
                    .iter()
                    .map(|tool| of_json(&normalize_tool(tool)))
                    .collect()
            }),
            variables,
            add_generation_prompt,
            bytes: body.len(),
        })
    }

    /// The role of a message; empty where it has none.
    pub(super) fn role(&self, message: usize) -> &str {
        let role = self
            .raw
            .get(message)
            .and_then(|message| message.get("role"));
        role.and_then(Json::as_str).unwrap_or_default()
    }

    /// Whether the request has a list of tools, empty or not.
    pub const fn brings_tools(&self) -> bool {
        self.tools.is_some()
    }

    /// Whether there are tools.
    pub(super) fn has_tools(&self) -> bool {
        self.tools.as_ref().is_some_and(|tools| !tools.is_empty())
    }

    /// About the size of the JSON.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The prompt of the whole conversation.
    ///
    /// # Errors
    /// See [`RenderError`].
    pub fn render(
        &self,
        template: &ChatTemplate,
        go_on: &dyn Fn() -> bool,
    ) -> Result<String, RenderError> {
        template.render(self.whole(), self.bytes, go_on)
    }

    /// The variables of the whole conversation.
    pub fn whole(&self) -> Vec<(String, Value)> {
        self.context(
            self.tools.clone(),
            self.messages.clone(),
            self.add_generation_prompt,
        )
    }

    /// The variables of the conversation up to and including the block at `place`, then `more`,
    /// then `next`. A function of the prefix that ends there, and of nothing after it.
    pub(super) fn until(
        &self,
        place: BlockPlace,
        more: More<'_>,
        next: Next<'_>,
    ) -> Vec<(String, Value)> {
        let mut tools = self.tools.clone();
        let mut messages = Vec::new();
        match place {
            BlockPlace::Tool { tool } => {
                if let Some(tools) = &mut tools {
                    tools.truncate((tool as usize).saturating_add(1));
                }
            }
            BlockPlace::Part { message, .. }
            | BlockPlace::ToolCall { message, .. }
            | BlockPlace::Empty { message } => {
                let message = message as usize;
                messages.extend(self.messages.iter().take(message).cloned());
                if let Some(raw) = self.raw.get(message) {
                    let mut raw = raw.clone();
                    truncate(&mut raw, place);
                    match more {
                        More::Block(text) => add_block(&mut raw, place, text),
                        More::Text(text) => lengthen(&mut raw, place, text),
                        More::No | More::Tool(_) | More::Part(..) => {}
                    }
                    messages.push(of_json(&normalize(&raw, self.format)));
                }
            }
        }
        match (more, place) {
            (More::Tool(name), _) | (More::Block(name), BlockPlace::Tool { .. }) => {
                let tool = json!({"type": "function", "function": {
                    "name": name, "description": name,
                    "parameters": {"type": "object", "properties": {}},
                }});
                if let Some(tools) = &mut tools {
                    tools.push(of_json(&normalize_tool(&tool)));
                }
            }
            (More::Part(at, text), _) => {
                if let (Some(raw), Some(slot)) = (self.raw.get(at), messages.get_mut(at)) {
                    let mut raw = raw.clone();
                    add_part(&mut raw, text);
                    *slot = of_json(&normalize(&raw, self.format));
                }
            }
            _ => {}
        }
        if let Next::Message(role, text) = next {
            let mut message = json!({"role": role, "content": text});
            if role == "tool" {
                message = json!({"role": role, "content": text, "tool_call_id": "call"});
            }
            if let Json::Object(message) = &message {
                messages.push(of_json(&normalize(message, self.format)));
            }
        }
        self.context(tools, messages, next == Next::Reply)
    }

    fn context(
        &self,
        tools: Option<Vec<Value>>,
        messages: Vec<Value>,
        add_generation_prompt: bool,
    ) -> Vec<(String, Value)> {
        let mut context = self.variables.clone();
        context.push(("messages".to_owned(), messages.into()));
        let tools = tools.map_or_else(|| Value::from(()), Value::from);
        context.push(("tools".to_owned(), tools));
        context.push((
            "add_generation_prompt".to_owned(),
            add_generation_prompt.into(),
        ));
        context
    }
}

fn of_json(value: &impl serde::Serialize) -> Value {
    Value::from(Serde(value))
}

/// Cuts a message off after the block at `place`.
fn truncate(message: &mut Map<String, Json>, place: BlockPlace) {
    match place {
        BlockPlace::Part { part, .. } => {
            message.shift_remove("tool_calls");
            if let Some(Json::Array(parts)) = message.get_mut("content") {
                parts.truncate((part as usize).saturating_add(1));
            }
        }
        BlockPlace::ToolCall { call, .. } => {
            if let Some(Json::Array(calls)) = message.get_mut("tool_calls") {
                calls.truncate((call as usize).saturating_add(1));
            }
        }
        BlockPlace::Tool { .. } | BlockPlace::Empty { .. } => {}
    }
}

/// Adds a block of the kind that is at `place`.
fn add_block(message: &mut Map<String, Json>, place: BlockPlace, text: &str) {
    if let (BlockPlace::ToolCall { .. }, Some(Json::Array(calls))) =
        (place, message.get_mut("tool_calls"))
    {
        calls.push(json!({"id": text, "type": "function",
                          "function": {"name": text, "arguments": "{}"}}));
        return;
    }
    add_part(message, text);
}

/// Adds to the text of the part at `place`, the last one of its message.
fn lengthen(message: &mut Map<String, Json>, place: BlockPlace, more: &str) {
    if !matches!(place, BlockPlace::Part { .. }) {
        return;
    }
    let part = match message.get_mut("content") {
        Some(Json::Array(parts)) => parts.last_mut(),
        content => content,
    };
    let text = match part {
        Some(Json::Object(part)) => TEXT_MEMBERS
            .iter()
            .find(|name| part.get(**name).is_some_and(Json::is_string))
            .and_then(|name| part.get_mut(*name)),
        text => text,
    };
    if let Some(Json::String(text)) = text {
        text.push_str(more);
    }
}

fn add_part(message: &mut Map<String, Json>, text: &str) {
    let part = json!({"type": "text", "text": text});
    let content = match message.get_mut("content").map(Json::take) {
        Some(Json::Array(mut parts)) => {
            parts.push(part);
            parts
        }
        Some(Json::String(before)) => vec![json!({"type": "text", "text": before}), part],
        _ => vec![part],
    };
    message.insert("content".to_owned(), content.into());
}

/// A message as vLLM hands it to the template: content in the wanted format, tool calls with
/// parsed arguments, and of the other members those that it knows.
fn normalize(message: &Map<String, Json>, format: ContentFormat) -> Json {
    let role = message
        .get("role")
        .and_then(Json::as_str)
        .unwrap_or_default();
    let mut normal = Map::new();
    if let Some(role) = message.get("role") {
        normal.insert("role".to_owned(), role.clone());
    }
    let content = content_of(message, role, format);
    normal.insert("content".to_owned(), content);
    match role {
        "assistant" => assistant(message, &mut normal),
        "tool" => copy(message, &mut normal, "tool_call_id"),
        "developer" => copy(message, &mut normal, "tools"),
        _ => {}
    }
    if message.get("name").is_some_and(Json::is_string) {
        copy(message, &mut normal, "name");
    }
    normal.into()
}

fn copy(from: &Map<String, Json>, to: &mut Map<String, Json>, name: &str) {
    if let Some(value) = from.get(name) {
        to.insert(name.to_owned(), value.clone());
    }
}

/// What belongs to no other role: reasoning and tool calls.
fn assistant(message: &Map<String, Json>, normal: &mut Map<String, Json>) {
    if let Some(Json::Array(calls)) = message.get("tool_calls")
        && !calls.is_empty()
    {
        let calls = calls.iter().map(normalize_call).collect();
        normal.insert("tool_calls".to_owned(), Json::Array(calls));
    }
    let reasoning = ["reasoning", "reasoning_content"]
        .iter()
        .find_map(|name| message.get(*name).filter(|value| !value.is_null()));
    if let Some(reasoning) = reasoning {
        for name in ["reasoning", "reasoning_content"] {
            normal.insert(name.to_owned(), reasoning.clone());
        }
    }
}

/// A tool call with its arguments as an object: the string parsed, anything else an empty one.
fn normalize_call(call: &Json) -> Json {
    let mut call = call.clone();
    if let Some(Json::Object(function)) = call.get_mut("function") {
        let arguments = match function.get("arguments") {
            Some(Json::Object(arguments)) => arguments.clone(),
            Some(Json::String(text)) => serde_json::from_str(text).unwrap_or_default(),
            _ => Map::new(),
        };
        function.insert("arguments".to_owned(), arguments.into());
    }
    call
}

fn content_of(message: &Map<String, Json>, role: &str, format: ContentFormat) -> Json {
    let parts: Vec<Json> = match message.get("content") {
        Some(Json::String(text)) => vec![json!({"type": "text", "text": text})],
        Some(Json::Array(parts)) => parts.iter().filter_map(normalize_part).collect(),
        _ => Vec::new(),
    };
    let is_text = |part: &Json| part.get("type").is_some_and(|kind| kind == "text");
    let wants_list = match (format, role) {
        (ContentFormat::String, _) => false,
        // Templates expect the results of tools as strings.
        (ContentFormat::Openai, "tool") => !parts.iter().all(is_text),
        (ContentFormat::Openai, _) => true,
    };
    if wants_list {
        return parts.into();
    }
    let texts = parts
        .iter()
        .filter(|part| is_text(part))
        .filter_map(|part| part.get("text")?.as_str());
    let texts: Vec<&str> = match format {
        ContentFormat::String => texts.filter(|text| !text.is_empty()).collect(),
        ContentFormat::Openai => texts.collect(),
    };
    texts.join("\n").into()
}

/// Members of content parts that are no text for the template.
const PART_MEMBERS: [&str; 16] = [
    "type",
    "text",
    "refusal",
    "thinking",
    "image_url",
    "input_image",
    "image_embeds",
    "image_pil",
    "audio_url",
    "input_audio",
    "audio_embeds",
    "video_url",
    "video_embeds",
    "uuid",
    "closed",
    "name",
];

/// Members that hold the text of a part, the first that is there.
const TEXT_MEMBERS: [&str; 3] = ["text", "refusal", "thinking"];

fn normalize_part(part: &Json) -> Option<Json> {
    let part = match part {
        Json::String(text) => return Some(json!({"type": "text", "text": text})),
        Json::Object(part) => part,
        _ => return None,
    };
    let text = TEXT_MEMBERS
        .iter()
        .find_map(|name| part.get(*name)?.as_str());
    let kind = part.get("type").and_then(Json::as_str).unwrap_or("text");
    let mut normal = Map::new();
    match kind {
        "text" | "input_text" | "output_text" | "refusal" | "thinking" => {
            normal.insert("type".to_owned(), "text".into());
            normal.insert("text".to_owned(), text?.into());
        }
        _ => {
            let modality = ["image", "audio", "video"]
                .into_iter()
                .find(|modality| kind.contains(modality));
            normal.insert("type".to_owned(), modality.unwrap_or(kind).into());
        }
    }
    for (name, value) in part {
        if !PART_MEMBERS.contains(&name.as_str()) {
            normal.insert(name.clone(), value.clone());
        }
    }
    Some(normal.into())
}

/// A function tool with its members in the order, and with the nulls, of vLLM's own types.
fn normalize_tool(tool: &Json) -> Json {
    let (Json::Object(outer), Some(Json::Object(function))) = (tool, tool.get("function")) else {
        return tool.clone();
    };
    let ordered = |from: &Map<String, Json>, names: &[&str]| {
        let mut to = Map::new();
        for name in names {
            let value = from.get(*name).cloned().unwrap_or_default();
            to.insert((*name).to_owned(), value);
        }
        for (name, value) in from {
            to.entry(name.clone()).or_insert_with(|| value.clone());
        }
        to
    };
    let function = ordered(function, &["name", "description", "parameters"]);
    let mut outer = ordered(outer, &["type", "function"]);
    if outer.get("type").is_some_and(Json::is_null) {
        outer.insert("type".to_owned(), "function".into());
    }
    outer.insert("function".to_owned(), function.into());
    outer.into()
}
