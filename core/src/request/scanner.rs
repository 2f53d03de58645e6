//! The one pass over a body that fills a `ChatRequest`.
//!
//! Of members that occur twice the last counts, as in every mainstream parser: what an earlier
//! one gave is dropped, only the cuts of its markers stay.

use super::{
    BLOCKS_MAX, MARKERS_MAX, MEMBERS_MAX, Opaque,
    chat::{
        Block, ChatRequest, Dialect, Form, Kind, Marker, Message, Messages, ObjectEnd, Place,
        StreamOptions, System, Tools,
    },
    json::{Key, Reader, Span, Text, offset},
};
use crate::{api::Api, order::sort_by_key};

/// Reads a body. See [`super::scan`].
pub(super) fn scan(api: Api, body: &[u8]) -> Result<ChatRequest<'_>, Opaque> {
    if u32::try_from(body.len()).is_err() {
        return Err(Opaque::TooLarge);
    }
    if std::str::from_utf8(body).is_err() {
        return Err(Opaque::NotUtf8);
    }
    let mut scanner = Scanner::new(api, body);
    if scanner.reader.token() == Some(b'{') {
        scanner.body()?;
        scanner.end_of_body()?;
        Ok(scanner.found)
    } else {
        scanner.reader.skip()?;
        scanner.end_of_body()?;
        Err(Opaque::NotObject)
    }
}

/// Whether a member stays in the forwarded body.
#[derive(PartialEq, Eq)]
enum Fate {
    Kept,
    Cut,
}

/// The markers of one tool, message, part or tool call: the last of each, unless `null`.
#[derive(Default)]
struct Marks {
    cache_control: Option<Span>,
    breakpoint: Option<Span>,
}

impl Marks {
    fn push_to(&self, markers: &mut Vec<Marker>, place: Place) {
        let cache_control = (Dialect::CacheControl, self.cache_control);
        let breakpoint = (Dialect::PromptCacheBreakpoint, self.breakpoint);
        for (dialect, value) in [cache_control, breakpoint] {
            if let Some(value) = value {
                markers.push(Marker {
                    place,
                    dialect,
                    value,
                });
            }
        }
    }
}

/// Blocks and markers of the `content` or `tool_calls` of the message being read.
#[derive(Default)]
struct Section {
    value: Option<Span>,
    blocks: Vec<Block>,
    markers: Vec<Marker>,
}

impl Section {
    fn clear(&mut self) {
        self.value = None;
        self.blocks.clear();
        self.markers.clear();
    }
}

/// What the `content` members of one part hold.
#[derive(Default)]
struct Inside {
    /// All of them.
    values: Vec<Span>,
    /// The markers of the last.
    markers: Vec<Marker>,
}

struct Scanner<'b> {
    reader: Reader<'b>,
    found: ChatRequest<'b>,
    content: Section,
    calls: Section,
}

impl<'b> Scanner<'b> {
    fn new(api: Api, body: &'b [u8]) -> Self {
        let found = ChatRequest {
            api,
            body,
            model: None,
            stream: false,
            stream_options: StreamOptions::Absent,
            cache_salt: None,
            tools: Tools::default(),
            system: System::default(),
            messages: Messages::default(),
            automatic: None,
            cache_options: None,
            cuts: Vec::new(),
            end: ObjectEnd::default(),
        };
        let reader = Reader::new(body);
        Self {
            reader,
            found,
            content: Section::default(),
            calls: Section::default(),
        }
    }

    fn end_of_body(&mut self) -> Result<(), Opaque> {
        if self.reader.token().is_none() {
            Ok(())
        } else {
            Err(Opaque::NotJson)
        }
    }

    fn body(&mut self) -> Result<(), Opaque> {
        let mut automatic = None;
        let mut cache_options = None;
        self.found.end = self.object(usize::MAX, |this, key| {
            match &*key.name {
                b"cache_control" => return this.marker(&mut automatic),
                b"prompt_cache_options" if this.found.api.is_chat() => {
                    return this.marker(&mut cache_options);
                }
                b"messages" => this.messages()?,
                b"tools" => this.tools()?,
                b"system" if this.found.api == Api::Messages => this.system()?,
                b"model" => this.found.model = this.string()?,
                b"stream" => {
                    let value = this.reader.skip()?;
                    this.found.stream = value.of(this.found.body) == b"true";
                }
                b"stream_options" if this.found.api.is_chat() => this.stream_options()?,
                b"cache_salt" => this.found.cache_salt = Some(this.reader.skip()?),
                _ => {
                    this.reader.skip()?;
                }
            }
            Ok(Fate::Kept)
        })?;
        self.found.automatic = automatic;
        self.found.cache_options = cache_options;
        Ok(())
    }

    /// Reads the members of the object at the position; `visit` reads each value.
    fn object(
        &mut self,
        members_max: usize,
        mut visit: impl FnMut(&mut Self, &Key<'b>) -> Result<Fate, Opaque>,
    ) -> Result<ObjectEnd, Opaque> {
        self.reader.open()?;
        let mut members = 0;
        let mut occupied = false;
        while let Some(key) = self.reader.key(members == 0)? {
            if members == members_max {
                return Err(Opaque::TooManyMembers);
            }
            members += 1;
            if visit(self, &key)? == Fate::Kept {
                occupied = true;
                continue;
            }
            // With a member left before it, the comma in between goes; else the one after it.
            let value_end = self.reader.pos();
            let cut = if occupied {
                Span::new(key.comma, value_end)
            } else if self.reader.token() == Some(b',') {
                Span::new(key.start, self.reader.pos() + 1)
            } else {
                Span::new(key.start, value_end)
            };
            if self.found.cuts.len() == MARKERS_MAX {
                return Err(Opaque::TooManyMarkers);
            }
            self.found.cuts.push(cut);
        }
        Ok(ObjectEnd {
            close: offset(self.reader.pos() - 1),
            occupied,
        })
    }

    /// Reads an array's elements; `visit` reads each. Anything else is read and has none.
    fn elements(
        &mut self,
        mut visit: impl FnMut(&mut Self, u32) -> Result<(), Opaque>,
    ) -> Result<Span, Opaque> {
        if self.reader.peek() != Some(b'[') {
            return self.reader.skip();
        }
        let start = self.reader.pos();
        self.reader.open()?;
        let mut index = 0;
        while self.reader.element(index == 0)? {
            visit(self, index)?;
            index += 1;
        }
        Ok(Span::new(start, self.reader.pos()))
    }

    /// Reads the value of a marker; `null` is none, and stays where it is.
    fn marker(&mut self, mark: &mut Option<Span>) -> Result<Fate, Opaque> {
        let value = self.reader.skip()?;
        *mark = (value.of(self.found.body) != b"null").then_some(value);
        Ok(if mark.is_some() {
            Fate::Cut
        } else {
            Fate::Kept
        })
    }

    fn string(&mut self) -> Result<Option<std::borrow::Cow<'b, str>>, Opaque> {
        if self.reader.peek() == Some(b'"') {
            return Ok(Some(self.reader.string()?.text()));
        }
        self.reader.skip()?;
        Ok(None)
    }

    fn stream_options(&mut self) -> Result<(), Opaque> {
        self.found.stream_options = match self.reader.peek() {
            Some(b'{') => {
                let mut include_usage = None;
                let end = self.object(usize::MAX, |this, key| {
                    let value = this.reader.skip()?;
                    if &*key.name == b"include_usage" {
                        include_usage = Some((value, value.of(this.found.body) == b"true"));
                    }
                    Ok(Fate::Kept)
                })?;
                StreamOptions::Object { include_usage, end }
            }
            Some(b'n') => StreamOptions::Null(self.reader.skip()?),
            _ => {
                self.reader.skip()?;
                StreamOptions::Other
            }
        };
        Ok(())
    }

    fn tools(&mut self) -> Result<(), Opaque> {
        self.found.tools.blocks.clear();
        self.found.tools.markers.clear();
        let value = self.elements(|this, index| {
            let (value, marks) = this.tool_or_call()?;
            this.room_for_block(0)?;
            marks.push_to(&mut this.found.tools.markers, Place::Tool(index));
            this.found.tools.blocks.push(value);
            Ok(())
        })?;
        self.found.tools.value = Some(value);
        Ok(())
    }

    fn tool_or_call(&mut self) -> Result<(Span, Marks), Opaque> {
        let mut marks = Marks::default();
        if self.reader.peek() != Some(b'{') {
            return Ok((self.reader.skip()?, marks));
        }
        let start = self.reader.pos();
        self.object(usize::MAX, |this, key| match &*key.name {
            b"cache_control" => this.marker(&mut marks.cache_control),
            _ => this.reader.skip().map(|_| Fate::Kept),
        })?;
        Ok((Span::new(start, self.reader.pos()), marks))
    }

    /// Reads `system`, which has the shape of a message's content.
    fn system(&mut self) -> Result<(), Opaque> {
        self.found.system = System::default();
        self.content(Place::System)?;
        self.found.system = System {
            value: self.content.value.take(),
            blocks: std::mem::take(&mut self.content.blocks),
            markers: std::mem::take(&mut self.content.markers),
        };
        Ok(())
    }

    /// A content part at `place`; markers inside it are added to the content's.
    fn part(&mut self, place: Place) -> Result<(Block, Marks), Opaque> {
        let mut marks = Marks::default();
        let form = Form::Value;
        let mut kind = Kind::Plain;
        if self.reader.peek() != Some(b'{') {
            let value = self.reader.skip()?;
            return Ok((Block { value, form, kind }, marks));
        }
        let start = self.reader.pos();
        let is_chat = self.found.api.is_chat();
        let first_cut = self.found.cuts.len();
        let mut inside = Inside::default();
        let (mut is_text, mut text, mut more) = (false, None, false);
        self.object(MEMBERS_MAX, |this, key| {
            match &*key.name {
                b"cache_control" => return this.marker(&mut marks.cache_control),
                b"prompt_cache_breakpoint" if is_chat => {
                    return this.marker(&mut marks.breakpoint);
                }
                b"type" => {
                    let name = this.string()?;
                    is_text = name.as_deref() == Some("text");
                    kind = match name.as_deref() {
                        _ if is_chat => Kind::Plain,
                        Some("tool_use") => Kind::ToolUse,
                        Some("tool_result") => Kind::ToolResult,
                        Some("thinking" | "redacted_thinking") => Kind::Thinking,
                        _ => Kind::Plain,
                    };
                }
                b"content" if !is_chat => {
                    more = true;
                    this.inside(place, &mut inside)?;
                }
                b"text" => {
                    let (value, string) = this.reader.value()?;
                    text = string.map(|string| (value, form_of(string)));
                }
                _ => {
                    this.reader.skip()?;
                    more = true;
                }
            }
            Ok(Fate::Kept)
        })?;
        let block = match text {
            Some((value, form)) if is_text && !more => Block { value, form, kind },
            _ => Block {
                value: Span::new(start, self.reader.pos()),
                form,
                kind,
            },
        };
        if kind == Kind::ToolResult && matches!(place, Place::Part { .. }) {
            self.content.markers.append(&mut inside.markers);
        } else if !inside.values.is_empty() {
            // Of any other part these are data.
            let mut cuts = self.found.cuts.split_off(first_cut);
            // In the order of the bytes, so a search is enough: hostile parts have a thousand.
            let within = |cut: &Span| {
                let at = inside.values.partition_point(|value| value.end < cut.end);
                let value = inside.values.get(at);
                value.is_some_and(|value| value.start < cut.start)
            };
            cuts.retain(|cut| !within(cut));
            self.found.cuts.append(&mut cuts);
        }
        Ok((block, marks))
    }

    /// Reads the `content` of a part, which has markers where the part is a tool's result.
    fn inside(&mut self, place: Place, inside: &mut Inside) -> Result<(), Opaque> {
        inside.markers.clear();
        let value = self.elements(|this, inner| {
            let (_, marks) = this.tool_or_call()?;
            if let Place::Part { message, part } = place {
                let place = Place::Inner {
                    message,
                    part,
                    inner,
                };
                marks.push_to(&mut inside.markers, place);
            }
            Ok(())
        })?;
        inside.values.push(value);
        Ok(())
    }

    fn messages(&mut self) -> Result<(), Opaque> {
        let messages = &mut self.found.messages;
        messages.list.clear();
        messages.blocks.clear();
        messages.markers.clear();
        self.found.messages.value = Some(self.elements(Self::message)?);
        Ok(())
    }

    fn message(&mut self, index: u32) -> Result<(), Opaque> {
        self.content.clear();
        self.calls.clear();
        let mut marks = Marks::default();
        let mut from_outside = false;
        let start = self.reader.pos();
        if self.reader.peek() == Some(b'{') {
            self.object(MEMBERS_MAX, |this, key| {
                match &*key.name {
                    b"cache_control" if this.found.api.is_chat() => {
                        return this.marker(&mut marks.cache_control);
                    }
                    b"content" => this.content(|part| Place::Part {
                        message: index,
                        part,
                    })?,
                    b"tool_calls" if this.found.api.is_chat() => this.tool_calls(index)?,
                    b"role" => {
                        from_outside = matches!(this.string()?.as_deref(), Some("user" | "tool"));
                    }
                    _ => {
                        this.reader.skip()?;
                    }
                }
                Ok(Fate::Kept)
            })?;
        } else {
            self.reader.skip()?;
        }
        self.end_of_message(
            index,
            Span::new(start, self.reader.pos()),
            &marks,
            from_outside,
        )
    }

    fn end_of_message(
        &mut self,
        index: u32,
        value: Span,
        marks: &Marks,
        from_outside: bool,
    ) -> Result<(), Opaque> {
        if self.content.blocks.is_empty() && self.calls.blocks.is_empty() {
            self.room_for_block(0)?;
        }
        let messages = &mut self.found.messages;
        let message = Message {
            value,
            first_block: offset(messages.blocks.len()),
            parts: offset(self.content.blocks.len()),
            calls: offset(self.calls.blocks.len()),
            content: self.content.value,
            tool_calls: self.calls.value,
            from_outside,
        };
        messages.list.push(message);
        messages.blocks.append(&mut self.content.blocks);
        messages.blocks.append(&mut self.calls.blocks);
        if message.parts + message.calls == 0 {
            messages.blocks.push(Block {
                value,
                form: Form::Value,
                kind: Kind::Plain,
            });
        }
        let first_marker = messages.markers.len();
        messages.markers.append(&mut self.content.markers);
        messages.markers.append(&mut self.calls.markers);
        marks.push_to(&mut messages.markers, Place::Message(index));
        let mut own = messages.markers.split_off(first_marker);
        sort_by_key(&mut own, |marker| u64::from(marker.value.start));
        messages.markers.append(&mut own);
        Ok(())
    }

    /// Reads content, a string or an array, into `self.content`; `place` is where a part stands.
    fn content(&mut self, place: impl Fn(u32) -> Place) -> Result<(), Opaque> {
        self.content.clear();
        if self.reader.peek() == Some(b'"') {
            let (value, text) = self.reader.value()?;
            self.room_for_block(0)?;
            self.content.blocks.push(Block {
                value,
                form: text.map_or(Form::Value, form_of),
                kind: Kind::Plain,
            });
            self.content.value = Some(value);
            return Ok(());
        }
        let value = self.elements(|this, part| {
            let (block, marks) = this.part(place(part))?;
            this.room_for_block(this.content.blocks.len() + this.calls.blocks.len())?;
            marks.push_to(&mut this.content.markers, place(part));
            this.content.blocks.push(block);
            Ok(())
        })?;
        self.content.value = Some(value);
        Ok(())
    }

    fn tool_calls(&mut self, message: u32) -> Result<(), Opaque> {
        self.calls.clear();
        let value = self.elements(|this, call| {
            let (value, marks) = this.tool_or_call()?;
            this.room_for_block(this.content.blocks.len() + this.calls.blocks.len())?;
            marks.push_to(&mut this.calls.markers, Place::ToolCall { message, call });
            this.calls.blocks.push(Block {
                value,
                form: Form::Value,
                kind: Kind::Plain,
            });
            Ok(())
        })?;
        self.calls.value = Some(value);
        Ok(())
    }

    /// Checks that one more block fits beside those found and `pending` ones.
    fn room_for_block(&self, pending: usize) -> Result<(), Opaque> {
        let blocks = self.found.block_count() + pending;
        if blocks < BLOCKS_MAX {
            Ok(())
        } else {
            Err(Opaque::TooManyBlocks)
        }
    }
}

fn form_of(text: Text<'_>) -> Form {
    Form::Text {
        respelled: text.respelled,
    }
}
