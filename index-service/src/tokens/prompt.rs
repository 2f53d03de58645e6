//! The prompt as a token source sees it: the blocks of a request, each in its chat form.

use std::borrow::Cow;
use std::ops::Range;

use prompt_cache_core::api::Api;
use prompt_cache_core::request::{BlockPlace, ChatRequest, Edits, scan, scan_as};

use super::messages::{ChatForm, chat_form};

/// A request's body in the form that chat templates are for.
pub struct PromptBody<'a> {
    chat: Cow<'a, [u8]>,
    /// For each block of the request, the blocks of the chat form up to its end; `None` where
    /// they are the same.
    ends: Option<Vec<u32>>,
}

impl<'a> PromptBody<'a> {
    /// The chat form of a request of that API.
    ///
    /// # Errors
    /// When it is no such request.
    pub fn of(api: Api, body: &'a [u8]) -> Result<Self, BadPrompt> {
        match api {
            Api::Chat => Ok(Self {
                chat: Cow::Borrowed(body),
                ends: None,
            }),
            Api::Messages | Api::Responses | Api::Completions => {
                let blocks = scan_as(api, body).map_err(|_| BadPrompt)?.block_count();
                let ChatForm { body, ends } = chat_form(body).ok_or(BadPrompt)?;
                if ends.len() != blocks {
                    return Err(BadPrompt);
                }
                Ok(Self {
                    chat: Cow::Owned(body),
                    ends: Some(ends),
                })
            }
        }
    }

    /// Takes it apart.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn prompt(&self) -> Result<Prompt<'_>, BadPrompt> {
        Ok(Prompt {
            ends: self.ends.as_deref(),
            ..Prompt::parse(&self.chat)?
        })
    }
}

/// A request's body, taken apart by the same rules as in the filter, so that block numbers
/// mean the same.
pub struct Prompt<'a> {
    body: &'a [u8],
    chat: ChatRequest<'a>,
    /// See [`PromptBody`].
    ends: Option<&'a [u32]>,
}

/// A body that is no request of its API, although the filter took it for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body after the first line is not a chat request")]
pub struct BadPrompt;

impl<'a> Prompt<'a> {
    /// Takes the body of a chat request apart.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn parse(body: &'a [u8]) -> Result<Self, BadPrompt> {
        let chat = scan(body).map_err(|_| BadPrompt)?;
        Ok(Self {
            body,
            chat,
            ends: None,
        })
    }

    /// Number of blocks.
    pub fn block_count(&self) -> usize {
        self.ends.map_or(self.chat.block_count(), <[u32]>::len)
    }

    /// The text that is counted for a block; `None` for a block without any.
    pub fn block_text(&self, block: u32) -> Option<Cow<'a, str>> {
        let mut texts = self.chat_blocks(block)?.filter_map(|block| {
            let block = usize::try_from(block).ok()?;
            self.chat.block_text(block)
        });
        let first = texts.next()?;
        Some(texts.fold(first, |all, text| all + text))
    }

    /// Where a block ends in the chat form; `None` beyond the last block.
    pub fn place(&self, block: u32) -> Option<BlockPlace> {
        let blocks = self.chat_blocks(block)?;
        self.chat.block_place(blocks.end.checked_sub(1)?)
    }

    /// The JSON of its content parts; none for string content and for blocks that are no parts.
    pub fn parts_json(&self, block: u32) -> impl Iterator<Item = &'a [u8]> {
        let blocks = self.chat_blocks(block).unwrap_or_default();
        blocks.filter_map(|block| self.chat.part_json(block))
    }

    /// The chat form as the backend would get it: without markers.
    pub fn unmarked(&self) -> Cow<'a, [u8]> {
        let forwarded = self.chat.forwarded(&Edits::default());
        forwarded.map_or(Cow::Borrowed(self.body), Cow::Owned)
    }

    /// The blocks of the chat form that a block is.
    fn chat_blocks(&self, block: u32) -> Option<Range<u32>> {
        let Some(ends) = self.ends else {
            return Some(block..block.checked_add(1)?);
        };
        let at = usize::try_from(block).ok()?;
        let end = *ends.get(at)?;
        let before = at.checked_sub(1).and_then(|before| ends.get(before));
        Some(before.copied().unwrap_or_default()..end)
    }
}
