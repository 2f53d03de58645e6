//! `count`: the blocks of a request and their tokens as a table, to explain a bill.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use prompt_cache_core::api::Api;
use prompt_cache_core::ledger::Breakpoint;
use prompt_cache_core::request::{Implied, MarkerRules, MixedTtlOrder, scan_as};

use super::places::{Place as Where, places};
use super::{Failed, source_error};
use crate::config::{Config, ModelConfig};
use crate::tokens::source::{Loader, Place, SourceConfig};
use crate::tokens::{Counts, Image, ImageTokens, Method, Prompt, PromptBody};

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
    /// The API that the request is for.
    #[arg(long, value_enum, value_name = "API", default_value_t = Spoken::Chat)]
    api: Spoken,
    /// The body of a request, with or without markers; `-` reads standard input.
    #[arg(value_name = "FILE")]
    request: PathBuf,
}

/// An API by its name on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Spoken {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/messages`.
    Messages,
    /// `/v1/responses`.
    Responses,
    /// `/v1/completions`.
    Completions,
}

impl From<Spoken> for Api {
    fn from(spoken: Spoken) -> Self {
        match spoken {
            Spoken::Chat => Self::Chat,
            Spoken::Messages => Self::Messages,
            Spoken::Responses => Self::Responses,
            Spoken::Completions => Self::Completions,
        }
    }
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
        let api = Api::from(self.api);
        let form = PromptBody::of(api, &body).map_err(Failed::other)?;
        let prompt = form.prompt().map_err(Failed::other)?;
        let blocks = u32::try_from(prompt.block_count()).map_err(Failed::other)?;
        let boundaries: Vec<u32> = (0..blocks).collect();
        let counts = source.count(&prompt, None, &boundaries, &|| true);
        let counts = counts.map_err(Failed::other)?;
        let breakpoints = breakpoints(api, &body, model)?;
        let request = serde_json::from_slice(&body).map_err(Failed::other)?;
        let table = Table {
            places: places(api, &request),
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

fn breakpoints(api: Api, body: &[u8], model: &ModelConfig) -> Result<Vec<Breakpoint>, Failed> {
    let rules = MarkerRules {
        tiers: &model.tiers,
        default_tier: model.default_tier,
        mixed_ttl_order: MixedTtlOrder::Any,
        implied: model.auto.map_or(Implied::Nothing, Implied::EveryTurn),
    };
    let request = scan_as(api, body).map_err(|opaque| Failed::Other(opaque.as_str().to_owned()))?;
    let breakpoints = request.breakpoints(&rules);
    breakpoints.map_err(|refusal| Failed::Other(format!("the filter refuses it: {refusal:?}")))
}

struct Table<'m> {
    places: Vec<Where>,
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
            let place = self.places.get(block as usize);
            let (place, kind) = place.cloned().unwrap_or_default();
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
