//! The zoo: one template for each family, with its special tokens.

use jiff::Timestamp;
use prompt_cache_core::request::{BlockPlace, scan};
use prompt_cache_index::tokens::template::{ChatTemplate, Conversation, RenderError, prefix};
use serde_json::{Map, Value};

/// A template of the zoo.
pub struct Animal {
    pub name: &'static str,
    pub source: &'static str,
    pub system: bool,
    pub tools: bool,
    /// More than one call in a message.
    pub many_calls: bool,
}

macro_rules! animal {
    ($name:literal, $($field:ident: $value:expr),*) => {
        Animal {
            name: $name,
            source: include_str!(concat!($name, ".jinja")),
            $($field: $value),*
        }
    };
}

pub const ZOO: [Animal; 11] = [
    animal!("qwen2.5", system: true, tools: true, many_calls: true),
    animal!("qwen3", system: true, tools: true, many_calls: true),
    animal!("llama3.1", system: true, tools: true, many_calls: false),
    animal!("mistral-v3", system: true, tools: true, many_calls: true),
    animal!("mistral-tekken", system: true, tools: true, many_calls: true),
    animal!("gemma2", system: false, tools: false, many_calls: false),
    animal!("gemma3", system: true, tools: false, many_calls: false),
    animal!("phi4-mini", system: true, tools: false, many_calls: false),
    animal!("deepseek-r1", system: true, tools: true, many_calls: true),
    animal!("glm4.5", system: true, tools: true, many_calls: true),
    animal!("gpt-oss", system: true, tools: true, many_calls: false),
];

/// 6 March 2025, a Thursday.
pub fn now() -> Timestamp {
    "2025-03-06T07:08:09Z".parse().unwrap()
}

pub fn template(source: &str) -> ChatTemplate {
    let special = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let special = special.map(|(name, token)| (name.to_owned(), token.to_owned()));
    ChatTemplate::new(source, special.to_vec(), None, now).unwrap()
}

impl Animal {
    pub fn template(&self) -> ChatTemplate {
        template(self.source)
    }
}

pub fn by_name(name: &str) -> ChatTemplate {
    let animal = ZOO.iter().find(|animal| animal.name == name).unwrap();
    animal.template()
}

pub fn conversation(template: &ChatTemplate, body: &Value) -> Conversation {
    let body = serde_json::to_vec(body).unwrap();
    Conversation::parse(&body, template.format(), &Map::new()).unwrap()
}

pub fn render(template: &ChatTemplate, body: &Value) -> Result<String, RenderError> {
    conversation(template, body).render(template, &|| true)
}

pub fn places(body: &Value) -> Vec<BlockPlace> {
    let body = serde_json::to_vec(body).unwrap();
    let request = scan(&body).unwrap();
    (0..)
        .map_while(|block| request.block_place(block))
        .collect()
}

/// The text of the prefix that ends with each block.
pub fn prefixes(template: &ChatTemplate, body: &Value) -> Vec<Result<String, RenderError>> {
    let conversation = conversation(template, body);
    let prefix_at = |place| prefix(template, &conversation, place, &|| true);
    let places = places(body).into_iter();
    places
        .map(|place| prefix_at(place).map(|prefix| prefix.text))
        .collect()
}
