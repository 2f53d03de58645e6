//! What one pass finds in a body: flags, blocks, markers and cuts, as positions.

use std::borrow::Cow;

use super::{json::Span, shape::Shape};
use crate::api::Api;

/// A request's body that was read once, of any API. Borrows the body; memory is a few bytes per block
/// and marker.
#[derive(Debug)]
pub struct ChatRequest<'b> {
    pub(super) api: Api,
    pub(super) body: &'b [u8],
    pub(super) model: Option<Cow<'b, str>>,
    pub(super) stream: bool,
    pub(super) stream_options: StreamOptions,
    /// The value of the last top-level `cache_salt`.
    pub(super) cache_salt: Option<Span>,
    pub(super) tools: Tools,
    pub(super) system: System,
    pub(super) messages: Messages,
    /// The top-level `cache_control`, unless `null`.
    pub(super) automatic: Option<Span>,
    /// The top-level `prompt_cache_options`, unless `null`.
    pub(super) cache_options: Option<Span>,
    /// Whether a part of the prompt is not in the body: what is here is no prefix of it.
    pub(super) elsewhere: bool,
    /// Ranges to remove: every marker anywhere with its comma, ascending and disjoint.
    pub(super) cuts: Vec<Span>,
    /// Where a member can be added to the body.
    pub(super) end: ObjectEnd,
}

/// The end of an object, as needed to add a member there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ObjectEnd {
    /// Position of the closing brace.
    pub close: u32,
    /// Whether a member is left once the markers are cut, so that another one needs a comma.
    pub occupied: bool,
}

/// The last top-level `stream_options`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StreamOptions {
    #[default]
    Absent,
    Null(Span),
    Object {
        /// The value of its last `include_usage` and whether that is `true`.
        include_usage: Option<(Span, bool)>,
        end: ObjectEnd,
    },
    /// Neither an object nor `null`: the upstream's to refuse.
    Other,
}

impl StreamOptions {
    pub fn include_usage(self) -> bool {
        matches!(
            self,
            Self::Object {
                include_usage: Some((_, true)),
                ..
            }
        )
    }
}

/// The last top-level `tools`.
#[derive(Debug, Default)]
pub(super) struct Tools {
    pub value: Option<Span>,
    /// One block for each element of an array.
    pub blocks: Vec<Span>,
    /// In the order of the bytes.
    pub markers: Vec<Marker>,
}

/// The last top-level `system`, where the API has one.
#[derive(Debug, Default)]
pub(super) struct System {
    pub value: Option<Span>,
    /// One block of a string, or for each element of an array.
    pub blocks: Vec<Block>,
    /// In the order of the bytes.
    pub markers: Vec<Marker>,
}

/// The last top-level `messages`.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub value: Option<Span>,
    pub list: Vec<Message>,
    /// The blocks of all messages, in the order of the prompt.
    pub blocks: Vec<Block>,
    /// In the order of the bytes.
    pub markers: Vec<Marker>,
}

/// A block of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// The part, tool call or message; of text only its string.
    pub value: Span,
    pub form: Form,
    pub kind: Kind,
}

/// What a content block of the Messages API is, as far as rules differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Plain,
    ToolUse,
    ToolResult,
    /// Takes no marker.
    Thinking,
}

/// How a block is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Value,
    /// String content, or a part that has nothing but `type: text` and that string.
    Text {
        /// See [`super::json::Text::respelled`].
        respelled: bool,
    },
}

/// An element of `messages`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub value: Span,
    /// Index of its first block in [`Messages::blocks`].
    pub first_block: u32,
    /// Blocks that come from `content`.
    pub parts: u32,
    /// Blocks that come after those, see [`super::shape::More`]. Without either there is one
    /// block, the boundary.
    pub calls: u32,
    /// Its last `content`.
    pub content: Option<Span>,
    /// The last member with [`Self::calls`].
    pub more: Option<Span>,
    /// Whether the role is `user` or `tool`, or it is a call's output.
    pub from_outside: bool,
}

impl Message {
    pub fn block_count(&self) -> u32 {
        (self.parts + self.calls).max(1)
    }
}

/// A marker in effect on a tool, message, part or tool call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marker {
    pub place: Place,
    pub dialect: Dialect,
    pub value: Span,
}

/// The two ways to mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    CacheControl,
    PromptCacheBreakpoint,
}

/// Where a block stands: indices of the arrays in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockPlace {
    /// `tools[tool]`.
    Tool {
        /// Its index.
        tool: u32,
    },
    /// `messages[message].content[part]`; string content is part 0.
    Part {
        /// The message's index.
        message: u32,
        /// The part's index.
        part: u32,
    },
    /// `messages[message].tool_calls[call]`.
    ToolCall {
        /// The message's index.
        message: u32,
        /// The call's index.
        call: u32,
    },
    /// A message without content and calls.
    Empty {
        /// The message's index.
        message: u32,
    },
}

/// What a marker marks. Indices are those of the arrays in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tool(u32),
    System(u32),
    Message(u32),
    Part {
        message: u32,
        part: u32,
    },
    /// An element of the `content` of a tool's result.
    Inner {
        message: u32,
        part: u32,
        inner: u32,
    },
    /// A tool call, or a part of a call's output.
    More {
        message: u32,
        call: u32,
    },
    Top,
}

impl Place {
    /// The path of a member of what it marks.
    pub fn path(self, shape: &Shape, key: &str) -> String {
        let name = String::from_utf8_lossy;
        let messages = name(shape.messages.name());
        match self {
            Self::Tool(tool) => format!("tools[{tool}].{key}"),
            Self::System(part) => {
                format!("{}[{part}].{key}", name(shape.system.unwrap_or_default()))
            }
            Self::Message(message) => format!("{messages}[{message}].{key}"),
            Self::Part { message, part } => format!("{messages}[{message}].content[{part}].{key}"),
            Self::Inner {
                message,
                part,
                inner,
            } => format!("{messages}[{message}].content[{part}].content[{inner}].{key}"),
            Self::More { message, call } => {
                let more = name(shape.more.name());
                format!("{messages}[{message}].{more}[{call}].{key}")
            }
            Self::Top => key.to_owned(),
        }
    }
}

/// See [`ChatRequest::block_place`].
pub(super) fn block_place(request: &ChatRequest<'_>, block: u32) -> Option<BlockPlace> {
    let tools = super::json::offset(request.tools.blocks.len());
    if block < tools {
        return Some(BlockPlace::Tool { tool: block });
    }
    let at = block.checked_sub(request.messages_at())?;
    if at as usize >= request.messages.blocks.len() {
        return None;
    }
    let list = &request.messages.list;
    let index = list
        .partition_point(|message| message.first_block <= at)
        .checked_sub(1)?;
    let found = list.get(index)?;
    let (message, at) = (super::json::offset(index), at - found.first_block);
    Some(if at < found.parts {
        BlockPlace::Part { message, part: at }
    } else if found.calls > 0 {
        BlockPlace::ToolCall {
            message,
            call: at - found.parts,
        }
    } else {
        BlockPlace::Empty { message }
    })
}

impl ChatRequest<'_> {
    /// Where its API keeps things.
    pub(super) fn shape(&self) -> &'static Shape {
        Shape::of(self.api)
    }

    /// The first block of the messages.
    pub(super) fn messages_at(&self) -> u32 {
        super::json::offset(self.tools.blocks.len() + self.system.blocks.len())
    }

    /// What a block is.
    pub(super) fn kind(&self, block: u32) -> Kind {
        let at = block.checked_sub(self.messages_at());
        let block = at.and_then(|at| self.messages.blocks.get(at as usize));
        block.map_or(Kind::Plain, |block| block.kind)
    }

    /// Whether a block continues the run of tool uses, or of tool results, that the block before
    /// it belongs to: such a run is one step of the look-back.
    pub fn continues_run(&self, block: u32) -> bool {
        let kind = self.kind(block);
        matches!(kind, Kind::ToolUse | Kind::ToolResult)
            && block
                .checked_sub(1)
                .is_some_and(|before| self.kind(before) == kind)
    }

    /// The block a place marks; `None` at the top level of a request without blocks.
    pub(super) fn marked_block(&self, place: Place) -> Option<u32> {
        let first = |message: u32| {
            let message = self.messages.list.get(message as usize)?;
            Some((self.messages_at() + message.first_block, message))
        };
        match place {
            Place::Tool(tool) => Some(tool),
            Place::System(part) => Some(super::json::offset(self.tools.blocks.len()) + part),
            Place::Message(message) => {
                let (first, message) = first(message)?;
                Some(first + message.block_count() - 1)
            }
            Place::Part { message, part } | Place::Inner { message, part, .. } => {
                Some(first(message)?.0 + part)
            }
            Place::More { message, call } => {
                let (first, message) = first(message)?;
                Some(first + message.parts + call)
            }
            Place::Top => (0..super::json::offset(self.block_count()))
                .rev()
                .find(|&block| self.kind(block) != Kind::Thinking),
        }
    }
}
