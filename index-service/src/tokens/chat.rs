//! A model's own tokenizer and chat template: counts the prompt that the engine will see.
//!
//! The prompt is rendered, the ends of the wanted prefixes are found in it ([`prefix`]), and one
//! pass of the tokenizer counts them all. A prefix whose text is no leading text of the prompt
//! (templates that move or drop what came earlier) is tokenized for itself. Where the template
//! refuses, the texts of the blocks are counted instead.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::template::{ChatTemplate, Conversation, RenderError, prefix};
use super::tokenizer::Tokenizer;
use super::{CountError, Counted, Counts, Method, Prompt, TokenSource};

/// Counts with a model's own tokenizer and, if it has one, its chat template.
pub struct Chat {
    /// Digest of everything below.
    pub version: String,
    /// The tokenizer, shared by all models that have the same.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// Its templates; without one the texts of the blocks are counted.
    pub templates: Templates,
    /// Template variables that a request may override.
    pub variables: Map<String, Value>,
}

/// The chat templates of a model.
#[derive(Debug, Default)]
pub struct Templates {
    /// For every request, or for those without tools.
    pub default: Option<ChatTemplate>,
    /// For requests with tools.
    pub tool_use: Option<ChatTemplate>,
}

impl TokenSource for Chat {
    fn version(&self) -> &str {
        &self.version
    }

    fn count(
        &self,
        prompt: &Prompt<'_>,
        from: Option<Counted>,
        boundaries: &[u32],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Counts, CountError> {
        if let Some(plain) = prompt.plain() {
            return plain.count(self.tokenizer.as_ref(), boundaries, go_on);
        }
        let count = Count {
            source: self,
            prompt,
            go_on,
        };
        let rendering = match &self.templates.default {
            Some(template) => count.rendering(template, boundaries)?,
            None => None,
        };
        match rendering {
            Some(rendering) => count.rendered(rendering, from, boundaries),
            None => Ok(Counts {
                prefixes: count.fill(&vec![None; boundaries.len()], from, boundaries)?,
                prompt: None,
                method: match self.templates.default {
                    Some(_) => Method::Refused,
                    None => Method::BlockTexts,
                },
            }),
        }
    }

    fn warm_up(&self) {
        // Nobody waits for this count.
        let _ = self.tokenizer.count("warm up", &|| true);
    }
}

/// What the template made of a prompt.
struct Rendering {
    /// The whole prompt; `None` where the template refuses it, but not the prefixes.
    whole: Option<String>,
    /// The text of each prefix; `None` where the template refuses it.
    prefixes: Vec<Option<String>>,
}

struct Count<'c> {
    source: &'c Chat,
    prompt: &'c Prompt<'c>,
    go_on: &'c dyn Fn() -> bool,
}

impl Count<'_> {
    /// `None` for a body that no template accepts.
    fn rendering(
        &self,
        template: &ChatTemplate,
        boundaries: &[u32],
    ) -> Result<Option<Rendering>, CountError> {
        let body = self.prompt.unmarked();
        let variables = &self.source.variables;
        let mut template = template;
        let mut chat = Conversation::parse(&body, template.format(), variables);
        if let (Ok(found), Some(tool_use)) = (&chat, &self.source.templates.tool_use)
            && found.brings_tools()
        {
            template = tool_use;
            chat = Conversation::parse(&body, template.format(), variables);
        }
        let Ok(chat) = chat else {
            return Ok(None);
        };
        let whole = accepted(chat.render(template, self.go_on))?;
        let mut prefixes = Vec::with_capacity(boundaries.len());
        for boundary in boundaries {
            let Some(place) = self.prompt.place(*boundary) else {
                // All blocks so far are of those that templates are shown nothing of.
                prefixes.push(Some(String::new()));
                continue;
            };
            let found = prefix(template, &chat, place, self.go_on);
            prefixes.push(accepted(found)?.map(|prefix| prefix.text));
        }
        let any = whole.is_some() || prefixes.iter().any(Option::is_some);
        Ok(any.then_some(Rendering { whole, prefixes }))
    }

    fn rendered(
        &self,
        rendering: Rendering,
        from: Option<Counted>,
        boundaries: &[u32],
    ) -> Result<Counts, CountError> {
        let Rendering { whole, prefixes } = rendering;
        let mut counted = vec![None; prefixes.len()];
        let mut prompt = None;
        let mut method = Method::Rendered;
        if let Some(whole) = &whole {
            let tokens = self.pass(whole, &prefixes, &mut counted)?;
            prompt = Some(tokens);
            if prefixes
                .iter()
                .zip(&counted)
                .any(|(text, count)| text.is_some() && count.is_none())
            {
                method = Method::Moved;
            }
        }
        // The longest first: the shorter ones may be its leading texts.
        let mut rest: Vec<usize> = (0..prefixes.len()).rev().collect();
        rest.sort_by_key(|at| {
            let text = prefixes.get(*at).and_then(Option::as_ref);
            std::cmp::Reverse(text.map_or(0, String::len))
        });
        for at in rest {
            let missing = counted.get(at).is_some_and(Option::is_none);
            if let (true, Some(Some(text))) = (missing, prefixes.get(at)) {
                self.pass(text, &prefixes, &mut counted)?;
            }
        }
        if prefixes.iter().any(Option::is_none) {
            method = Method::Refused;
        }
        let mut prefixes = self.fill(&counted, from, boundaries)?;
        if let Some(prompt) = prompt {
            let most = prompt.max(from.map_or(0, |from| from.tokens));
            for tokens in &mut prefixes {
                *tokens = most.min(*tokens);
            }
        }
        Ok(Counts {
            prefixes,
            prompt,
            method,
        })
    }

    /// Tokenizes `text` once; notes the counts of the prefixes that are its leading texts and
    /// returns its own.
    fn pass(
        &self,
        text: &str,
        prefixes: &[Option<String>],
        counted: &mut [Option<u64>],
    ) -> Result<u64, CountError> {
        let mut leading: Vec<(usize, usize)> = prefixes
            .iter()
            .enumerate()
            .filter_map(|(at, prefix)| Some((prefix.as_ref()?, at)))
            .filter(|(prefix, _)| text.starts_with(prefix.as_str()))
            .map(|(prefix, at)| (prefix.len(), at))
            .collect();
        leading.sort_unstable();
        let mut ends: Vec<usize> = leading.iter().map(|(end, _)| *end).collect();
        ends.push(text.len());
        let counts = self
            .source
            .tokenizer
            .count_prefixes(text, &ends, self.go_on)?;
        for ((_, at), tokens) in leading.iter().zip(&counts) {
            if let Some(slot @ None) = counted.get_mut(*at) {
                *slot = Some(*tokens);
            }
        }
        counts.last().copied().ok_or(CountError::Failed)
    }

    /// Counts that never descend. A prefix without a count is the one before it and the texts of
    /// the blocks since then.
    fn fill(
        &self,
        counted: &[Option<u64>],
        from: Option<Counted>,
        boundaries: &[u32],
    ) -> Result<Vec<u64>, CountError> {
        let mut next = from.map_or(0, |from| from.block.saturating_add(1));
        let mut tokens = from.map_or(0, |from| from.tokens);
        let mut filled = Vec::with_capacity(boundaries.len());
        for (boundary, counted) in boundaries.iter().zip(counted) {
            match counted {
                Some(counted) => tokens = tokens.max(*counted),
                None => {
                    for block in next..=*boundary {
                        if let Some(text) = self.prompt.block_text(block) {
                            let more = self.source.tokenizer.count(&text, self.go_on)?;
                            tokens = tokens.saturating_add(more);
                        }
                    }
                }
            }
            next = boundary.saturating_add(1);
            filled.push(tokens);
        }
        Ok(filled)
    }
}

/// `None` for what the template refuses or cannot afford.
fn accepted<T>(rendered: Result<T, RenderError>) -> Result<Option<T>, CountError> {
    match rendered {
        Ok(text) => Ok(Some(text)),
        Err(RenderError::Refused(_) | RenderError::TooExpensive) => Ok(None),
        Err(RenderError::TooSlow) => Err(CountError::TooSlow),
    }
}
