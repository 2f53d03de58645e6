//! One content part.

use super::{Fate, Marks, Scanner, form_of};
use crate::{
    api::Api,
    request::{
        MEMBERS_MAX, Opaque,
        chat::{Block, Form, Kind, Marker, Place},
        json::Span,
    },
};

/// What the `content` members of one part hold.
#[derive(Default)]
pub(super) struct Inside {
    /// All of them.
    values: Vec<Span>,
    /// The markers of the last.
    markers: Vec<Marker>,
}

impl Scanner<'_> {
    /// Reads a content part at `place`; markers inside it are added to the content's.
    pub(super) fn part(&mut self, place: Place) -> Result<(Block, Marks), Opaque> {
        let mut marks = Marks::default();
        let form = Form::Value;
        let mut kind = Kind::Plain;
        if self.reader.peek() != Some(b'{') {
            let value = self.reader.skip()?;
            return Ok((Block { value, form, kind }, marks));
        }
        let start = self.reader.pos();
        let shape = self.shape;
        let has_kinds = self.found.api == Api::Messages;
        let first_cut = self.found.cuts.len();
        let mut inside = Inside::default();
        let (mut is_text, mut text, mut more) = (false, None, false);
        self.object(MEMBERS_MAX, |this, key| {
            match &*key.name {
                b"cache_control" => return this.marker(&mut marks.cache_control),
                b"prompt_cache_breakpoint" if shape.openai_dialect => {
                    return this.marker(&mut marks.breakpoint);
                }
                b"type" => {
                    let name = this.string()?;
                    is_text = shape
                        .text_types
                        .iter()
                        .any(|text| name.as_deref() == Some(text));
                    kind = match name.as_deref() {
                        _ if !has_kinds => Kind::Plain,
                        Some("tool_use") => Kind::ToolUse,
                        Some("tool_result") => Kind::ToolResult,
                        Some("thinking" | "redacted_thinking") => Kind::Thinking,
                        _ => Kind::Plain,
                    };
                }
                b"content" if has_kinds => {
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
}
