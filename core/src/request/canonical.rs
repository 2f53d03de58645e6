//! The canonical byte stream that prefix hashes cover, written token by token.
//!
//! Specified in `docs/prefix-hash.md`; changing a byte of it changes every hash, so it carries a
//! version.

use std::borrow::Cow;

use super::{
    Opaque,
    json::{Key, Reader, Span, Text},
    unescape,
};
use crate::prefix_hash::PrefixHash;

/// Bytes gathered before they are hashed: large enough for the wide code paths of BLAKE3.
const STAGED_BYTES_MAX: usize = 32 * 1024;
/// Strings from this length on are hashed where they lie.
const DIRECT_BYTES_MIN: usize = 8 * 1024;

/// The token types. A value's first byte is its type, so no value is the start of another.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Token {
    Null = 0x00,
    False = 0x01,
    True = 0x02,
    Number = 0x03,
    String = 0x04,
    Array = 0x05,
    Object = 0x06,
    End = 0x07,
    Tool = 0x10,
    Message = 0x11,
    OtherMessage = 0x12,
    Text = 0x13,
    Part = 0x14,
    OtherPart = 0x15,
    ToolCall = 0x16,
    Boundary = 0x17,
}

/// Takes tokens and turns them into a hash.
pub(super) struct Sink {
    hasher: blake3::Hasher,
    staged: Vec<u8>,
    /// Whether `hasher` has taken bytes since the last [`Sink::finish`].
    started: bool,
}

impl Sink {
    pub fn new() -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            staged: Vec::new(),
            started: false,
        }
    }

    /// The hash of all that was written since the last call.
    pub fn finish(&mut self) -> PrefixHash {
        let hash = if self.started {
            self.flush();
            let hash = self.hasher.finalize();
            self.hasher.reset();
            self.started = false;
            hash
        } else {
            let hash = blake3::hash(&self.staged);
            self.staged.clear();
            hash
        };
        PrefixHash::new(*hash.as_bytes())
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        if self.staged.len() + bytes.len() > STAGED_BYTES_MAX || bytes.len() >= DIRECT_BYTES_MIN {
            self.flush();
            if bytes.len() >= DIRECT_BYTES_MIN {
                self.hasher.update(bytes);
                self.started = true;
                return;
            }
        }
        self.staged.extend_from_slice(bytes);
    }

    fn flush(&mut self) {
        if !self.staged.is_empty() {
            self.hasher.update(&self.staged);
            self.staged.clear();
            self.started = true;
        }
    }

    pub fn token(&mut self, token: Token) {
        self.raw(&[token as u8]);
    }

    fn sized(&mut self, token: Token, bytes: usize) {
        let [a, b, c, d] = super::json::offset(bytes).to_le_bytes();
        self.raw(&[token as u8, a, b, c, d]);
    }

    pub fn string(&mut self, value: &[u8]) {
        self.sized(Token::String, value.len());
        self.raw(value);
    }

    /// A string as spelled in the body, by its value.
    pub fn text(&mut self, text: Text<'_>) {
        if !text.escaped {
            return self.string(text.raw);
        }
        self.sized(Token::String, unescape::value_bytes(text.raw));
        unescape::runs(text.raw, |run| self.raw(run));
    }

    /// Any value, its members in the order given.
    pub fn value(&mut self, reader: &mut Reader<'_>) -> Result<(), Opaque> {
        match reader.peek() {
            Some(b'{') => self.object_as_given(reader, |_| false),
            Some(b'[') => {
                self.token(Token::Array);
                reader.open()?;
                let mut first = true;
                while reader.element(first)? {
                    first = false;
                    self.value(reader)?;
                }
                self.token(Token::End);
                Ok(())
            }
            Some(b'"') => {
                let text = reader.string()?;
                self.text(text);
                Ok(())
            }
            Some(b't') => {
                self.token(Token::True);
                reader.literal(b"true")
            }
            Some(b'f') => {
                self.token(Token::False);
                reader.literal(b"false")
            }
            Some(b'n') => {
                self.token(Token::Null);
                reader.literal(b"null")
            }
            _ => {
                let spelling = reader.number()?;
                self.sized(Token::Number, spelling.len());
                self.raw(spelling);
                Ok(())
            }
        }
    }

    /// The object at the position, without the members whose name is `left_out`.
    pub fn object_as_given(
        &mut self,
        reader: &mut Reader<'_>,
        left_out: impl Fn(&[u8]) -> bool,
    ) -> Result<(), Opaque> {
        self.token(Token::Object);
        reader.open()?;
        let mut first = true;
        while let Some(Key { name, .. }) = reader.key(first)? {
            first = false;
            if left_out(&name) {
                reader.skip()?;
                continue;
            }
            self.string(&name);
            self.value(reader)?;
        }
        self.token(Token::End);
        Ok(())
    }

    /// Members by name, then [`Token::End`].
    pub fn members(&mut self, body: &[u8], members: &Members<'_>) -> Result<(), Opaque> {
        for (name, value) in &members.0 {
            self.string(name);
            self.value(&mut Reader::at(body, value.start as usize))?;
        }
        self.token(Token::End);
        Ok(())
    }
}

/// Members of an object by name, ascending; of those that occur twice the last.
pub(super) struct Members<'b>(Vec<(Cow<'b, [u8]>, Span)>);

impl<'b> Members<'b> {
    /// The members of the object that starts at `start`, whose name is `wanted`. Values listed in
    /// `known` are not read again.
    pub fn of(
        body: &'b [u8],
        start: u32,
        known: &[Option<Span>],
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Self, Opaque> {
        let mut members = Vec::new();
        let mut reader = Reader::at(body, start as usize);
        reader.open()?;
        let mut first = true;
        while let Some(Key { name, .. }) = reader.key(first)? {
            first = false;
            let start = super::json::offset(reader.pos());
            let known = known.iter().flatten().find(|value| value.start == start);
            let value = match known {
                Some(value) => {
                    reader.jump(value.end);
                    *value
                }
                None => reader.skip()?,
            };
            if wanted(&name) {
                members.push((name, value));
            }
        }
        // The last of each name first, which is the one that stays.
        members.reverse();
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        members.dedup_by(|(later, _), (first, _)| later == first);
        Ok(Self(members))
    }

    pub fn get(&self, name: &[u8]) -> Option<Span> {
        let at = self
            .0
            .binary_search_by(|(other, _)| (**other).cmp(name))
            .ok()?;
        self.0.get(at).map(|(_, value)| *value)
    }

    pub fn retain(&mut self, keep: impl Fn(&[u8], Span) -> bool) {
        self.0.retain(|(name, value)| keep(name, *value));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}
