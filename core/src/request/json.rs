//! Strict JSON reading over borrowed bytes: one forward pass of positions and spans, no tree.
//!
//! Accepts exactly what `serde_json` accepts for a `Value`, its recursion limit and its number
//! range included; `tests/request_json.rs` compares the two. The bytes must be UTF-8, which
//! [`super::scan`] has checked for the body as a whole.

use std::borrow::Cow;

use super::{Opaque, unescape};

/// Containers that may be open at once; `serde_json` gives up on the 128th.
pub(super) const DEPTH_MAX: u8 = 127;
/// Longer numbers can exceed the range of `f64` without an exponent.
const PLAIN_NUMBER_BYTES_MAX: usize = 300;

/// A byte range of the body. Bodies of 4 GiB and more are not read ([`Opaque::TooLarge`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub fn new(start: usize, end: usize) -> Self {
        Self {
            start: offset(start),
            end: offset(end),
        }
    }

    /// The bytes of this range; empty when it lies outside, which no span of this body does.
    pub fn of(self, body: &[u8]) -> &[u8] {
        body.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

/// A position as stored in spans.
pub(super) fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// A string as spelled in the body, without its quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'b> {
    pub raw: &'b [u8],
    /// Whether `raw` may contain a backslash; if not, it is the string's value.
    pub escaped: bool,
    /// Whether `raw` has an escape that a canonical spelling may not have: `\u` or `\/`.
    pub respelled: bool,
}

impl<'b> Text<'b> {
    /// The string with its quotes at `span`, which was read before.
    pub fn at(body: &'b [u8], span: Span, respelled: bool) -> Self {
        let quoted = span.of(body);
        let raw = quoted
            .get(1..quoted.len().saturating_sub(1))
            .unwrap_or_default();
        Self {
            raw,
            escaped: true,
            respelled,
        }
    }

    /// The string's value, as UTF-8 bytes.
    pub fn value(self) -> Cow<'b, [u8]> {
        if !self.escaped {
            return Cow::Borrowed(self.raw);
        }
        let mut value = Vec::with_capacity(self.raw.len());
        unescape::runs(self.raw, |run| value.extend_from_slice(run));
        Cow::Owned(value)
    }

    /// The string's value.
    pub fn text(self) -> Cow<'b, str> {
        match self.value() {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(broken) => String::from_utf8_lossy(broken.as_bytes()).into_owned(),
            }),
        }
    }
}

/// The name of a member, with the positions a cut needs.
#[derive(Debug)]
pub(super) struct Key<'b> {
    /// The unescaped name.
    pub name: Cow<'b, [u8]>,
    /// The name as spelled.
    pub text: Text<'b>,
    /// Where its opening quote is.
    pub start: usize,
    /// Where the comma before it is; `start` for the first member.
    pub comma: usize,
}

/// A position in a body, and how many containers are open there.
pub(super) struct Reader<'b> {
    bytes: &'b [u8],
    pos: usize,
    depth: u8,
    /// Whether these bytes were read before, so that escapes and numbers are known to be good.
    again: bool,
}

impl<'b> Reader<'b> {
    pub fn new(bytes: &'b [u8]) -> Self {
        Self {
            bytes,
            pos: 0,
            depth: 0,
            again: false,
        }
    }

    /// A reader of a value that starts at `pos` of a body that was accepted.
    pub fn at(bytes: &'b [u8], pos: usize) -> Self {
        Self {
            bytes,
            pos,
            depth: 0,
            again: true,
        }
    }

    pub fn pos(&self) -> usize {
        self.pos
    }

    /// Goes on at `pos`, the end of a value that is known from an earlier pass.
    pub fn jump(&mut self, pos: u32) {
        self.pos = pos as usize;
    }

    /// The byte at the position.
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.pos).copied()
    }

    /// Skips white space and returns the byte after it.
    #[inline]
    pub fn token(&mut self) -> Option<u8> {
        loop {
            match self.peek() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.pos += 1,
                other => return other,
            }
        }
    }

    /// Enters the object or array whose bracket is at the position.
    pub fn open(&mut self) -> Result<(), Opaque> {
        if self.depth >= DEPTH_MAX {
            return Err(Opaque::TooDeep);
        }
        self.depth += 1;
        self.pos += 1;
        Ok(())
    }

    /// Reads up to the value of the next member; `None` after the closing brace.
    pub fn key(&mut self, first: bool) -> Result<Option<Key<'b>>, Opaque> {
        let Some((text, start, comma)) = self.member(first)? else {
            return Ok(None);
        };
        Ok(Some(Key {
            name: text.value(),
            text,
            start,
            comma,
        }))
    }

    /// The name of the next member, its position and that of the comma before it.
    #[inline]
    fn member(&mut self, first: bool) -> Result<Option<(Text<'b>, usize, usize)>, Opaque> {
        let mut byte = self.token();
        if byte == Some(b'}') {
            return Ok(self.close());
        }
        let comma = self.pos;
        if !first {
            if byte != Some(b',') {
                return Err(Opaque::NotJson);
            }
            self.pos += 1;
            byte = self.token();
        }
        if byte != Some(b'"') {
            return Err(Opaque::NotJson);
        }
        let start = self.pos;
        let text = self.string()?;
        if self.token() != Some(b':') {
            return Err(Opaque::NotJson);
        }
        self.pos += 1;
        self.token();
        Ok(Some((text, start, comma)))
    }

    /// Reads up to the next element of an array; `false` after the closing bracket.
    pub fn element(&mut self, first: bool) -> Result<bool, Opaque> {
        let byte = self.token();
        if byte == Some(b']') {
            self.close::<()>();
            return Ok(false);
        }
        if !first {
            if byte != Some(b',') {
                return Err(Opaque::NotJson);
            }
            self.pos += 1;
            self.token();
        }
        Ok(true)
    }

    fn close<T>(&mut self) -> Option<T> {
        self.pos += 1;
        self.depth = self.depth.saturating_sub(1);
        None
    }

    /// Reads the value at the position; a string also comes as such.
    pub fn value(&mut self) -> Result<(Span, Option<Text<'b>>), Opaque> {
        if self.peek() != Some(b'"') {
            return Ok((self.skip()?, None));
        }
        let start = self.pos;
        let text = self.string()?;
        Ok((Span::new(start, self.pos), Some(text)))
    }

    /// Reads the value at the position, whatever it is, and returns its range.
    pub fn skip(&mut self) -> Result<Span, Opaque> {
        let start = self.pos;
        match self.peek() {
            Some(b'"') => {
                self.string()?;
            }
            Some(b'{') => {
                self.open()?;
                let mut first = true;
                while self.member(first)?.is_some() {
                    first = false;
                    self.skip()?;
                }
            }
            Some(b'[') => {
                self.open()?;
                let mut first = true;
                while self.element(first)? {
                    first = false;
                    self.skip()?;
                }
            }
            Some(b't') => self.literal(b"true")?,
            Some(b'f') => self.literal(b"false")?,
            Some(b'n') => self.literal(b"null")?,
            Some(b'-' | b'0'..=b'9') => {
                self.number()?;
            }
            _ => return Err(Opaque::NotJson),
        }
        Ok(Span::new(start, self.pos))
    }

    /// Reads the string whose opening quote is at the position.
    #[inline]
    pub fn string(&mut self) -> Result<Text<'b>, Opaque> {
        let start = self.pos + 1;
        let mut at = start;
        let mut escaped = false;
        let mut respelled = false;
        loop {
            let rest = self.bytes.get(at..).unwrap_or_default();
            // Escapes often follow each other.
            let run = if rest.first() == Some(&b'\\') {
                0
            } else {
                special(rest)
            };
            match rest.get(run) {
                Some(b'"') => {
                    at += run;
                    self.pos = at + 1;
                    let raw = self.bytes.get(start..at).unwrap_or_default();
                    return Ok(Text {
                        raw,
                        escaped,
                        respelled,
                    });
                }
                Some(b'\\') => {
                    escaped = true;
                    at += run;
                    at += match rest.get(run + 1) {
                        Some(b'n' | b'"' | b'\\' | b't' | b'r' | b'b' | b'f') => 2,
                        _ => {
                            respelled = true;
                            if self.again {
                                2
                            } else {
                                let escape = rest.get(run..).unwrap_or_default();
                                unescape::escape(escape).ok_or(Opaque::NotJson)?.1
                            }
                        }
                    };
                }
                _ => return Err(Opaque::NotJson),
            }
        }
    }

    /// Reads the number at the position and returns its spelling.
    pub fn number(&mut self) -> Result<&'b [u8], Opaque> {
        let start = self.pos;
        if self.peek() == Some(b'-') {
            self.pos += 1;
        }
        if self.peek() == Some(b'0') {
            self.pos += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.pos += 1;
            self.digits()?;
        }
        let exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if exponent {
            self.pos += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.pos += 1;
            }
            self.digits()?;
        }
        let spelling = self.bytes.get(start..self.pos).unwrap_or_default();
        // Only such numbers can be out of the range that serde_json accepts.
        if !self.again
            && (exponent || spelling.len() > PLAIN_NUMBER_BYTES_MAX)
            && serde_json::from_slice::<serde_json::Number>(spelling).is_err()
        {
            return Err(Opaque::NotJson);
        }
        Ok(spelling)
    }

    fn digits(&mut self) -> Result<(), Opaque> {
        let start = self.pos;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.pos += 1;
        }
        if self.pos == start {
            Err(Opaque::NotJson)
        } else {
            Ok(())
        }
    }

    pub fn literal(&mut self, word: &[u8]) -> Result<(), Opaque> {
        let rest = self.bytes.get(self.pos..).unwrap_or_default();
        if !rest.starts_with(word) {
            return Err(Opaque::NotJson);
        }
        self.pos += word.len();
        Ok(())
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

fn is_special(byte: u8) -> bool {
    byte == b'"' || byte == b'\\' || byte < 0x20
}

/// Marks the bytes of a little-endian word that [`is_special`]. Only the lowest mark is exact
/// (a borrow may add marks above it), and only that one is used.
fn special_marks(word: u64) -> u64 {
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let marks = (quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash);
    (marks | control) & HIGH_BITS
}

/// The number of bytes before the first quote, backslash or control character.
#[inline]
fn special(bytes: &[u8]) -> usize {
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let marks = special_marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return index * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    let clean = words.len() * 8;
    clean
        + tail
            .iter()
            .position(|&byte| is_special(byte))
            .unwrap_or(tail.len())
}
