//! The service's side of `./just test-oracle`: counts each line of its input.
//!
//! `count_tokens builtin ENCODING` or `count_tokens json TOKENIZER_JSON [TOKENIZER_CONFIG_JSON]`. A line
//! is `{"text": …, "ends": [byte offsets]}`, its answer the counts at these offsets.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, Write};

use prompt_cache_index::tokens::Encoding;
use prompt_cache_index::tokens::tokenizer::{Builtin, HuggingFace, Tokenizer};
use serde::Deserialize;

#[derive(Deserialize)]
struct Line {
    text: String,
    ends: Vec<usize>,
}

fn tokenizer(arguments: &[String]) -> Box<dyn Tokenizer> {
    let names: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let read = |path: &str| std::fs::read(path).unwrap();
    match names.as_slice() {
        ["builtin", name] => {
            let encoding = Encoding::deserialize(serde_json::json!(name)).unwrap();
            Box::new(Builtin::new(encoding))
        }
        ["json", path] => Box::new(HuggingFace::load(&read(path), None).unwrap()),
        ["json", path, config] => {
            Box::new(HuggingFace::load(&read(path), Some(&read(config))).unwrap())
        }
        other => panic!("what is {other:?}?"),
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let tokenizer = tokenizer(&arguments);
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line: Line = serde_json::from_str(&line.unwrap()).unwrap();
        let counts = tokenizer.count_prefixes(&line.text, &line.ends, &|| true);
        writeln!(out, "{}", serde_json::to_string(&counts.unwrap()).unwrap()).unwrap();
    }
}
