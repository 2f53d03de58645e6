//! Messages: their blocks and markers.

use super::{Fate, Marks, Scanner, form_of};
use crate::{
    order::sort_by_key,
    request::{
        MEMBERS_MAX, Opaque,
        chat::{Block, Form, Kind, Message, Place},
        json::{Span, offset},
        shape::{Messages, More},
    },
};

impl Scanner<'_> {
    pub(super) fn messages(&mut self) -> Result<(), Opaque> {
        let messages = &mut self.found.messages;
        messages.list.clear();
        messages.blocks.clear();
        messages.markers.clear();
        let value = match (self.shape.messages, self.reader.peek()) {
            (Messages::Value(_), _) | (Messages::ListOrText(_), Some(b'"')) => self.bare()?,
            (Messages::List(_) | Messages::ListOrText(_), _) => self.elements(Self::message)?,
        };
        self.found.messages.value = Some(value);
        Ok(())
    }

    /// Reads a prompt that is a value by itself: one message of one block, unless `null`.
    fn bare(&mut self) -> Result<Span, Opaque> {
        let (value, text) = self.reader.value()?;
        if value.of(self.found.body) == b"null" {
            return Ok(value);
        }
        self.room_for_block(0)?;
        let messages = &mut self.found.messages;
        messages.list.push(Message {
            value,
            first_block: 0,
            parts: 1,
            calls: 0,
            content: Some(value),
            more: None,
            from_outside: true,
        });
        messages.blocks.push(Block {
            value,
            form: text.map_or(Form::Value, form_of),
            kind: Kind::Plain,
        });
        Ok(value)
    }

    fn message(&mut self, index: u32) -> Result<(), Opaque> {
        self.content.clear();
        self.more.clear();
        let mut marks = Marks::default();
        let (mut from_outside, mut is_output) = (false, false);
        let start = self.reader.pos();
        if self.reader.peek() == Some(b'{') {
            self.object(MEMBERS_MAX, |this, key| {
                match &*key.name {
                    b"cache_control" if this.shape.marked_messages => {
                        return this.marker(&mut marks.cache_control);
                    }
                    b"content" => this.content(|part| Place::Part {
                        message: index,
                        part,
                    })?,
                    b"role" => {
                        from_outside = matches!(this.string()?.as_deref(), Some("user" | "tool"));
                    }
                    // Results of calls have a type instead of a role.
                    b"type" if this.shape.more == More::Output => {
                        let kind = this.string()?;
                        is_output = kind.is_some_and(|kind| kind.ends_with("_output"));
                    }
                    name if name == this.shape.more.name() => this.more(index)?,
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
            from_outside || is_output,
        )
    }

    fn end_of_message(
        &mut self,
        index: u32,
        value: Span,
        marks: &Marks,
        from_outside: bool,
    ) -> Result<(), Opaque> {
        if self.content.blocks.is_empty() && self.more.blocks.is_empty() {
            self.room_for_block(0)?;
        }
        let messages = &mut self.found.messages;
        let message = Message {
            value,
            first_block: offset(messages.blocks.len()),
            parts: offset(self.content.blocks.len()),
            calls: offset(self.more.blocks.len()),
            content: self.content.value,
            more: self.more.value,
            from_outside,
        };
        messages.list.push(message);
        messages.blocks.append(&mut self.content.blocks);
        messages.blocks.append(&mut self.more.blocks);
        if message.parts + message.calls == 0 {
            messages.blocks.push(Block {
                value,
                form: Form::Value,
                kind: Kind::Plain,
            });
        }
        let first_marker = messages.markers.len();
        messages.markers.append(&mut self.content.markers);
        messages.markers.append(&mut self.more.markers);
        marks.push_to(&mut messages.markers, Place::Message(index));
        let mut own = messages.markers.split_off(first_marker);
        sort_by_key(&mut own, |marker| u64::from(marker.value.start));
        messages.markers.append(&mut own);
        Ok(())
    }

    /// Reads content, a string or an array, into `self.content`; `place` is where a part stands.
    pub(super) fn content(&mut self, place: impl Fn(u32) -> Place) -> Result<(), Opaque> {
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
            this.room_for_block(this.content.blocks.len() + this.more.blocks.len())?;
            marks.push_to(&mut this.content.markers, place(part));
            this.content.blocks.push(block);
            Ok(())
        })?;
        self.content.value = Some(value);
        Ok(())
    }

    /// Reads what a message has beside its content into `self.more`.
    fn more(&mut self, message: u32) -> Result<(), Opaque> {
        match self.shape.more {
            More::Nothing => self.reader.skip().map(|_| ()),
            More::ToolCalls => self.tool_calls(message),
            More::Output => {
                std::mem::swap(&mut self.content, &mut self.more);
                let read = self.content(|call| Place::More { message, call });
                std::mem::swap(&mut self.content, &mut self.more);
                read
            }
        }
    }

    fn tool_calls(&mut self, message: u32) -> Result<(), Opaque> {
        self.more.clear();
        let value = self.elements(|this, call| {
            let (value, marks) = this.tool_or_call()?;
            this.room_for_block(this.content.blocks.len() + this.more.blocks.len())?;
            marks.push_to(&mut this.more.markers, Place::More { message, call });
            this.more.blocks.push(Block {
                value,
                form: Form::Value,
                kind: Kind::Plain,
            });
            Ok(())
        })?;
        self.more.value = Some(value);
        Ok(())
    }
}
