//! What the APIs differ in: where a body keeps its messages, their blocks and their markers.

use crate::api::Api;

/// The places of one API.
#[derive(Debug)]
pub(super) struct Shape {
    /// Starts every chain of prefix hashes; a change of the encoding changes it.
    pub version: &'static [u8],
    /// The member that holds the messages, or the prompt as one value.
    pub messages: Messages,
    /// The member whose blocks come before the messages: a string, or an array of parts.
    pub system: Option<&'static [u8]>,
    /// Whether elements of `tools` are blocks.
    pub tools: bool,
    /// Blocks of a message after those of its `content`.
    pub more: More,
    /// Whether there are `prompt_cache_breakpoint` and `prompt_cache_options`.
    pub openai_dialect: bool,
    /// Whether a message can be marked as a whole.
    pub marked_messages: bool,
    /// Types of the parts that are nothing but their `text`.
    pub text_types: &'static [&'static str],
    /// Top-level members that shape the prompt whatever the configuration says.
    pub params: &'static [&'static [u8]],
    /// Top-level members that refer to a part of the prompt which is not in the body.
    pub elsewhere: &'static [&'static [u8]],
}

/// How the body holds its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Messages {
    /// An array of them.
    List(&'static [u8]),
    /// An array of them, or a string, which is one message of the user.
    ListOrText(&'static [u8]),
    /// A value that is one block, whatever its type.
    Value(&'static [u8]),
}

impl Messages {
    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::List(name) | Self::ListOrText(name) | Self::Value(name) => name,
        }
    }
}

/// The blocks of a message after those of its `content`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum More {
    Nothing,
    /// `tool_calls`: elements as given.
    ToolCalls,
    /// `output`: a string or parts, like content.
    Output,
}

impl More {
    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::Nothing => b"",
            Self::ToolCalls => b"tool_calls",
            Self::Output => b"output",
        }
    }
}

static CHAT: Shape = Shape {
    version: b"prompt-cache-prefix/1",
    messages: Messages::List(b"messages"),
    system: None,
    tools: true,
    more: More::ToolCalls,
    openai_dialect: true,
    marked_messages: true,
    text_types: &["text"],
    params: &[],
    elsewhere: &[],
};
static MESSAGES: Shape = Shape {
    version: b"prompt-cache-prefix/1/messages",
    messages: Messages::List(b"messages"),
    system: Some(b"system"),
    tools: true,
    more: More::Nothing,
    openai_dialect: false,
    marked_messages: false,
    text_types: &["text"],
    params: &[],
    elsewhere: &[],
};
static RESPONSES: Shape = Shape {
    version: b"prompt-cache-prefix/1/responses",
    messages: Messages::ListOrText(b"input"),
    system: Some(b"instructions"),
    tools: true,
    more: More::Output,
    openai_dialect: true,
    marked_messages: true,
    text_types: &["input_text", "output_text"],
    params: &[b"reasoning"],
    elsewhere: &[b"previous_response_id", b"conversation", b"prompt"],
};
static COMPLETIONS: Shape = Shape {
    version: b"prompt-cache-prefix/1/completions",
    messages: Messages::Value(b"prompt"),
    system: None,
    tools: false,
    more: More::Nothing,
    openai_dialect: false,
    marked_messages: false,
    text_types: &[],
    params: &[b"suffix"],
    elsewhere: &[],
};

impl Shape {
    /// The places of an API.
    pub fn of(api: Api) -> &'static Self {
        match api {
            Api::Chat => &CHAT,
            Api::Messages => &MESSAGES,
            Api::Responses => &RESPONSES,
            Api::Completions => &COMPLETIONS,
        }
    }

    /// Whether a top-level member gives blocks.
    pub fn gives_blocks(&self, name: &[u8]) -> bool {
        (self.tools && name == b"tools")
            || name == self.messages.name()
            || self.system.is_some_and(|system| name == system)
    }
}
