//! The prompt as a token source sees it: blocks of text out of a chat request.

use std::borrow::Cow;

/// A chat request's body, taken apart.
pub struct Prompt<'a> {
    blocks: Vec<Cow<'a, str>>,
}

/// A body that is no chat request, although the filter took it for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body after the first line is not a chat request")]
pub struct BadPrompt;

impl<'a> Prompt<'a> {
    /// Takes `body` apart.
    ///
    /// # Errors
    /// When it is no JSON object with the shape of a chat request.
    pub fn parse(body: &'a [u8]) -> Result<Self, BadPrompt> {
        let body: serde_json::Value = serde_json::from_slice(body).map_err(|_| BadPrompt)?;
        let mut blocks = Vec::new();
        for message in body
            .get("messages")
            .and_then(|m| m.as_array())
            .ok_or(BadPrompt)?
        {
            match message.get("content") {
                Some(serde_json::Value::String(text)) => blocks.push(Cow::Owned(text.clone())),
                Some(serde_json::Value::Array(parts)) => {
                    for part in parts {
                        let text = part
                            .get("text")
                            .and_then(|t| t.as_str())
                            .unwrap_or_default();
                        blocks.push(Cow::Owned(text.to_owned()));
                    }
                }
                _ => blocks.push(Cow::Borrowed("")),
            }
        }
        Ok(Self { blocks })
    }

    /// Number of blocks.
    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// The text that is counted for a block.
    pub fn block_text(&self, block: u32) -> Option<Cow<'_, str>> {
        self.blocks
            .get(usize::try_from(block).ok()?)
            .map(|text| Cow::Borrowed(text.as_ref()))
    }
}
