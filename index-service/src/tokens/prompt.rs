//! The prompt as a token source sees it: the blocks of a chat request.

use std::borrow::Cow;

use prompt_cache_core::request::{BlockPlace, ChatRequest, Edits, scan};

/// A chat request's body, taken apart by the same rules as in the filter, so that block numbers
/// mean the same.
pub struct Prompt<'a> {
    body: &'a [u8],
    chat: ChatRequest<'a>,
}

/// A body that is no chat request, although the filter took it for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body after the first line is not a chat request")]
pub struct BadPrompt;

impl<'a> Prompt<'a> {
    /// Takes `body` apart.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn parse(body: &'a [u8]) -> Result<Self, BadPrompt> {
        scan(body)
            .map(|chat| Self { body, chat })
            .map_err(|_| BadPrompt)
    }

    /// Number of blocks.
    pub fn block_count(&self) -> usize {
        self.chat.block_count()
    }

    /// The text that is counted for a block; `None` for a block without any.
    pub fn block_text(&self, block: u32) -> Option<Cow<'a, str>> {
        self.chat.block_text(usize::try_from(block).ok()?)
    }

    /// Where a block stands; `None` beyond the last block.
    pub fn place(&self, block: u32) -> Option<BlockPlace> {
        self.chat.block_place(block)
    }

    /// The JSON of a content part; `None` for string content and for blocks that are no parts.
    pub fn part_json(&self, block: u32) -> Option<&'a [u8]> {
        self.chat.part_json(block)
    }

    /// The body as the backend gets it: without markers.
    pub fn unmarked(&self) -> Cow<'a, [u8]> {
        let forwarded = self.chat.forwarded(&Edits::default());
        forwarded.map_or(Cow::Borrowed(self.body), Cow::Owned)
    }
}
