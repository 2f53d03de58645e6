//! The one pass over a body that fills a `ChatRequest`.
//!
//! Of members that occur twice the last counts, as in every mainstream parser: what an earlier
//! one gave is dropped, only the cuts of its markers stay.

mod message;
mod part;

use super::{
    BLOCKS_MAX, MARKERS_MAX, Opaque,
    chat::{
        Block, ChatRequest, Dialect, Form, Marker, Messages, ObjectEnd, Place, StreamOptions,
        System, Tools,
    },
    json::{Key, Reader, Span, Text, offset},
    shape::Shape,
};
use crate::api::Api;

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

/// Blocks and markers of the `content`, or of what comes after it, of the message being read.
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

struct Scanner<'b> {
    reader: Reader<'b>,
    shape: &'static Shape,
    found: ChatRequest<'b>,
    content: Section,
    /// Of what the message has beside its content.
    more: Section,
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
            elsewhere: false,
            cuts: Vec::new(),
            end: ObjectEnd::default(),
        };
        let reader = Reader::new(body);
        Self {
            reader,
            shape: Shape::of(api),
            found,
            content: Section::default(),
            more: Section::default(),
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
                b"prompt_cache_options" if this.shape.openai_dialect => {
                    return this.marker(&mut cache_options);
                }
                name if name == this.shape.messages.name() => this.messages()?,
                b"tools" if this.shape.tools => this.tools()?,
                name if this.shape.system.is_some_and(|system| system == name) => this.system()?,
                b"model" => this.found.model = this.string()?,
                b"stream" => {
                    let value = this.reader.skip()?;
                    this.found.stream = value.of(this.found.body) == b"true";
                }
                b"stream_options" if this.found.api.asks_for_usage() => this.stream_options()?,
                b"cache_salt" => this.found.cache_salt = Some(this.reader.skip()?),
                name => {
                    let value = this.reader.skip()?;
                    let refers = this.shape.elsewhere.contains(&name);
                    this.found.elsewhere |= refers && value.of(this.found.body) != b"null";
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
