//! The service's side of `./just test-oracle`: counts each line of its input.
//!
//! `count_tokens builtin ENCODING` or `count_tokens json TOKENIZER_JSON [TOKENIZER_CONFIG_JSON]`: a
//! line is `{"text": …, "ends": [byte offsets]}`, its answer the counts at these offsets.
//!
//! `count_tokens model DIR` with a model's files: a line is `{"api": …, "request": …, "blocks":
//! [indices]}`, its answer `{"text": the prompt, "tokens": its count, "prefixes": [counts], "ends":
//! [bytes], "moved": [texts]}`; `null` for a text that the template refuses. A prefix has an end if
//! it is leading text of the prompt, else its own text. Without a template the counts are all.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;

use prompt_cache_core::api::Api;
use prompt_cache_index::tokens::source::{FilesConfig, Loader, Place, SourceConfig};
use prompt_cache_index::tokens::template::{ChatTemplate, Conversation, prefix};
use prompt_cache_index::tokens::tokenizer::{Builtin, HuggingFace, Tokenizer};
use prompt_cache_index::tokens::{Encoding, ImageTokens, PromptBody, TokenSource};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Line {
    text: String,
    ends: Vec<usize>,
}

#[derive(Deserialize)]
struct ModelLine {
    api: Api,
    request: Value,
    blocks: Vec<u32>,
}

fn tokenizer(arguments: &[&str]) -> Box<dyn Tokenizer> {
    let read = |path: &str| std::fs::read(path).unwrap();
    match arguments {
        ["builtin", name] => {
            let encoding = Encoding::deserialize(json!(name)).unwrap();
            Box::new(Builtin::new(encoding))
        }
        ["json", path] => Box::new(HuggingFace::load(&read(path), None).unwrap()),
        ["json", path, config] => {
            Box::new(HuggingFace::load(&read(path), Some(&read(config))).unwrap())
        }
        other => panic!("what is {other:?}?"),
    }
}

/// A model: what counts its tokens, and its template, if it has one, for the text itself.
struct Model {
    source: Arc<dyn TokenSource>,
    template: Option<ChatTemplate>,
}

impl Model {
    fn load(dir: &Path) -> Self {
        let config = SourceConfig::Files(Box::new(FilesConfig {
            place: Place::Dir(dir.to_owned()),
            chat_template: None,
            content_format: None,
            chat_template_kwargs: Map::new(),
        }));
        let source = Loader::default().load(&config, ImageTokens::Ignore);
        let source = source.unwrap();
        let Ok(text) = std::fs::read_to_string(dir.join("chat_template.jinja")) else {
            return Self {
                source,
                template: None,
            };
        };
        let known = std::fs::read(dir.join("tokenizer_config.json")).unwrap();
        let known: Map<String, Value> = serde_json::from_slice(&known).unwrap();
        let token = |value: &Value| {
            value
                .as_str()
                .or(value["content"].as_str())
                .map(str::to_owned)
        };
        let special = known.iter().filter(|(name, _)| name.ends_with("_token"));
        let special = special.filter_map(|(name, value)| Some((name.clone(), token(value)?)));
        let template =
            ChatTemplate::new(&text, special.collect(), None, jiff::Timestamp::now).unwrap();
        Self {
            source,
            template: Some(template),
        }
    }

    fn answer(&self, line: &ModelLine) -> Value {
        let body = serde_json::to_vec(&line.request).unwrap();
        let form = PromptBody::of(line.api, &body).unwrap();
        let prompt = form.prompt().unwrap();
        let counts = self.source.count(&prompt, None, &line.blocks, &|| true);
        let counts = counts.unwrap();
        let Some(template) = &self.template else {
            return json!({"tokens": counts.prompt, "prefixes": counts.prefixes});
        };
        let unmarked = prompt.unmarked();
        let chat = Conversation::parse(&unmarked, template.format(), &Map::new()).unwrap();
        let text = chat.render(template, &|| true).ok();
        let prefix = |block: &u32| {
            let found = match prompt.place(*block) {
                Some(place) => prefix(template, &chat, place, &|| true).ok()?.text,
                None => String::new(),
            };
            let leading = text.as_ref().is_some_and(|text| text.starts_with(&found));
            Some((leading, found))
        };
        let found: Vec<_> = line.blocks.iter().map(prefix).collect();
        let end = |found: &Option<(bool, String)>| match found {
            Some((true, text)) => Some(text.len()),
            _ => None,
        };
        let moved = |found: &Option<(bool, String)>| match found {
            Some((false, text)) => Some(text.clone()),
            _ => None,
        };
        json!({
            "text": text, "tokens": counts.prompt, "prefixes": counts.prefixes,
            "ends": found.iter().map(end).collect::<Vec<_>>(),
            "moved": found.iter().map(moved).collect::<Vec<_>>(),
        })
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut out = std::io::stdout().lock();
    let lines = std::io::stdin().lock().lines().map(Result::unwrap);
    if let ["model", dir] = arguments.as_slice() {
        let model = Model::load(Path::new(dir));
        for line in lines {
            let answer = model.answer(&serde_json::from_str(&line).unwrap());
            writeln!(out, "{answer}").unwrap();
        }
        return;
    }
    let tokenizer = tokenizer(&arguments);
    for line in lines {
        let line: Line = serde_json::from_str(&line).unwrap();
        let counts = tokenizer.count_prefixes(&line.text, &line.ends, &|| true);
        writeln!(out, "{}", serde_json::to_string(&counts.unwrap()).unwrap()).unwrap();
    }
}
