//! A slow, obvious reference of the response side: the whole body at once, parsed naively.

#![allow(dead_code)]

pub mod run;

use std::ops::Range;

use prompt_cache_core::{
    ledger::{Cap, Split},
    response::{Answer, BodyKind, Completion, RewriteOptions},
};

/// Everything that can be observed of a finished rewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub body: Vec<u8>,
    pub usage_seen: bool,
    pub error_seen: bool,
    pub done: bool,
    pub prompt_tokens: Option<u64>,
    pub shown: Option<Split>,
    pub cap: Cap,
    pub oversize_events: u64,
    pub released_unedited: u64,
}

impl Observed {
    fn nothing() -> Self {
        Self {
            body: Vec::new(),
            usage_seen: false,
            error_seen: false,
            done: false,
            prompt_tokens: None,
            shown: None,
            cap: Cap::None,
            oversize_events: 0,
            released_unedited: 0,
        }
    }

    pub fn new(body: Vec<u8>, completion: &Completion) -> Self {
        Self {
            body,
            usage_seen: completion.usage_seen(),
            error_seen: completion.error_seen(),
            done: completion.done(),
            prompt_tokens: completion.prompt_tokens(),
            shown: completion.shown(),
            cap: completion.cap(),
            oversize_events: completion.oversize_events(),
            released_unedited: completion.released_unedited(),
        }
    }
}

/// What comes out of `body`. `late`: the answer comes after the end instead of before the start.
pub fn rewrite(body: &[u8], options: RewriteOptions, answer: Answer, late: bool) -> Observed {
    let mut observed = Observed::nothing();
    match options.kind {
        BodyKind::Json => json(body, options, answer, late, &mut observed),
        BodyKind::Sse => sse(body, options, answer, late, &mut observed),
    }
    observed
}

// --- a naive parser of text that serde_json has found valid ---

pub enum Node {
    Object(Vec<(Range<usize>, Range<usize>, Node)>),
    Array(Vec<(Range<usize>, Node)>),
    Scalar,
}

fn valid(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

/// Deepest nesting that is followed in a JSON body.
const DEPTH_MAX: usize = 128;

fn depth(node: &Node) -> usize {
    match node {
        Node::Object(members) => 1 + members.iter().map(|it| depth(&it.2)).max().unwrap_or(0),
        Node::Array(items) => 1 + items.iter().map(|it| depth(&it.1)).max().unwrap_or(0),
        Node::Scalar => 0,
    }
}

/// Whether a body is read as JSON. Of another one, whether an error was noted before it broke is
/// not specified.
pub fn readable(body: &[u8]) -> bool {
    valid(body) && depth(&node(body, &mut 0).1) <= DEPTH_MAX
}

fn blanks(text: &[u8], at: &mut usize) {
    while matches!(text[*at], b' ' | b'\n' | b'\r' | b'\t') {
        *at += 1;
    }
}

fn string(text: &[u8], at: &mut usize) -> Range<usize> {
    let start = *at;
    *at += 1;
    while text[*at] != b'"' {
        *at += if text[*at] == b'\\' { 2 } else { 1 };
    }
    *at += 1;
    start..*at
}

fn node(text: &[u8], at: &mut usize) -> (Range<usize>, Node) {
    blanks(text, at);
    let start = *at;
    let node = match text[*at] {
        open @ (b'{' | b'[') => {
            let mut members = Vec::new();
            let mut items = Vec::new();
            *at += 1;
            blanks(text, at);
            while !matches!(text[*at], b'}' | b']') {
                if open == b'{' {
                    let key = string(text, at);
                    blanks(text, at);
                    assert_eq!(text[*at], b':');
                    *at += 1;
                    let (range, value) = node(text, at);
                    members.push((key, range, value));
                } else {
                    items.push(node(text, at));
                }
                blanks(text, at);
                if text[*at] == b',' {
                    *at += 1;
                    blanks(text, at);
                }
            }
            *at += 1;
            if open == b'{' {
                Node::Object(members)
            } else {
                Node::Array(items)
            }
        }
        b'"' => {
            string(text, at);
            Node::Scalar
        }
        _ => {
            while *at < text.len() && !b" \n\r\t,]}".contains(&text[*at]) {
                *at += 1;
            }
            Node::Scalar
        }
    };
    (start..*at, node)
}

pub type Members = Vec<(Range<usize>, Range<usize>, Node)>;

/// The members of a valid object: key, value, what it holds.
pub fn object(text: &[u8]) -> Option<Members> {
    if !valid(text) {
        return None;
    }
    match node(text, &mut 0).1 {
        Node::Object(members) => Some(members),
        _ => None,
    }
}

pub fn named(text: &[u8], key: &Range<usize>, name: &str) -> bool {
    serde_json::from_slice::<String>(&text[key.clone()]).is_ok_and(|key| key == name)
}

// --- usage ---

fn prompt_tokens(usage: &str) -> Option<u64> {
    let members = object(usage.as_bytes())?;
    let (_, value, _) = members
        .iter()
        .rfind(|(key, _, _)| named(usage.as_bytes(), key, "prompt_tokens"))?;
    let text = &usage[value.clone()];
    if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

/// Sets `path` (one or two keys) to a number, one replacement at a time.
fn set(mut object_text: String, path: &[&str], number: u64) -> String {
    let mut rendered = number.to_string();
    for key in path[1..].iter().rev() {
        rendered = format!("{{\"{key}\":{rendered}}}");
    }
    let mut seen = 0;
    loop {
        let members = object(object_text.as_bytes()).unwrap();
        let mut matching = members
            .iter()
            .filter(|(key, _, _)| named(object_text.as_bytes(), key, path[0]));
        let Some((_, value, node)) = matching.nth(seen) else {
            break;
        };
        seen += 1;
        let new = match node {
            Node::Object(_) if path.len() > 1 => {
                set(object_text[value.clone()].to_owned(), &path[1..], number)
            }
            _ => rendered.clone(),
        };
        object_text.replace_range(value.clone(), &new);
    }
    if seen == 0 {
        let members = object(object_text.as_bytes()).unwrap();
        let (at, comma) = members
            .last()
            .map_or((1, ""), |(_, value, _)| (value.end, ","));
        object_text.insert_str(at, &format!("{comma}\"{}\":{rendered}", path[0]));
    }
    object_text
}

fn remove(mut object_text: String, path: &[&str]) -> String {
    let mut seen = 0;
    loop {
        let members = object(object_text.as_bytes()).unwrap();
        let mut matching = members
            .iter()
            .enumerate()
            .filter(|(_, (key, _, _))| named(object_text.as_bytes(), key, path[0]));
        let Some((i, (key, value, node))) = matching.nth(seen) else {
            return object_text;
        };
        if path.len() == 1 {
            let cut = if i > 0 {
                members[i - 1].1.end..value.end
            } else if let Some((next, _, _)) = members.get(1) {
                key.start..next.start
            } else {
                key.start..value.end
            };
            object_text.replace_range(cut, "");
        } else {
            seen += 1;
            if let Node::Object(_) = node {
                let new = remove(object_text[value.clone()].to_owned(), &path[1..]);
                object_text.replace_range(value.clone(), &new);
            }
        }
    }
}

fn edit_usage(usage: &[u8], o: RewriteOptions, answer: Answer, seen: &mut Observed) -> Vec<u8> {
    let Ok(usage) = String::from_utf8(usage.to_vec()) else {
        return usage.to_vec();
    };
    let edited = match answer {
        Answer::Inactive if o.scrub => [
            &["cache_read_input_tokens"][..],
            &["cache_creation_input_tokens"],
            &["cache_creation"],
            &["prompt_tokens_details", "cached_tokens"],
            &["prompt_tokens_details", "cache_write_tokens"],
        ]
        .iter()
        .fold(usage, |usage, path| remove(usage, path)),
        Answer::Inactive => usage,
        Answer::Split(split) => {
            let (split, cap) =
                prompt_tokens(&usage).map_or((split, Cap::None), |tokens| split.capped(tokens));
            seen.shown = Some(split);
            seen.cap = cap;
            let created = split.creation.total();
            [
                (&["prompt_tokens_details", "cached_tokens"][..], split.read),
                (&["prompt_tokens_details", "cache_write_tokens"], created),
                (&["cache_read_input_tokens"], split.read),
                (&["cache_creation_input_tokens"], created),
                (
                    &["cache_creation", "ephemeral_5m_input_tokens"],
                    split.creation.five_minutes,
                ),
                (
                    &["cache_creation", "ephemeral_1h_input_tokens"],
                    split.creation.one_hour,
                ),
                (
                    &["cache_creation", "ephemeral_24h_input_tokens"],
                    split.creation.day,
                ),
            ]
            .iter()
            .fold(usage, |usage, (path, number)| set(usage, path, *number))
        }
    };
    edited.into_bytes()
}

/// The text with its top-level usage objects edited (the first `most` of them), and the last one's
/// `prompt_tokens`.
fn edit_text(
    text: &[u8],
    o: RewriteOptions,
    answer: Answer,
    most: usize,
    seen: &mut Observed,
) -> (Vec<u8>, Option<u64>) {
    let mut result = Vec::new();
    let mut at = 0;
    let mut tokens = None;
    let mut edited = 0;
    for (key, value, node) in object(text).unwrap() {
        if edited < most && named(text, &key, "usage") && matches!(node, Node::Object(_)) {
            edited += 1;
            result.extend_from_slice(&text[at..value.start]);
            result.extend(edit_usage(&text[value.clone()], o, answer, seen));
            at = value.end;
            tokens = std::str::from_utf8(&text[value])
                .ok()
                .and_then(prompt_tokens);
        }
    }
    result.extend_from_slice(&text[at..]);
    (result, tokens)
}

// --- JSON ---

fn json(body: &[u8], o: RewriteOptions, answer: Answer, late: bool, seen: &mut Observed) {
    // `error` is noted as it passes, even where the body turns out not to be JSON: tests look
    // at it for valid bodies only.
    let Some(members) = object(body).filter(|_| readable(body)) else {
        seen.body = body.to_vec();
        return;
    };
    let mut usages = Vec::new();
    for (key, value, node) in &members {
        if named(body, key, "usage") && matches!(node, Node::Object(_)) {
            usages.push(value.clone());
        } else if named(body, key, "error") && &body[value.clone()] != b"null" {
            seen.error_seen = true;
        }
    }
    seen.usage_seen = !usages.is_empty();
    // Without a scrub, an inactive answer that is there from the start means no look inside.
    let looks = late || o.scrub || answer != Answer::Inactive;
    let (text, tokens) = edit_text(body, o, answer, usize::MAX, seen);
    seen.body = text;
    seen.prompt_tokens = tokens.filter(|_| looks);
}

/// Whether that may come out of a JSON body under a cap, which may have left the first usage
/// objects edited, and was hit by one behind them, from which on all pass. What is no JSON may
/// have been edited before it turned out to be none.
pub fn may_be_capped(found: &Observed, body: &[u8], o: RewriteOptions, answer: Answer) -> bool {
    let Some(members) = object(body).filter(|_| readable(body)) else {
        return found.body == body || found.shown.is_some() || o.scrub;
    };
    let edited = |most| edit_text(body, o, answer, most, &mut Observed::nothing()).0;
    if found.released_unedited == 0 {
        found.body == edited(usize::MAX)
    } else {
        (0..members.len()).any(|most| found.body == edited(most))
    }
}

// --- SSE ---

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

fn sse(body: &[u8], o: RewriteOptions, answer: Answer, late: bool, seen: &mut Observed) {
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
        let error = values("error").any(|(_, value, _)| &data[value.clone()] != b"null");
        seen.error_seen |= error;
        let has_usage = values("usage").any(|(_, _, node)| matches!(node, Node::Object(_)));
        if !has_usage {
            queue.plain(&body[start..first], o, seen);
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
        if o.drop_usage_only && choices.is_empty() && !error {
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
            continue;
        }
        (seen.shown, seen.cap) = shown_before;
        let unit = &body[start..first];
        if !queue.units.is_empty() && queue.len() + unit.len() > o.held_bytes_max {
            queue.give_up(seen);
        }
        if queue.units.is_empty() && !choices.is_empty() && !finished {
            seen.body.extend_from_slice(unit);
        } else if queue.len() + unit.len() > o.held_bytes_max {
            seen.released_unedited += 1;
            seen.body.extend_from_slice(unit);
        } else {
            queue.units.push((unit.to_vec(), Some(edited)));
            queue.shown.push(shown);
        }
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
