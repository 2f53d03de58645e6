//! One complete event of a stream: its data, and its bytes with an edited usage object.

use std::ops::Range;

use memchr::memchr2;

use super::{
    frame::{self, Frame},
    line::{BOM, Line},
    splice::{Patch, apply},
    usage::{self, Edit},
};
use crate::api::Api;
use crate::ledger::{Cap, Split};
use crate::object::slice;

/// A data line inside an event.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DataLine {
    /// The whole line with its end.
    line: Range<usize>,
    /// The field's value.
    value: Range<usize>,
}

/// An event whose data is a usage frame, kept so that it can be edited when the answer is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UsageEvent {
    bytes: Vec<u8>,
    lines: Vec<DataLine>,
    /// The usage objects, as ranges of the joined data.
    usage: Vec<Range<usize>>,
    api: Api,
    /// See [`usage::prompt_tokens`].
    before: Option<u64>,
}

/// What an event is.
pub(super) enum Event {
    /// Nothing to edit. `error`: its data carries an error.
    /// `stop`: see [`Frame::stop`].
    Plain {
        bytes: Vec<u8>,
        error: bool,
        stop: bool,
    },
    /// A usage frame.
    Usage { event: UsageEvent, frame: Frame },
}

impl Event {
    /// Reads a complete event: its lines with their ends. `first`: it opens the stream and may
    /// start with a byte order mark.
    /// `before` is the prompt's size by an earlier event.
    pub fn read(bytes: Vec<u8>, first: bool, api: Api, before: Option<u64>) -> Self {
        let lines = data_lines(&bytes, first);
        match frame::inspect(&joined(&bytes, &lines), api) {
            Some(frame) if !frame.usage.is_empty() => {
                let usage = frame.usage.clone();
                Self::Usage {
                    event: UsageEvent {
                        bytes,
                        lines,
                        usage,
                        api,
                        before,
                    },
                    frame,
                }
            }
            frame => Self::Plain {
                bytes,
                error: frame.as_ref().is_some_and(|frame| frame.error),
                stop: frame.is_some_and(|frame| frame.stop),
            },
        }
    }
}

impl UsageEvent {
    /// `prompt_tokens` of the (last) usage object.
    pub fn prompt_tokens(&self) -> Option<u64> {
        let data = joined(&self.bytes, &self.lines);
        usage::prompt_tokens(
            slice(&data, self.usage.last()?.clone()),
            self.api,
            self.before,
        )
    }

    /// See [`usage::engine_cached`].
    pub fn engine_cached(&self) -> Option<u64> {
        let data = joined(&self.bytes, &self.lines);
        usage::engine_cached(slice(&data, self.usage.last()?.clone()), self.api)
    }

    /// The event as it came.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The event with its usage objects edited, and the split that the last of them shows.
    ///
    /// An edit that changes nothing leaves every byte. One data line is edited in place. Several are replaced by one line at the place of the
    /// first, line breaks inside the JSON becoming spaces; the other fields stay where they are.
    pub fn edited(&self, edit: Edit) -> (Vec<u8>, Option<(Split, Cap)>) {
        let data = joined(&self.bytes, &self.lines);
        let mut shown = None;
        let mut patches = Vec::new();
        for range in &self.usage {
            if let Some(edited) =
                usage::edit(slice(&data, range.clone()), edit, self.api, self.before)
            {
                shown = edited.shown.or(shown);
                patches.push(Patch::replace(range.clone(), edited.bytes));
            }
        }
        let mut new = apply(&data, patches);
        let Some((first, others)) = self.lines.split_first().filter(|_| new != data) else {
            return (self.bytes.clone(), shown);
        };
        if !others.is_empty() {
            // JSON strings hold no raw line breaks: these stand between tokens.
            new.iter_mut()
                .filter(|byte| **byte == b'\n')
                .for_each(|byte| *byte = b' ');
        }
        let mut patches = vec![Patch::replace(first.value.clone(), new)];
        patches.extend(others.iter().map(|other| Patch::cut(other.line.clone())));
        (apply(&self.bytes, patches), shown)
    }
}

/// The values of the data lines, joined by line feeds.
fn joined(bytes: &[u8], lines: &[DataLine]) -> Vec<u8> {
    let values: Vec<_> = lines
        .iter()
        .map(|line| slice(bytes, line.value.clone()))
        .collect();
    values.join(&b'\n')
}

fn data_lines(bytes: &[u8], first: bool) -> Vec<DataLine> {
    let mut lines = Vec::new();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let length = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let crlf = slice(rest, length..rest.len()).starts_with(b"\r\n");
        let next = at + rest.len().min(length + if crlf { 2 } else { 1 });
        let line = slice(rest, 0..length);
        let line = if first && at == 0 {
            line.strip_prefix(BOM).unwrap_or(line)
        } else {
            line
        };
        if let Line::Data(value) = Line::parse(line) {
            let end = at + length;
            lines.push(DataLine {
                line: at..next,
                value: end - value.len()..end,
            });
        }
        at = next;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(event: &str) -> String {
        let Event::Usage { event, .. } =
            Event::read(event.as_bytes().to_vec(), true, Api::Chat, None)
        else {
            panic!("{event:?} is no usage frame");
        };
        let split = Split {
            read: 5,
            ..Split::default()
        };
        String::from_utf8(event.edited(Edit::Write(split)).0).unwrap()
    }

    const TAIL: &str = r#""prompt_tokens_details":{"cached_tokens":5,"cache_write_tokens":0},"cache_read_input_tokens":5,"cache_creation_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0,"ephemeral_24h_input_tokens":0}"#;

    #[test]
    fn a_single_data_line_is_edited_in_place() {
        for end in ["\n", "\r\n", "\r"] {
            let event =
                format!("\u{feff}id: 7{end}data:{{\"usage\": {{}} }}{end}event: x{end}{end}");
            let expected = event.replace("{} ", &format!("{{{TAIL}}} "));
            assert_eq!(edited(&event), expected);
        }
    }

    #[test]
    fn several_data_lines_become_one() {
        for end in ["\n", "\r\n", "\r"] {
            let event = [
                "id: 7",
                "data: {",
                "retry: 3",
                "data:  \"usage\":{}",
                "data:}",
                "",
                "",
            ]
            .join(end);
            let one = format!("data: {{  \"usage\":{{{TAIL}}} }}");
            assert_eq!(
                edited(&event),
                ["id: 7", &one, "retry: 3", "", ""].join(end)
            );
        }
    }

    #[test]
    fn an_event_without_its_end() {
        assert_eq!(
            edited("data: {\"usage\":{}}"),
            format!("data: {{\"usage\":{{{TAIL}}}}}")
        );
        assert_eq!(
            edited("data: {\ndata: \"usage\":{}}"),
            format!("data: {{ \"usage\":{{{TAIL}}}}}\n")
        );
    }
}
