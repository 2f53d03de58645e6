//! The canonical byte stream that prefix hashes cover, written token by token.
//!
//! Specified in `docs/prefix-hash.md`; changing a byte of it changes every hash, so it carries a
//! version.

use std::borrow::Cow;

use super::{
    Opaque,
    json::{Key, Reader, Span, Text, offset},
    unescape,
};
use crate::prefix_hash::PrefixHash;

/// Bytes gathered before they are hashed: large enough for the wide code paths of BLAKE3.
const STAGED_BYTES_MAX: usize = 32 * 1024;
/// A token type and a length.
const HEAD_BYTES: usize = 5;
/// Members of one object that are gathered before those that later ones override are dropped. Only
/// of the body itself are there ever more, and then of a few names: see [`super::MEMBERS_MAX`].
const GATHERED_MAX: usize = 2 * super::MEMBERS_MAX;
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
    System = 0x18,
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
        let [a, b, c, d] = offset(bytes).to_le_bytes();
        self.raw(&[token as u8, a, b, c, d]);
    }

    /// A string that needs no escapes.
    pub fn plain(&mut self, value: &[u8]) {
        self.sized(Token::String, value.len());
        self.raw(value);
    }

    /// A string as spelled in the body, in its canonical spelling.
    pub fn text(&mut self, text: Text<'_>) {
        if !text.respelled {
            return self.plain(text.raw);
        }
        // The canonical spelling is never longer than another.
        let bytes_max = HEAD_BYTES + text.raw.len();
        if bytes_max > STAGED_BYTES_MAX {
            let mut bytes = 0;
            unescape::canonical(text.raw, |piece| bytes += piece.len());
            self.sized(Token::String, bytes);
            unescape::canonical(text.raw, |piece| self.raw(piece));
            return;
        }
        if self.staged.len() + bytes_max > STAGED_BYTES_MAX {
            self.flush();
        }
        let head = self.staged.len();
        self.sized(Token::String, 0);
        let staged = &mut self.staged;
        unescape::canonical(text.raw, |piece| staged.extend_from_slice(piece));
        let bytes = staged.len() - head - HEAD_BYTES;
        if let Some(length) = staged.get_mut(head + 1..head + HEAD_BYTES) {
            length.copy_from_slice(&offset(bytes).to_le_bytes());
        }
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
        left_out: fn(&[u8]) -> bool,
    ) -> Result<(), Opaque> {
        self.token(Token::Object);
        reader.open()?;
        let mut first = true;
        while let Some(Key { name, text, .. }) = reader.key(first)? {
            first = false;
            if left_out(&name) {
                reader.skip()?;
                continue;
            }
            self.text(text);
            self.value(reader)?;
        }
        self.token(Token::End);
        Ok(())
    }

    /// Members by name, then [`Token::End`].
    pub fn members(&mut self, body: &[u8], members: &Members<'_>) -> Result<(), Opaque> {
        self.members_and_items(body, members, b"", |_| false)
    }

    /// Like [`Self::members`], the items of the array `name` without their `left_out` members.
    pub fn members_and_items(
        &mut self,
        body: &[u8],
        members: &Members<'_>,
        name: &[u8],
        left_out: fn(&[u8]) -> bool,
    ) -> Result<(), Opaque> {
        for member in &members.0 {
            self.text(member.key);
            match member.text {
                Some(text) => self.text(text),
                None if *member.name == *name && member.value.of(body).starts_with(b"[") => {
                    let mut reader = Reader::at(body, member.value.start as usize);
                    self.token(Token::Array);
                    reader.open()?;
                    let mut first = true;
                    while reader.element(first)? {
                        first = false;
                        match reader.peek() {
                            Some(b'{') => self.object_as_given(&mut reader, left_out)?,
                            _ => self.value(&mut reader)?,
                        }
                    }
                    self.token(Token::End);
                }
                None => self.value(&mut Reader::at(body, member.value.start as usize))?,
            }
        }
        self.token(Token::End);
        Ok(())
    }
}

/// Members of an object by name, ascending; of those that occur twice the last.
pub(super) struct Members<'b>(Vec<Member<'b>>);

/// A member of [`Members`].
pub(super) struct Member<'b> {
    name: Cow<'b, [u8]>,
    key: Text<'b>,
    pub value: Span,
    /// The value, if it is a string that was read.
    pub text: Option<Text<'b>>,
}

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
        while let Some(Key {
            name, text: key, ..
        }) = reader.key(first)?
        {
            first = false;
            let start = offset(reader.pos());
            let known = known.iter().flatten().find(|value| value.start == start);
            let (value, text) = match known {
                Some(value) => {
                    reader.jump(value.end);
                    (*value, None)
                }
                None => reader.value()?,
            };
            if wanted(&name) {
                members.push(Member {
                    name,
                    key,
                    value,
                    text,
                });
            }
            if members.len() == GATHERED_MAX {
                members = Self::by_name(members).0;
            }
        }
        Ok(Self::by_name(members))
    }

    /// Apart from [`Self::of`], so that there is one sort for all its callers: each further one
    /// costs the filter's module five kilobytes.
    fn by_name(mut members: Vec<Member<'b>>) -> Self {
        // The last of each name first, which is the one that stays.
        members.reverse();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members.dedup_by(|later, first| later.name == first.name);
        Self(members)
    }

    pub fn get(&self, name: &[u8]) -> Option<&Member<'b>> {
        let at = self
            .0
            .binary_search_by(|member| (*member.name).cmp(name))
            .ok()?;
        self.0.get(at)
    }

    pub fn retain(&mut self, keep: impl Fn(&[u8], Span) -> bool) {
        self.0.retain(|member| keep(&member.name, member.value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(write: impl FnOnce(&mut Sink)) -> PrefixHash {
        let mut sink = Sink::new();
        write(&mut sink);
        sink.finish()
    }

    /// Whatever was written before, and however long: where a text is put together on its way to
    /// the hash is not part of it.
    #[test]
    fn a_text_has_the_hash_of_its_canonical_spelling() {
        let lengths = [0, 1, 300, 13_104, 13_105, 13_108, STAGED_BYTES_MAX];
        for before in [
            0,
            1,
            DIRECT_BYTES_MIN - 1,
            DIRECT_BYTES_MIN,
            STAGED_BYTES_MAX,
        ] {
            let before = vec![b'b'; before];
            for length in lengths {
                let canonical = r#"a\"\n"#.repeat(length / 4) + &"x".repeat(length % 4);
                let spelled = canonical.replace('a', "\\u0061").replace('x', "\\u0078");
                let text = Text {
                    raw: spelled.as_bytes(),
                    escaped: true,
                    respelled: true,
                };
                let plain = hash(|sink| {
                    sink.raw(&before);
                    sink.plain(canonical.as_bytes());
                });
                let respelled = hash(|sink| {
                    sink.raw(&before);
                    sink.text(text);
                });
                assert_eq!(respelled, plain, "{length} after {}", before.len());
            }
        }
    }

    #[test]
    fn a_sink_begins_anew_after_each_hash() {
        let once = hash(|sink| sink.raw(b"a"));
        let long = vec![b'l'; STAGED_BYTES_MAX + 1];
        let mut sink = Sink::new();
        sink.raw(&long);
        assert_eq!(sink.finish(), hash(|sink| sink.raw(&long)));
        sink.raw(b"a");
        assert_eq!(sink.finish(), once);
        sink.raw(b"a");
        assert_eq!(sink.finish(), once);
    }
}
