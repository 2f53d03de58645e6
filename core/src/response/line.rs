//! Lines of an event stream (WHATWG HTML, "Server-sent events"): fields, boundaries, and the
//! search that proves a piece of a stream uninteresting.

use std::sync::LazyLock;

use memchr::{memmem::Finder, memrchr2};

use crate::api::Api;

/// The byte order mark that may open a stream.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// What a complete line (without its end) means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// The end of the event.
    Blank,
    /// A comment.
    Comment,
    /// A `data` field and its value.
    Data(&'a [u8]),
    /// An `event` field that names the event `error`.
    ErrorEvent,
    /// Any other field.
    Other,
}

impl<'a> Line<'a> {
    /// Reads a line, given without its end and without the stream's byte order mark.
    pub fn parse(line: &'a [u8]) -> Self {
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"" if line.is_empty() => Self::Blank,
            b"" => Self::Comment,
            b"data" => Self::Data(value),
            b"event" if value == b"error" => Self::ErrorEvent,
            _ => Self::Other,
        }
    }
}

/// The end of the last event in `bytes`, which start at the beginning of an event: the offset
/// behind the last blank line. 0 when there is none.
pub(super) fn last_boundary(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some(end) = memrchr2(b'\n', b'\r', rest) {
        let head = rest.get(..end).unwrap_or_default();
        let crlf = rest.get(end) == Some(&b'\n') && head.last() == Some(&b'\r');
        let head = if crlf {
            head.get(..end - 1).unwrap_or_default()
        } else {
            head
        };
        if matches!(head.last(), None | Some(b'\n' | b'\r')) {
            return end + 1;
        }
        rest = head;
    }
    0
}

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"error"));
static ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\\u00"));
static STOP: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"message_stop"));
static DONE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"[DONE]"));

/// The value of the data line that ends a stream.
pub(super) const DONE_VALUE: &[u8] = b"[DONE]";

/// Where complete events first hold something to look at: what [`may_matter`] looks for, or
/// `[DONE]`. Not behind the first such event.
pub(super) fn first_of_note(bytes: &[u8], api: Api) -> Option<usize> {
    let done = DONE.find(bytes);
    let found = [
        usage_at(bytes),
        error_at(bytes),
        escape_at(bytes),
        done,
        stop_at(bytes, api),
    ];
    found.into_iter().flatten().min()
}

/// Whether complete events may be usage or error frames. Never wrong when it says no:
///
/// - such a frame needs the key `usage` or `error` with a value that is not `null`, or a line
///   `event: error`;
/// - a key that is not spelled literally needs an escape of a lower-case letter, `\u006x` or
///   `\u007x`, which no JSON encoder writes on its own.
pub(super) fn may_matter(bytes: &[u8], api: Api) -> bool {
    let found = usage_at(bytes)
        .or_else(|| error_at(bytes))
        .or_else(|| stop_at(bytes, api));
    found.or_else(|| escape_at(bytes)).is_some()
}

fn stop_at(bytes: &[u8], api: Api) -> Option<usize> {
    if api == Api::Messages {
        STOP.find(bytes)
    } else {
        None
    }
}

fn usage_at(bytes: &[u8]) -> Option<usize> {
    USAGE
        .find_iter(bytes)
        .find(|at| has_value(from(bytes, at + b"\"usage\"".len())))
}

fn error_at(bytes: &[u8]) -> Option<usize> {
    ERROR.find_iter(bytes).find(|at| {
        let before = bytes.get(..*at).unwrap_or_default();
        match before.last() {
            Some(b'"') => {
                let rest = from(bytes, at + b"error".len());
                rest.strip_prefix(b"\"").is_some_and(has_value) || is_type(before)
            }
            Some(b':' | b' ') => {
                let name = before.strip_suffix(b" ").unwrap_or(before);
                name.ends_with(b"event:")
            }
            _ => false,
        }
    })
}

/// Whether a string starts here that is the value of a `type`.
fn is_type(before_quote: &[u8]) -> bool {
    let name = before_quote.strip_suffix(b"\"").unwrap_or_default();
    let name = name.strip_suffix(b" ").unwrap_or(name);
    name.ends_with(b"\"type\":")
}

fn escape_at(bytes: &[u8]) -> Option<usize> {
    ESCAPE
        .find_iter(bytes)
        .find(|at| matches!(bytes.get(at + b"\\u00".len()), Some(b'6' | b'7')))
}

fn from(bytes: &[u8], at: usize) -> &[u8] {
    bytes.get(at..).unwrap_or_default()
}

/// Whether the bytes behind a quoted string make it a key whose value may be other than `null`.
/// A line break there belongs to an event of several data lines: then anything may follow.
fn has_value(rest: &[u8]) -> bool {
    let rest = trim_blanks(rest);
    match rest.strip_prefix(b":") {
        Some(value) => !trim_blanks(value).starts_with(b"null"),
        None => matches!(rest.first(), None | Some(b'\n' | b'\r')),
    }
}

fn trim_blanks(bytes: &[u8]) -> &[u8] {
    let blanks = bytes
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    bytes.get(blanks..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let cases: [(&str, Line); 14] = [
            ("", Line::Blank),
            (":", Line::Comment),
            (": ping", Line::Comment),
            ("data", Line::Data(b"")),
            ("data:", Line::Data(b"")),
            ("data: ", Line::Data(b"")),
            ("data:x", Line::Data(b"x")),
            ("data:  x: y", Line::Data(b" x: y")),
            ("event: error", Line::ErrorEvent),
            ("event:error", Line::ErrorEvent),
            ("event: errors", Line::Other),
            (" data: x", Line::Other),
            ("id: 1", Line::Other),
            ("Data: x", Line::Other),
        ];
        for (line, expected) in cases {
            assert_eq!(Line::parse(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn boundaries() {
        let cases = [
            ("", 0),
            ("data: x", 0),
            ("data: x\n", 0),
            ("data: x\r\n", 0),
            ("\n", 1),
            ("\r\n", 2),
            ("data: x\n\n", 9),
            ("data: x\r\r", 9),
            ("data: x\r\n\r\n", 11),
            ("data: x\n\r\n", 10),
            ("data: x\r\n\r", 10),
            ("data: x\n\r", 9),
            ("data: x\n\ndata: y\n", 9),
            ("data: x\r\n\r\ndata: y\r", 11),
            ("x\n\ny\n\nz", 6),
        ];
        for (bytes, expected) in cases {
            assert_eq!(last_boundary(bytes.as_bytes()), expected, "{bytes:?}");
        }
    }

    #[test]
    fn the_first_of_note() {
        let cases = [
            ("data: {\"usage\":null}\n\n", None),
            ("data: {}\n\ndata: [DONE]\n\n", Some(16)),
            ("event: error\ndata: {\"usage\":{}}\n\n", Some(7)),
            ("data: {\"usage\":{}}\n\nevent: error\n\n", Some(7)),
            ("data: [DONE]\n\ndata: {\"usage\":{}}\n\n", Some(6)),
            ("data: \"an error\"\n\ndata: {\"\\u0075\":1}\n\n", Some(26)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(
                first_of_note(bytes.as_bytes(), Api::Chat),
                expected,
                "{bytes}"
            );
        }
    }

    #[test]
    fn what_may_matter() {
        for no in [
            r#"{"usage":null,"error":null}"#,
            r#"{"usage" : null}"#,
            r#"{"x":"usage"}"#,
            r#"{"x":["usage","error"]}"#,
            r#"{"x":"an error in \"usage\": {"}"#,
            r#"{"usages":{}}"#,
            r#"{"x":"\u00e9\u0041"}"#,
        ] {
            assert!(!may_matter(no.as_bytes(), Api::Chat), "{no}");
        }
        for yes in [
            r#"{"usage":{"#,
            r#"{"usage" : {"#,
            "{\"usage\"\ndata: :{}}",
            "{\"usage\":\ndata: null}",
            "{\"usage\"\nid: 1\ndata: :{}}",
            "{\"usage\"\r\n: x\r\ndata: :{}}",
            r#"{"usage""#,
            r#"{"usage":null,"usage":{}}"#,
            r#"{"error":{"#,
            r#"{"type":"error","code":1}"#,
            r#"{"type": "error"}"#,
            r#"{"error":"null"}"#,
            "event: error\n",
            "event:error\n",
            r#"{"us\u0061ge":{}}"#,
            r#"{"\u0075sage":{}}"#,
        ] {
            assert!(may_matter(yes.as_bytes(), Api::Chat), "{yes}");
        }
    }
}
