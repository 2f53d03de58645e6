//! The prompt as a token source sees it: the blocks of a request, each in its chat form.

use std::borrow::Cow;
use std::ops::Range;

use prompt_cache_core::api::Api;
use prompt_cache_core::request::{BlockPlace, ChatRequest, Edits, scan, scan_as};

use super::completions::Plain;
use super::messages::ChatForm;
use super::{messages, responses};

/// A request's body in the form that it is counted in.
pub struct PromptBody<'a>(Form<'a>);

enum Form<'a> {
    /// What chat templates are for.
    Chat {
        body: Cow<'a, [u8]>,
        /// For each block of the request, the blocks of the chat form up to its end; `None`
        /// where they are the same.
        ends: Option<Vec<u32>>,
    },
    /// What no template touches, and its blocks: one, or none.
    Plain(Plain<'a>, usize),
}

impl<'a> PromptBody<'a> {
    /// The form of a request of that API.
    ///
    /// # Errors
    /// See [`BadPrompt`].
    pub fn of(api: Api, body: &'a [u8]) -> Result<Self, BadPrompt> {
        let chat_form = match api {
            Api::Chat => {
                return Ok(Self(Form::Chat {
                    body: Cow::Borrowed(body),
                    ends: None,
                }));
            }
            Api::Messages => messages::chat_form,
            Api::Responses => responses::chat_form,
            Api::Completions => {
                let blocks = blocks(api, body)?;
                let prompt = Plain::of(body).ok_or(BadPrompt::Uncountable)?;
                return Ok(Self(Form::Plain(prompt, blocks)));
            }
        };
        let blocks = blocks(api, body)?;
        let ChatForm { body, ends } = chat_form(body).ok_or(BadPrompt::Uncountable)?;
        if ends.len() != blocks {
            return Err(BadPrompt::Uncountable);
        }
        Ok(Self(Form::Chat {
            body: Cow::Owned(body),
            ends: Some(ends),
        }))
    }

    /// Takes it apart.
    ///
    /// # Errors
    /// See [`BadPrompt`].
    pub fn prompt(&self) -> Result<Prompt<'_>, BadPrompt> {
        match &self.0 {
            Form::Chat { body, ends } => {
                let prompt = Prompt::chat(body, ends.as_deref());
                // The chat form may be nested deeper than what it is made of.
                prompt.map_err(|error| match ends {
                    Some(_) => BadPrompt::Uncountable,
                    None => error,
                })
            }
            Form::Plain(prompt, blocks) => Ok(Prompt(Parsed::Plain(prompt, *blocks))),
        }
    }
}

/// The blocks that the filter sees in a body.
fn blocks(api: Api, body: &[u8]) -> Result<usize, BadPrompt> {
    let request = scan_as(api, body).map_err(|_| BadPrompt::NoRequest)?;
    Ok(request.block_count())
}

/// A request's body, taken apart by the same rules as in the filter, so that block numbers
/// mean the same.
pub struct Prompt<'a>(Parsed<'a>);

enum Parsed<'a> {
    Chat(Box<Chat<'a>>),
    /// See [`Form::Plain`].
    Plain(&'a Plain<'a>, usize),
}

struct Chat<'a> {
    body: &'a [u8],
    request: ChatRequest<'a>,
    /// See [`Form::Chat`].
    ends: Option<&'a [u32]>,
}

/// A body whose prompt cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPrompt {
    /// It is no request of its API, although the filter took it for one.
    #[error("the body is not a request of its API")]
    NoRequest,
    /// It is one, but cannot be put into the form that is counted.
    #[error("the body cannot be counted")]
    Uncountable,
}

impl<'a> Prompt<'a> {
    /// Takes the body of a chat request apart.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn parse(body: &'a [u8]) -> Result<Self, BadPrompt> {
        Self::chat(body, None)
    }

    fn chat(body: &'a [u8], ends: Option<&'a [u32]>) -> Result<Self, BadPrompt> {
        let request = scan(body).map_err(|_| BadPrompt::NoRequest)?;
        let chat = Chat {
            body,
            request,
            ends,
        };
        Ok(Self(Parsed::Chat(Box::new(chat))))
    }

    fn as_chat(&self) -> Option<&Chat<'a>> {
        match &self.0 {
            Parsed::Chat(chat) => Some(chat),
            Parsed::Plain(..) => None,
        }
    }

    /// The prompt as it is, of an API without a template; its only block is all of it.
    pub(super) const fn plain(&self) -> Option<&'a Plain<'a>> {
        match &self.0 {
            Parsed::Chat(_) => None,
            Parsed::Plain(prompt, _) => Some(*prompt),
        }
    }

    /// Number of blocks.
    pub fn block_count(&self) -> usize {
        match &self.0 {
            Parsed::Chat(chat) => chat.ends.map_or(chat.request.block_count(), <[u32]>::len),
            Parsed::Plain(_, blocks) => *blocks,
        }
    }

    /// The text that is counted for a block where there is no chat template; `None` for a block
    /// without any.
    pub fn block_text(&self, block: u32) -> Option<Cow<'a, str>> {
        let chat = self.as_chat()?;
        let mut texts = chat.blocks(block)?.filter_map(|block| {
            let block = usize::try_from(block).ok()?;
            chat.request.block_text(block)
        });
        let first = texts.next()?;
        Some(texts.fold(first, |all, text| all + text))
    }

    /// Where a block ends in the chat form; `None` beyond the last block, and for one up to
    /// which the chat form has nothing.
    pub fn place(&self, block: u32) -> Option<BlockPlace> {
        let chat = self.as_chat()?;
        let blocks = chat.blocks(block)?;
        chat.request.block_place(blocks.end.checked_sub(1)?)
    }

    /// The JSON of its content parts; none for string content and for blocks that are no parts.
    pub fn parts_json(&self, block: u32) -> impl Iterator<Item = &'a [u8]> {
        let chat = self.as_chat();
        let blocks = chat.and_then(|chat| chat.blocks(block)).unwrap_or_default();
        blocks.filter_map(move |block| chat?.request.part_json(block))
    }

    /// The chat form as the backend would get it: without markers. Empty where there is none.
    pub fn unmarked(&self) -> Cow<'a, [u8]> {
        let Some(chat) = self.as_chat() else {
            return Cow::Borrowed(&[]);
        };
        let forwarded = chat.request.forwarded(&Edits::default());
        forwarded.map_or(Cow::Borrowed(chat.body), Cow::Owned)
    }
}

impl Chat<'_> {
    /// The blocks of the chat form that a block is.
    fn blocks(&self, block: u32) -> Option<Range<u32>> {
        let Some(ends) = self.ends else {
            return Some(block..block.checked_add(1)?);
        };
        let at = usize::try_from(block).ok()?;
        let end = *ends.get(at)?;
        let before = at.checked_sub(1).and_then(|before| ends.get(before));
        Some(before.copied().unwrap_or_default()..end)
    }
}
