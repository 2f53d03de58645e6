//! What an engine makes of a request: tokens, in the order in which chat templates put them.

use std::{collections::HashMap, iter};

use serde_json::Value;

/// Control tokens of the template, above every token of the encoding.
const OPEN: u32 = 1_000_000;
const BODY: u32 = 1_000_001;
const CLOSE: u32 = 1_000_002;

/// Which API a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `/chat/completions`.
    Chat,
    /// `/messages`.
    Messages,
    /// `/responses`.
    Responses,
    /// `/completions`.
    Completions,
}

impl Shape {
    /// By the path's end.
    pub fn of(target: &str) -> Option<Self> {
        let path = target.split('?').next().unwrap_or_default();
        let shapes = [
            ("/chat/completions", Self::Chat),
            ("/messages", Self::Messages),
            ("/responses", Self::Responses),
            ("/completions", Self::Completions),
        ];
        let found = shapes.iter().find(|(end, _)| path.ends_with(end));
        found.map(|(_, shape)| *shape)
    }
}

/// Tokenizes with o200k_base, each text once.
#[derive(Debug, Default)]
pub struct Tokenizer {
    known: HashMap<String, Vec<u32>>,
}

impl Tokenizer {
    /// A text's tokens.
    pub fn text(&mut self, text: &str) -> Vec<u32> {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        let tokens = bpe_openai::o200k_base().encode(text);
        self.known.insert(text.to_owned(), tokens.clone());
        tokens
    }

    /// The tokens of a request's prompt, up to where the answer begins.
    pub fn prompt(&mut self, shape: Shape, request: &Value) -> Vec<u32> {
        if shape == Shape::Completions {
            let texts = contents(&request["prompt"]);
            return texts.iter().flat_map(|text| self.text(text)).collect();
        }
        let turn = |role: &str, texts: Vec<String>| (role.to_owned(), texts);
        let tools = items(&request["tools"]).map(|tool| turn("tool", vec![tool.to_string()]));
        let mut turns: Vec<_> = tools.collect();
        for member in ["system", "instructions"] {
            let texts = contents(&request[member]);
            turns.extend((!texts.is_empty()).then(|| turn("system", texts)));
        }
        if let Value::String(text) = &request["input"] {
            turns.push(turn("user", vec![text.clone()]));
        }
        for message in ["messages", "input"]
            .iter()
            .flat_map(|m| items(&request[*m]))
        {
            let mut texts = contents(&message["content"]);
            texts.extend(items(&message["tool_calls"]).map(Value::to_string));
            turns.push(turn(message["role"].as_str().unwrap_or_default(), texts));
        }
        let mut tokens = Vec::new();
        for (role, texts) in turns {
            self.begin(&role, &mut tokens);
            tokens.extend(texts.iter().flat_map(|text| self.text(text)));
            tokens.push(CLOSE);
        }
        self.begin("assistant", &mut tokens);
        tokens
    }

    /// An answer's tokens, as they stand in the next turn's prompt.
    pub fn answer(&mut self, text: &str) -> Vec<u32> {
        self.text(text).into_iter().chain([CLOSE]).collect()
    }

    fn begin(&mut self, role: &str, tokens: &mut Vec<u32>) {
        tokens.push(OPEN);
        tokens.extend(self.text(role));
        tokens.push(BODY);
    }
}

/// The texts of a content: a string, or parts; a part without text counts as its JSON.
fn contents(content: &Value) -> Vec<String> {
    let part = |part: &Value| match part {
        Value::String(text) => text.clone(),
        part => part["text"]
            .as_str()
            .map_or(part.to_string(), str::to_owned),
    };
    match content {
        Value::Null => vec![],
        Value::Array(parts) => parts.iter().map(part).collect(),
        whole => iter::once(whole).map(part).collect(),
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_turn_continues_the_one_before_it_in_every_api() {
        let parts =
            json!([{"type": "text", "text": "You are"}, {"type": "text", "text": " kind."}]);
        let user = json!({"role": "user", "content": "Hello?"});
        let [answer, more] =
            ["assistant", "user"].map(|role| json!({"role": role, "content": "Yes."}));
        let tools = json!([{"name": "f"}]);
        let cases = [
            (
                Shape::Chat,
                json!({"tools": tools, "messages": [{"role": "system", "content": parts}, user]}),
                "messages",
            ),
            (
                Shape::Messages,
                json!({"tools": tools, "system": parts, "messages": [user]}),
                "messages",
            ),
            (
                Shape::Responses,
                json!({"tools": tools, "instructions": "You are kind.", "input": [user]}),
                "input",
            ),
        ];
        let mut tokenizer = Tokenizer::default();
        let mut lengths = vec![];
        for (shape, first, list) in cases {
            let mut second = first.clone();
            second[list]
                .as_array_mut()
                .unwrap()
                .extend([answer.clone(), more.clone()]);
            let begun = [tokenizer.prompt(shape, &first), tokenizer.answer("Yes.")].concat();
            assert!(
                tokenizer.prompt(shape, &second).starts_with(&begun),
                "{shape:?}"
            );
            lengths.push(begun.len());
        }
        assert_eq!(lengths[0], lengths[1]);
        let text = tokenizer.prompt(Shape::Completions, &json!({"prompt": "Once upon a time"}));
        assert_eq!(text, tokenizer.text("Once upon a time"));
        let input = json!({"input": "Hello?"});
        let listed = json!({"input": [user]});
        assert_eq!(
            tokenizer.prompt(Shape::Responses, &input),
            tokenizer.prompt(Shape::Responses, &listed)
        );
    }

    #[test]
    fn shapes() {
        for (target, shape) in [
            ("/v1/chat/completions?a=1", Some(Shape::Chat)),
            ("/v1/completions", Some(Shape::Completions)),
            ("/v1/messages", Some(Shape::Messages)),
            ("/v1/responses", Some(Shape::Responses)),
            ("/health", None),
        ] {
            assert_eq!(Shape::of(target), shape);
        }
    }
}
