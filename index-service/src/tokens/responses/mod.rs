//! A Responses request as the chat request that engines make of it before they render it.
//!
//! Where engines differ, vLLM is followed: reasoning, an assistant's text and the calls after it
//! are one message, a call's output is a message of its own, and `instructions` are the system
//! message, together with the system and developer messages that the input starts with.
//!
//! An item never changes what stands before it, so that a prefix's count is its own. vLLM puts
//! text into a message whose calls came before it, and reasoning into one that has none: here
//! both start another message.

mod items;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use super::messages::{ChatForm, kind};
use items::{Item, function_tools, texts};

/// Before each further text of the one system message. Engines put an empty line between two;
/// templates that want a string get the parts joined by a line feed.
const NEXT_TEXT: &str = "\n";

/// Converts a body; `None` when it is no JSON object.
pub(super) fn chat_form(body: &[u8]) -> Option<ChatForm> {
    let mut request: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let mut form = Form::default();
    let mut chat = Map::new();
    if let Some(Value::Array(tools)) = request.remove("tools")
        && !tools.is_empty()
    {
        chat.insert("tools".to_owned(), form.tools(tools).into());
    }
    match request.remove("instructions") {
        Some(Value::String(text)) => form.instruct(text),
        Some(Value::Array(items)) => {
            for item in items {
                form.instruct(texts(&item));
            }
        }
        _ => {}
    }
    match request.remove("input") {
        Some(Value::String(text)) => {
            form.push(json!({"role": "user", "content": text}));
            form.add(1);
        }
        Some(Value::Array(items)) => {
            for item in items {
                form.item(item);
            }
        }
        _ => {}
    }
    form.close();
    chat.insert("messages".to_owned(), form.messages.into());
    if let Some(kwargs) = request.remove("chat_template_kwargs") {
        chat.insert("chat_template_kwargs".to_owned(), kwargs);
    }
    let reasoning = request.get_mut("reasoning");
    if let Some(effort) = reasoning.and_then(|reasoning| reasoning.get_mut("effort")) {
        chat.insert("reasoning_effort".to_owned(), effort.take());
    }
    Some(ChatForm {
        body: serde_json::to_vec(&chat).ok()?,
        ends: form.ends,
    })
}

struct Form {
    messages: Vec<Value>,
    /// Blocks of the chat form so far.
    blocks: u32,
    ends: Vec<u32>,
    /// The parts of the system message, as long as nothing else has come.
    system: Option<Vec<Value>>,
    /// The assistant's message that is being put together.
    open: Option<Assistant>,
}

#[derive(Default)]
struct Assistant {
    reasoning: String,
    content: Option<Value>,
    calls: Vec<Value>,
}

/// Which blocks of an item are blocks of the chat form; if it has none there, the one for its
/// boundary.
enum Shown {
    Content,
    Output,
    /// Its first, as a whole.
    Whole,
    Nothing,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            blocks: 0,
            ends: Vec::new(),
            system: Some(Vec::new()),
            open: None,
        }
    }
}

impl Form {
    /// A block of the request, which is `blocks` of the chat form.
    fn add(&mut self, blocks: usize) {
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        self.blocks = self.blocks.saturating_add(blocks);
        self.ends.push(self.blocks);
    }

    fn tools(&mut self, tools: Vec<Value>) -> Vec<Value> {
        let mut functions = Vec::with_capacity(tools.len());
        for tool in tools {
            let before = functions.len();
            function_tools(tool, &mut functions);
            self.add(functions.len() - before);
        }
        functions
    }

    /// A block of text for the system message.
    fn instruct(&mut self, text: String) {
        self.instructions(vec![json!({"type": "text", "text": text})]);
    }

    /// Blocks of the system message; only while it is being put together.
    fn instructions(&mut self, parts: Vec<Value>) {
        let mut starts = true;
        for mut part in parts {
            let text = part.get_mut("text");
            if matches!(&text, Some(Value::String(text)) if text.is_empty()) {
                self.add(0);
                continue;
            }
            let system = self.system.get_or_insert_default();
            if let (true, false, Some(Value::String(text))) = (starts, system.is_empty(), text) {
                text.insert_str(0, NEXT_TEXT);
            }
            system.push(part);
            starts = false;
            self.add(1);
        }
    }

    fn item(&mut self, item: Value) {
        let item = Item::of(item);
        match kind(&item.value) {
            "function_call" | "custom_tool_call" => {
                self.assistant().calls.push(item.call());
                self.blocks(&item, Shown::Whole);
            }
            "function_call_output" | "custom_tool_call_output" => {
                let id = item.value.get("call_id");
                self.push(json!({"role": "tool", "tool_call_id": id, "content": item.output}));
                self.blocks(&item, Shown::Output);
            }
            "reasoning" => {
                let reasoning = item.reasoning();
                if !reasoning.is_empty() {
                    self.close();
                    self.assistant().reasoning = reasoning.to_owned();
                }
                self.blocks(&item, Shown::Nothing);
            }
            "message" | "" => self.message(item),
            _ => self.blocks(&item, Shown::Nothing),
        }
    }

    fn message(&mut self, mut item: Item) {
        let content = item.content.take();
        match item.value.get("role").and_then(Value::as_str) {
            None => return self.blocks(&item, Shown::Nothing),
            Some("system" | "developer") if self.system.is_some() => {
                return self.instructions_of(&item, content);
            }
            Some("system" | "developer") => {
                self.push(json!({"role": "system", "content": content}));
            }
            Some("assistant") if item.content_blocks > 0 => {
                if self.assistant().has_spoken() {
                    self.close();
                }
                self.assistant().content = Some(content);
            }
            Some(role) => self.push(json!({"role": role, "content": content})),
        }
        self.blocks(&item, Shown::Content);
    }

    /// A message that is a part of the system message.
    fn instructions_of(&mut self, item: &Item, content: Value) {
        match content {
            Value::String(text) => self.instruct(text),
            Value::Array(parts) => self.instructions(parts),
            _ => {}
        }
        for _ in item.content_blocks..item.blocks() {
            self.add(0);
        }
    }

    /// The blocks of an item.
    fn blocks(&mut self, item: &Item, shown: Shown) {
        let all = item.blocks();
        let shown = match shown {
            Shown::Content => 0..item.content_blocks.max(1),
            Shown::Output => item.content_blocks.min(all - 1)..all,
            Shown::Whole => 0..1,
            Shown::Nothing => 0..0,
        };
        for at in 0..all {
            self.add(usize::from(shown.contains(&at)));
        }
    }

    /// The assistant's message that is being put together, a new one where there is none.
    fn assistant(&mut self) -> &mut Assistant {
        if self.open.is_none() {
            self.close();
        }
        self.open.get_or_insert_default()
    }

    fn push(&mut self, message: Value) {
        self.close();
        self.messages.push(message);
    }

    /// Ends the message that is being put together.
    fn close(&mut self) {
        if let Some(parts) = self.system.take()
            && !parts.is_empty()
        {
            self.messages
                .push(json!({"role": "system", "content": parts}));
        }
        let Some(open) = self.open.take() else {
            return;
        };
        let mut message = Map::new();
        message.insert("role".to_owned(), "assistant".into());
        if !open.reasoning.is_empty() {
            message.insert("reasoning_content".to_owned(), open.reasoning.into());
        }
        let silent = open.content.is_none() && open.calls.is_empty();
        if let Some(content) = open.content {
            message.insert("content".to_owned(), content);
        }
        if !open.calls.is_empty() {
            message.insert("tool_calls".to_owned(), open.calls.into());
        }
        self.messages.push(message.into());
        if silent {
            // A message of nothing but reasoning is a block of the chat form. It belongs to the
            // request's next block: the reasoning's own must not depend on what follows.
            self.blocks = self.blocks.saturating_add(1);
        }
    }
}

impl Assistant {
    /// Whether text would have to come before something that is there.
    const fn has_spoken(&self) -> bool {
        self.content.is_some() || !self.calls.is_empty()
    }
}
