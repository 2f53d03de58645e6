//! `count`: the blocks of a request and their tokens as a table, to explain a bill.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use prompt_cache_core::ledger::Breakpoint;
use prompt_cache_core::request::{BlockPlace, Implied, MarkerRules, MixedTtlOrder, scan};
use serde_json::Value;

use super::{Failed, source_error};
use crate::config::{Config, ModelConfig};
use crate::tokens::source::{Loader, Place, SourceConfig};
use crate::tokens::{Counts, Image, ImageTokens, Method, Prompt};

/// Largest request that is read.
const BODY_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Args)]
pub(super) struct CountArgs {
    /// The service's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A model of the configuration.
    #[arg(long, value_name = "NAME")]
    model: String,
    /// The body of a chat request, with or without markers; `-` reads standard input.
    #[arg(value_name = "FILE")]
    request: PathBuf,
}

impl CountArgs {
    pub(super) fn run(self) -> Result<(), Failed> {
        let config = Config::load(&self.config)?;
        let found = config.models.iter().enumerate();
        let (index, model) = found
            .clone()
            .find(|(_, model)| model.model == self.model)
            .ok_or_else(|| Failed::Other(format!("no model {:?} is configured", self.model)))?;
        let source = Loader::default().load(&local(&model.source), model.images);
        let source = source.map_err(|error| source_error(&self.config, index, &error))?;
        let body = read(&self.request)
            .map_err(|error| Failed::Other(format!("{}: {error}", self.request.display())))?;
        let prompt = Prompt::parse(&body).map_err(Failed::other)?;
        let blocks = u32::try_from(prompt.block_count()).map_err(Failed::other)?;
        let boundaries: Vec<u32> = (0..blocks).collect();
        let counts = source.count(&prompt, None, &boundaries, &|| true);
        let counts = counts.map_err(Failed::other)?;
        let breakpoints = breakpoints(&body, model)?;
        let table = Table {
            request: serde_json::from_slice(&body).map_err(Failed::other)?,
            model,
            counts,
            breakpoints,
        };
        let text = table.text(&prompt, source.version());
        std::io::stdout()
            .lock()
            .write_all(text.as_bytes())
            .map_err(Failed::other)
    }
}

/// A command that explains a bill asks no other machine.
fn local(source: &SourceConfig) -> SourceConfig {
    let mut source = source.clone();
    if let SourceConfig::Files(files) = &mut source
        && let Place::Hub(hub) = &mut files.place
    {
        hub.offline = true;
    }
    source
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(BODY_BYTES_MAX)
            .read_to_end(&mut body)?;
    } else {
        std::fs::File::open(path)?
            .take(BODY_BYTES_MAX)
            .read_to_end(&mut body)?;
    }
    Ok(body)
}

fn breakpoints(body: &[u8], model: &ModelConfig) -> Result<Vec<Breakpoint>, Failed> {
    let rules = MarkerRules {
        tiers: &model.tiers,
        default_tier: model.default_tier,
        mixed_ttl_order: MixedTtlOrder::Any,
        implied: Implied::Nothing,
    };
    let request = scan(body).map_err(|opaque| Failed::Other(opaque.as_str().to_owned()))?;
    let breakpoints = request.breakpoints(&rules);
    breakpoints.map_err(|refusal| Failed::Other(format!("the filter refuses it: {refusal:?}")))
}

struct Table<'m> {
    request: Value,
    model: &'m ModelConfig,
    counts: Counts,
    breakpoints: Vec<Breakpoint>,
}

impl Table<'_> {
    fn text(&self, prompt: &Prompt<'_>, version: &str) -> String {
        let mut rows =
            vec![["block", "where", "kind", "tokens", "prefix", "marker"].map(str::to_owned)];
        let mut before = 0;
        for (block, prefix) in (0u32..).zip(&self.counts.prefixes) {
            let (place, kind) = prompt
                .place(block)
                .map_or_else(Default::default, |place| self.describe(place));
            rows.push([
                block.to_string(),
                place,
                kind,
                prefix.saturating_sub(before).to_string(),
                prefix.to_string(),
                self.marker(block, *prefix),
            ]);
            before = *prefix;
        }
        let mut text = aligned(&rows);
        text += "\n";
        if let Some(tokens) = self.counts.prompt {
            text += &format!("whole prompt: {tokens} tokens, the start of the answer included\n");
        }
        text += &self.images(prompt);
        text += &format!("counted by:   {}\n", method(self.counts.method));
        text += &format!("tokenizer:    version {version}\n");
        text
    }

    /// A line about the images; nothing where there are none.
    fn images(&self, prompt: &Prompt<'_>) -> String {
        let rule = &self.model.images;
        let blocks = u32::try_from(prompt.block_count()).unwrap_or(u32::MAX);
        let parts = (0..blocks).flat_map(|block| prompt.parts_json(block));
        let images: Vec<Image> = parts.filter_map(Image::of_part).collect();
        if images.is_empty() {
            return String::new();
        }
        let tokens: u64 = images.iter().map(|image| rule.of(image)).sum();
        let unknown = images.iter().filter(|image| image.size_px.is_none());
        let (name, unknown) = match rule {
            ImageTokens::Ignore => ("ignore", 0),
            ImageTokens::Fixed(_) => ("fixed", 0),
            ImageTokens::Tiles(_) => ("tiles", unknown.count()),
        };
        let mut line = format!(
            "images:       {}, {tokens} tokens of the above by image_tokens: {name}",
            images.len()
        );
        if unknown > 0 {
            line += &format!("; {unknown} of unknown size, counted as the smallest");
        }
        line + "\n"
    }

    fn marker(&self, block: u32, prefix: u64) -> String {
        let Some(found) = self.breakpoints.iter().find(|b| b.block == block) else {
            return String::new();
        };
        let tier = found.tier.as_str();
        if prefix < self.model.min_prefix_tokens {
            let floor = self.model.min_prefix_tokens;
            return format!("{tier}, below {floor}: not written");
        }
        tier.to_owned()
    }

    /// The path of a block and what it is.
    fn describe(&self, place: BlockPlace) -> (String, String) {
        let messages = self.request.get("messages");
        let message = |at: u32| messages.and_then(|list| list.get(at as usize));
        let role = |at: u32| {
            let role = message(at).and_then(|message| message.get("role"));
            role.and_then(Value::as_str).unwrap_or("no role").to_owned()
        };
        match place {
            BlockPlace::Tool { tool } => (format!("tools[{tool}]"), "tool".to_owned()),
            BlockPlace::Part { message: at, part } => {
                let content = message(at).and_then(|message| message.get("content"));
                let kind = content.and_then(|content| content.get(part as usize)?.get("type"));
                let kind = kind.and_then(Value::as_str).unwrap_or("text");
                let path = match content {
                    Some(Value::String(_)) => format!("messages[{at}].content"),
                    _ => format!("messages[{at}].content[{part}]"),
                };
                (path, format!("{} {kind}", role(at)))
            }
            BlockPlace::ToolCall { message: at, call } => (
                format!("messages[{at}].tool_calls[{call}]"),
                format!("{} tool_call", role(at)),
            ),
            BlockPlace::Empty { message: at } => {
                (format!("messages[{at}]"), format!("{} empty", role(at)))
            }
        }
    }
}

const fn method(method: Method) -> &'static str {
    match method {
        Method::BlockTexts => "block texts (the model has no chat template): close, not exact",
        Method::Plain => "the prompt as it is, with the tokenizer's own special tokens",
        Method::Rendered => "the rendered chat template: as the engine counts",
        Method::Moved => {
            "the rendered chat template, which shows some prefix otherwise in this prompt"
        }
        Method::Refused => {
            "block texts, at least for some blocks: the chat template refuses this conversation"
        }
    }
}

/// Columns of equal width, numbers to the right.
fn aligned(rows: &[[String; 6]]) -> String {
    let mut widths = [0; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let cell = match column {
                0 | 3 | 4 => format!("{cell:>width$}  "),
                _ => format!("{cell:<width$}  "),
            };
            line += &cell;
        }
        text += line.trim_end();
        text += "\n";
    }
    text
}
