//! Prefix identity: the request's blocks as a chain of hashes.
//!
//! `docs/prefix-hash.md` is the specification; `tests/vectors/prefix.json` its examples.

use super::{
    Opaque,
    canonical::{Members, Sink, Token},
    chat::{Block, ChatRequest, Form, Kind, Message},
    json::{Reader, Span, Text, offset},
    shape::{Messages, More, Shape},
};
use crate::prefix_hash::PrefixHash;

/// See [`ChatRequest::prefix_hashes`].
pub(super) fn hashes(
    request: &ChatRequest<'_>,
    params: &[String],
    last_block: u32,
) -> Vec<PrefixHash> {
    let count = request
        .block_count()
        .min((last_block as usize).saturating_add(1));
    let mut chain = Chain {
        request,
        shape: request.shape(),
        sink: Sink::new(),
        hashes: Vec::with_capacity(count),
        count,
    };
    // The scan has read every byte that is read here, by the same rules: it cannot fail.
    // If it did, fewer hashes would come out, and less would be cached.
    let _ = chain.run(params);
    chain.hashes
}

/// The markers of the request itself, in either dialect: no parameters, whatever the config names.
fn is_top_marker(name: &[u8]) -> bool {
    matches!(name, b"cache_control" | b"prompt_cache_options")
}

/// The markers of a message or a part, in either dialect.
pub(super) fn is_part_marker(name: &[u8]) -> bool {
    matches!(name, b"cache_control" | b"prompt_cache_breakpoint")
}

/// The marker of a message, tool or tool call.
pub(super) fn is_marker(name: &[u8]) -> bool {
    name == b"cache_control"
}

struct Chain<'r, 'b> {
    request: &'r ChatRequest<'b>,
    shape: &'static Shape,
    sink: Sink,
    hashes: Vec<PrefixHash>,
    count: usize,
}

impl<'b> Chain<'_, 'b> {
    fn run(&mut self, params: &[String]) -> Result<(), Opaque> {
        if self.count == 0 {
            return Ok(());
        }
        self.start(params)?;
        for &tool in &self.request.tools.blocks {
            self.sink.token(Token::Tool);
            self.value_without_marker(tool)?;
            if self.end_of_block() {
                return Ok(());
            }
        }
        for &part in &self.request.system.blocks {
            self.sink.token(Token::System);
            self.part(part)?;
            if self.end_of_block() {
                return Ok(());
            }
        }
        for message in &self.request.messages.list {
            if self.message(message)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Notes the hash of the block written and starts the next one; `true` after the last.
    fn end_of_block(&mut self) -> bool {
        let hash = self.sink.finish();
        self.hashes.push(hash);
        self.sink.raw(hash.as_bytes());
        self.hashes.len() == self.count
    }

    fn start(&mut self, params: &[String]) -> Result<(), Opaque> {
        let request = self.request;
        let shape = self.shape;
        let is_param = |name: &[u8]| {
            params.iter().any(|param| param.as_bytes() == name) || shape.params.contains(&name)
        };
        let start = request
            .body
            .iter()
            .position(|&byte| byte == b'{')
            .unwrap_or_default();
        let known = [
            request.tools.value,
            request.system.value,
            request.messages.value,
        ];
        let mut members = Members::of(request.body, offset(start), &known, |name| {
            shape.gives_blocks(name) || (is_param(name) && !is_top_marker(name))
        })?;
        members.retain(|name, value| {
            // Without blocks they are hashed as values: engines tell some of these apart.
            let blocks = if name == shape.messages.name() {
                request.messages.list.len()
            } else if !shape.gives_blocks(name) {
                0
            } else if name == b"tools" {
                request.tools.blocks.len()
            } else {
                request.system.blocks.len()
            };
            blocks == 0 && !self.is_null(value)
        });
        self.sink.plain(shape.version);
        self.sink.members(request.body, &members)?;
        let hash = self.sink.finish();
        self.sink.raw(hash.as_bytes());
        Ok(())
    }

    /// Writes the blocks of a message; `true` after the last block asked for.
    fn message(&mut self, message: &Message) -> Result<bool, Opaque> {
        self.header(message)?;
        let first = message.first_block as usize;
        let parts = message.parts as usize;
        let blocks = self
            .request
            .messages
            .blocks
            .get(first..)
            .unwrap_or_default();
        let (parts, calls) = blocks.split_at_checked(parts).unwrap_or((blocks, &[]));
        for &part in parts {
            self.part(part)?;
            if self.end_of_block() {
                return Ok(true);
            }
        }
        for &call in calls.iter().take(message.calls as usize) {
            self.sink.token(Token::ToolCall);
            match self.shape.more {
                More::Output => self.part(call)?,
                More::ToolCalls | More::Nothing => self.value_without_marker(call.value)?,
            }
            if self.end_of_block() {
                return Ok(true);
            }
        }
        if message.parts + message.calls > 0 {
            return Ok(false);
        }
        self.sink.token(Token::Boundary);
        Ok(self.end_of_block())
    }

    /// All of a message but its blocks: part of its first block.
    fn header(&mut self, message: &Message) -> Result<(), Opaque> {
        let body = self.request.body;
        if message
            .content
            .is_some_and(|content| content == message.value)
        {
            self.bare_header();
            return Ok(());
        }
        if !message.value.of(body).starts_with(b"{") {
            self.sink.token(Token::OtherMessage);
            return self
                .sink
                .value(&mut Reader::at(body, message.value.start as usize));
        }
        self.sink.token(Token::Message);
        let shape = self.shape;
        let known = [message.content, message.more];
        let mut members = Members::of(body, message.value.start, &known, |name| {
            !(shape.marked_messages && is_marker(name))
        })?;
        members.retain(|name, value| match name {
            b"content" => message.parts == 0 && !self.is_null(value),
            name if name == shape.more.name() => message.calls == 0 && !self.is_null(value),
            _ => true,
        });
        self.sink.members(body, &members)
    }

    /// The header of a prompt that is a value by itself: where there are messages, it is one.
    fn bare_header(&mut self) {
        if let Messages::ListOrText(_) = self.shape.messages {
            self.sink.token(Token::Message);
            self.sink.plain(b"role");
            self.sink.plain(b"user");
            self.sink.token(Token::End);
        }
    }

    fn part(&mut self, part: Block) -> Result<(), Opaque> {
        let body = self.request.body;
        let start = part.value.start;
        if let Form::Text { respelled } = part.form {
            self.sink.token(Token::Text);
            self.sink.text(Text::at(body, part.value, respelled));
            return Ok(());
        }
        if part.value.of(body).starts_with(b"{") {
            self.sink.token(Token::Part);
            let marker = if self.shape.openai_dialect {
                is_part_marker
            } else {
                is_marker
            };
            let members = Members::of(body, start, &[], |name| !marker(name))?;
            if part.kind == Kind::ToolResult {
                return self
                    .sink
                    .members_and_items(body, &members, b"content", is_marker);
            }
            return self.sink.members(body, &members);
        }
        self.sink.token(Token::OtherPart);
        self.sink.value(&mut Reader::at(body, start as usize))
    }

    /// A tool or tool call: as given, but for the marker at its own top level.
    fn value_without_marker(&mut self, value: Span) -> Result<(), Opaque> {
        let mut reader = Reader::at(self.request.body, value.start as usize);
        match reader.peek() {
            Some(b'{') => self.sink.object_as_given(&mut reader, is_marker),
            _ => self.sink.value(&mut reader),
        }
    }

    fn is_null(&self, value: Span) -> bool {
        value.of(self.request.body) == b"null"
    }
}
