//! Event streams, whole: lines, events, and the queue of what waits.

use prompt_cache_core::{
    api::Api,
    ledger::{Cap, Split},
    response::{Answer, RewriteOptions},
};

use super::{
    Observed,
    text::{Node, named, object},
    usage::{edit_text, nested, usages},
};

struct Line {
    /// Start of the line, end of its content, end behind the first byte of its end, end.
    start: usize,
    content: usize,
    first: usize,
    end: usize,
}

fn lines(body: &[u8]) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut start = 0;
    while start < body.len() {
        let content = (start..body.len())
            .find(|i| b"\r\n".contains(&body[*i]))
            .unwrap_or(body.len());
        let first = (content + 1).min(body.len());
        let end = if body[content..].starts_with(b"\r\n") {
            content + 2
        } else {
            first
        };
        lines.push(Line {
            start,
            content,
            first,
            end,
        });
        start = end;
    }
    lines
}

fn content<'a>(body: &'a [u8], line: &Line) -> &'a [u8] {
    let text = &body[line.start..line.content];
    if line.start == 0 {
        text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
    } else {
        text
    }
}

fn field(content: &[u8]) -> (&[u8], &[u8]) {
    match content.iter().position(|b| *b == b':') {
        None => (content, b""),
        Some(colon) => {
            let value = &content[colon + 1..];
            (&content[..colon], value.strip_prefix(b" ").unwrap_or(value))
        }
    }
}

/// The queue of waiting frames: bytes, and the edited form of usage frames.
#[derive(Default)]
struct Queue {
    units: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    shown: Vec<(Option<Split>, Cap)>,
    done: bool,
}

impl Queue {
    fn len(&self) -> usize {
        self.units.iter().map(|(bytes, _)| bytes.len()).sum()
    }

    fn give_up(&mut self, seen: &mut Observed) {
        let queue = std::mem::take(self);
        for (bytes, edited) in queue.units {
            seen.released_unedited += u64::from(edited.is_some());
            seen.body.extend(bytes);
        }
        seen.done |= queue.done;
    }

    fn plain(&mut self, bytes: &[u8], o: RewriteOptions, seen: &mut Observed) {
        if !self.units.is_empty() && self.len() + bytes.len() > o.held_bytes_max {
            self.give_up(seen);
        }
        if self.units.is_empty() {
            seen.body.extend_from_slice(bytes);
        } else {
            self.units.push((bytes.to_vec(), None));
        }
    }
}

pub fn sse(body: &[u8], o: RewriteOptions, answer: Answer, late: bool, seen: &mut Observed) {
    let all = lines(body);
    let mut queue = Queue::default();
    let mut dropped_last = None;
    let mut i = 0;
    while i < all.len() {
        // Comments before the first field are units of their own.
        let size = all[i].first - all[i].start;
        if content(body, &all[i]).starts_with(b":") && size <= o.event_bytes_max {
            queue.plain(&body[all[i].start..all[i].first], o, seen);
            queue.plain(&body[all[i].first..all[i].end], o, seen);
            i += 1;
            continue;
        }
        let last = (i..all.len())
            .find(|n| content(body, &all[*n]).is_empty() && all[*n].content < body.len())
            .unwrap_or(all.len() - 1);
        let event = &all[i..=last];
        i = last + 1;
        let (start, ending) = (event[0].start, event.last().unwrap());
        let end = ending.end;
        // The line feed of a CRLF that ends the event trails it; without a blank line it is inside.
        let first = if content(body, ending).is_empty() {
            ending.first
        } else {
            end
        };
        let fields: Vec<_> = event
            .iter()
            .map(|line| field(content(body, line)))
            .collect();
        if fields
            .iter()
            .any(|field| *field == (&b"event"[..], &b"error"[..]))
        {
            seen.error_seen = true;
        }
        // Where it is certain that the data is no object.
        let opener = event
            .iter()
            .zip(&fields)
            .find(|(_, (name, value))| *name == b"data" && !value.trim_ascii().is_empty());
        let plain = opener.filter(|(line, (_, value))| {
            !value.trim_ascii().starts_with(b"{") && line.first - start <= o.event_bytes_max
        });
        if let Some((line, (_, value))) = plain {
            queue.plain(&body[start..line.first], o, seen);
            if value.trim_ascii() == b"[DONE]" {
                if queue.units.is_empty() {
                    seen.done = true
                } else {
                    queue.done = true
                }
            }
            for byte in &body[line.first..end] {
                queue.plain(&[*byte], o, seen);
            }
            continue;
        }
        // The line feed behind a carriage return counts only where more of the event follows.
        if first - start > o.event_bytes_max {
            seen.oversize_events += 1;
            for byte in &body[start..end] {
                queue.plain(&[*byte], o, seen);
            }
            continue;
        }
        let data_lines: Vec<_> = event
            .iter()
            .zip(&fields)
            .filter(|(_, (name, _))| *name == b"data")
            .map(|(line, (_, value))| (line, *value))
            .collect();
        let data = data_lines
            .iter()
            .map(|(_, value)| *value)
            .collect::<Vec<_>>()
            .join(&b'\n');
        let members = object(&data).filter(|_| std::str::from_utf8(&data).is_ok());
        let members = members.unwrap_or_default();
        let values = |name: &'static str| {
            let data = &data;
            members
                .iter()
                .filter(move |(key, _, _)| named(data, key, name))
        };
        let kind = values("type").next_back();
        let is = |name: &str| {
            kind.is_some_and(|(_, value, _)| {
                data[value.clone()] == *format!("\"{name}\"").as_bytes()
            })
        };
        let mut error = values("error").any(|(_, value, _)| &data[value.clone()] != b"null");
        if !matches!(o.api, Api::Chat | Api::Completions) {
            error |= is("error") || is("response.failed");
        }
        if o.api == Api::Responses {
            error |= values("response").any(|(_, value, _)| failed(&data[value.clone()]));
        }
        seen.error_seen |= error;
        let has_usage = values("usage").any(|(_, _, node)| matches!(node, Node::Object(_)));
        let inner = nested(o.api)
            .is_some_and(|name| values(name).any(|(_, value, _)| usages(&data[value.clone()]) > 0));
        let stop = is("message_stop") || is("response.completed") || is("response.incomplete");
        let stop = stop && !matches!(o.api, Api::Chat | Api::Completions);
        if !has_usage && !inner {
            queue.plain(&body[start..first], o, seen);
            if stop {
                if queue.units.is_empty() {
                    seen.done = true
                } else {
                    queue.done = true
                }
            }
            queue.plain(&body[first..end], o, seen);
            continue;
        }
        let choices: &[_] = match values("choices").next_back() {
            Some((_, _, Node::Array(items))) => items,
            _ => &[],
        };
        let finished = choices.iter().any(|(_, choice)| match choice {
            Node::Object(members) => members
                .iter()
                .rfind(|(key, _, _)| named(&data, key, "finish_reason"))
                .is_some_and(|(_, value, _)| &data[value.clone()] != b"null"),
            _ => false,
        });
        seen.usage_seen = true;
        let shown_before = (seen.shown, seen.cap);
        let (edited_data, tokens) = edit_text(&data, o, answer, usize::MAX, seen);
        let shown = (seen.shown, seen.cap);
        seen.prompt_tokens = tokens;
        let terminal = match o.api {
            Api::Chat | Api::Completions => choices.is_empty() || finished,
            Api::Messages => has_usage,
            Api::Responses => true,
        };
        if matches!(o.api, Api::Chat | Api::Completions)
            && o.drop_usage_only
            && choices.is_empty()
            && !error
        {
            if late {
                dropped_last = Some(shown);
                (seen.shown, seen.cap) = shown_before;
                // It has no bytes, but what follows waits behind it.
                if queue.units.is_empty() {
                    queue.units.push((Vec::new(), None));
                }
            }
            continue;
        }
        dropped_last = None;
        let edited = if edited_data == data {
            body[start..first].to_vec()
        } else {
            edited_event(body, event, first, &data_lines, edited_data)
        };
        if !late {
            seen.body.extend(edited);
            seen.body.extend_from_slice(&body[first..end]);
            seen.done |= stop;
            continue;
        }
        (seen.shown, seen.cap) = shown_before;
        let unit = &body[start..first];
        if !queue.units.is_empty() && queue.len() + unit.len() > o.held_bytes_max {
            queue.give_up(seen);
        }
        if queue.units.is_empty() && !terminal {
            seen.body.extend_from_slice(unit);
        } else if queue.len() + unit.len() > o.held_bytes_max {
            seen.released_unedited += 1;
            seen.body.extend_from_slice(unit);
        } else {
            queue.units.push((unit.to_vec(), Some(edited)));
            queue.shown.push(shown);
        }
        if stop && queue.units.is_empty() {
            seen.done = true;
        }
        queue.done |= stop;
        queue.plain(&body[first..end], o, seen);
    }
    for (bytes, edited) in queue.units {
        seen.body.extend(edited.unwrap_or(bytes));
    }
    seen.done |= queue.done;
    if let (Some(shown), Answer::Split(_)) = (dropped_last.or(queue.shown.pop()), answer) {
        (seen.shown, seen.cap) = shown;
    }
}

/// Whether an object has an error.
fn failed(text: &[u8]) -> bool {
    let members = object(text).unwrap_or_default();
    let mut errors = members
        .iter()
        .filter(|(key, _, _)| named(text, key, "error"));
    errors.any(|(_, value, _)| &text[value.clone()] != b"null")
}

/// The event up to the first byte of its end, its data replaced.
fn edited_event(
    body: &[u8],
    event: &[Line],
    first: usize,
    data_lines: &[(&Line, &[u8])],
    edited: Vec<u8>,
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut edited = Some(edited);
    for line in event {
        let end = line.end.min(first);
        match data_lines.iter().find(|(data, _)| data.start == line.start) {
            None => out.extend_from_slice(&body[line.start..end]),
            Some((_, value)) => {
                if let Some(mut text) = edited.take() {
                    if data_lines.len() > 1 {
                        text.iter_mut()
                            .filter(|b| **b == b'\n')
                            .for_each(|b| *b = b' ');
                    }
                    out.extend_from_slice(&body[line.start..line.content - value.len()]);
                    out.extend(text);
                    out.extend_from_slice(&body[line.content..end]);
                }
            }
        }
    }
    out
}
