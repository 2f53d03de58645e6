//! The text of a block, for models whose tokens are counted without a chat template.

use std::borrow::Cow;

use super::{
    Opaque,
    canonical::Members,
    chat::{BlockPlace, ChatRequest, Message, block_place},
    json::{Reader, Span},
    prefix::{is_marker, is_part_marker},
};

/// See [`ChatRequest::block_text`].
pub(super) fn block_text<'b>(request: &ChatRequest<'b>, block: usize) -> Option<Cow<'b, str>> {
    if let Some(&tool) = request.tools.blocks.get(block) {
        return Some(Cow::Owned(raw(request.body, tool)));
    }
    if let Some(part_of) = request
        .system
        .blocks
        .get(block - request.tools.blocks.len())
    {
        return Some(part(request.body, part_of.value));
    }
    let block = block - request.messages_at() as usize;
    let value = request.messages.blocks.get(block)?.value;
    let list = &request.messages.list;
    let after = list.partition_point(|message| message.first_block as usize <= block);
    let message = list.get(after.checked_sub(1)?)?;

    let at = block - message.first_block as usize;
    let text = if at < message.parts as usize {
        part(request.body, value)
    } else if message.calls > 0 {
        Cow::Owned(raw(request.body, value))
    } else {
        Cow::Borrowed("")
    };
    let header = if at == 0 {
        header(request.body, message)
    } else {
        String::new()
    };
    Some(if header.is_empty() {
        text
    } else {
        Cow::Owned(header + &text)
    })
}

/// See [`ChatRequest::part_json`].
pub(super) fn part_json<'b>(request: &ChatRequest<'b>, block: u32) -> Option<&'b [u8]> {
    let BlockPlace::Part { .. } = block_place(request, block)? else {
        return None;
    };
    let at = block.checked_sub(request.messages_at())? as usize;
    let value = request.messages.blocks.get(at)?.value.of(request.body);
    value.starts_with(b"{").then_some(value)
}

/// The texts of a message that belong to none of its parts.
fn header(body: &[u8], message: &Message) -> String {
    let known = [message.content, message.more];
    let members = object(body, message.value, &known);
    let texts = [&b"reasoning_content"[..], b"refusal"];
    texts
        .into_iter()
        .filter_map(|name| Some(members.as_ref()?.get(name)?.text?.text()))
        .collect()
}

fn part(body: &[u8], value: Span) -> Cow<'_, str> {
    if let Some(text) = string(body, value) {
        return text;
    }
    let Some(members) = object(body, value, &[]) else {
        return Cow::Borrowed("");
    };
    let texts = [&b"text"[..], b"refusal", b"thinking"];
    let text = texts
        .into_iter()
        .find_map(|name| Some(members.get(name)?.text?.text()));
    text.unwrap_or_default()
}

fn object<'b>(body: &'b [u8], value: Span, known: &[Option<Span>]) -> Option<Members<'b>> {
    if !value.of(body).starts_with(b"{") {
        return None;
    }
    Members::of(body, value.start, known, |name| !is_part_marker(name)).ok()
}

fn string(body: &[u8], value: Span) -> Option<Cow<'_, str>> {
    let mut reader = Reader::at(body, value.start as usize);
    if reader.peek() != Some(b'"') {
        return None;
    }
    Some(reader.string().ok()?.text())
}

/// A value as JSON without white space or needless escapes, and without the marker at its own
/// top level.
fn raw(body: &[u8], value: Span) -> String {
    let mut output = String::new();
    let mut reader = Reader::at(body, value.start as usize);
    // The scan has read these bytes by the same rules: it cannot fail.
    let _ = write_value(&mut reader, &mut output, is_marker);
    output
}

fn write_value(
    reader: &mut Reader<'_>,
    output: &mut String,
    left_out: fn(&[u8]) -> bool,
) -> Result<(), Opaque> {
    match reader.peek() {
        Some(b'{') => {
            let mut first = true;
            output.push('{');
            reader.open()?;
            let mut unwritten = true;
            while let Some(key) = reader.key(first)? {
                first = false;
                if left_out(&key.name) {
                    reader.skip()?;
                    continue;
                }
                if !unwritten {
                    output.push(',');
                }
                unwritten = false;
                write_string(&String::from_utf8_lossy(&key.name), output);
                output.push(':');
                write_value(reader, output, |_| false)?;
            }
            output.push('}');
        }
        Some(b'[') => {
            output.push('[');
            reader.open()?;
            let mut first = true;
            while reader.element(first)? {
                if !first {
                    output.push(',');
                }
                first = false;
                write_value(reader, output, |_| false)?;
            }
            output.push(']');
        }
        Some(b'"') => write_string(&reader.string()?.text(), output),
        Some(b't') => {
            reader.literal(b"true")?;
            output.push_str("true");
        }
        Some(b'f') => {
            reader.literal(b"false")?;
            output.push_str("false");
        }
        Some(b'n') => {
            reader.literal(b"null")?;
            output.push_str("null");
        }
        _ => output.push_str(&String::from_utf8_lossy(reader.number()?)),
    }
    Ok(())
}

fn write_string(value: &str, output: &mut String) {
    // A string always serialises.
    output.push_str(&serde_json::to_string(value).unwrap_or_default());
}
