//! A streaming JSON lexer that finds the top-level `usage` object and checks the grammar.
//!
//! It keeps a few words of state and no text. Strict: what it calls complete is JSON, except that
//! it does not check that strings are UTF-8. Deeper nesting than [`DEPTH_MAX`] is refused.

use memchr::memchr2;

/// Deepest nesting that is followed, one bit of the stack each.
const DEPTH_MAX: u32 = u128::BITS;

/// Something that [`Lexer::advance`] came across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The opening brace of a top-level `usage` object was the last byte taken.
    UsageStart,
    /// Its closing brace was.
    UsageEnd,
    /// The first byte of a top-level `error` that is not null was.
    Error,
}

/// What may come next.
#[derive(Clone, Copy)]
enum State {
    /// The object that is the document.
    Start,
    /// A key, or the end of an object without members.
    FirstKey,
    Key,
    Colon,
    /// A value, or the end of an array without items.
    FirstItem,
    Value,
    /// A comma or the end of the object or array.
    AfterValue,
    /// In a string; `key`: it is a key.
    Text {
        key: bool,
    },
    Escape {
        key: bool,
    },
    Hex {
        key: bool,
        left: u8,
        code: u16,
    },
    Number(Number),
    /// The rest of `true`, `false` or `null`.
    Literal(&'static [u8]),
    /// Only white space.
    Complete,
    Invalid,
}

/// The last thing read of a number.
#[derive(Clone, Copy)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

/// Which member of the document a value belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    Usage,
    Error,
    Other,
}

/// The start of a decoded top-level key, enough to tell the names apart.
#[derive(Clone, Copy, Default)]
struct Key {
    bytes: [u8; 5],
    length: usize,
}

/// The lexer. Feed it the document in any pieces.
pub(super) struct Lexer {
    state: State,
    /// Open brackets, the innermost in the lowest bit: 1 for objects.
    stack: u128,
    depth: u32,
    key: Key,
    name: Name,
    in_usage: bool,
}

impl Key {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = byte;
        }
        self.length = self.length.saturating_add(1);
    }

    fn name(&self) -> Name {
        match (&self.bytes, self.length) {
            (b"usage", 5) => Name::Usage,
            (b"error", 5) => Name::Error,
            _ => Name::Other,
        }
    }
}

impl Lexer {
    pub fn new() -> Self {
        Self {
            state: State::Start,
            stack: 0,
            depth: 0,
            key: Key::default(),
            name: Name::Other,
            in_usage: false,
        }
    }

    /// A whole object was read, and nothing but white space after it.
    pub const fn complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// The text is not a JSON object.
    pub const fn invalid(&self) -> bool {
        matches!(self.state, State::Invalid)
    }

    /// Takes bytes up to and including the first that makes something found, or all of them.
    /// Returns how many were taken.
    pub fn advance(&mut self, bytes: &[u8]) -> (usize, Option<Found>) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let State::Text { key } = self.state {
                let rest = bytes.get(at..).unwrap_or_default();
                at += self.text(rest, key);
                continue;
            }
            if let State::Number(number) = self.state {
                match number.next(byte) {
                    Some(next) => {
                        self.state = State::Number(next);
                        at += 1;
                        continue;
                    }
                    // The byte is not part of the number: it is read again as what follows.
                    None if number.may_end() => self.state = State::AfterValue,
                    None => self.state = State::Invalid,
                }
            }
            if matches!(self.state, State::Invalid) {
                return (bytes.len(), None);
            }
            at += 1;
            if let Some(found) = self.step(byte) {
                return (at, Some(found));
            }
        }
        (bytes.len(), None)
    }

    /// Reads inside a string; returns the bytes taken.
    fn text(&mut self, rest: &[u8], key: bool) -> usize {
        let stop = memchr2(b'"', b'\\', rest);
        let run = rest.get(..stop.unwrap_or(rest.len())).unwrap_or_default();
        if run
            .iter()
            .fold(false, |control, byte| control | (*byte < 0x20))
        {
            self.state = State::Invalid;
            return rest.len();
        }
        if key {
            run.iter().take(6).for_each(|byte| self.key.push(*byte));
        }
        let Some(stop) = stop else { return rest.len() };
        self.state = match rest.get(stop) {
            Some(b'\\') => State::Escape { key },
            _ if key => State::Colon,
            _ => State::AfterValue,
        };
        stop + 1
    }

    fn step(&mut self, byte: u8) -> Option<Found> {
        let blank = matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        match self.state {
            State::Start | State::FirstKey | State::Key | State::Colon if blank => {}
            State::FirstItem | State::Value | State::AfterValue | State::Complete if blank => {}
            State::Start if byte == b'{' => self.open(true, State::FirstKey),
            State::FirstKey | State::Key if byte == b'"' => {
                self.key = Key::default();
                self.state = State::Text { key: true };
            }
            State::FirstKey if byte == b'}' => return self.close(true),
            State::Colon if byte == b':' => {
                if self.depth == 1 {
                    self.name = self.key.name();
                }
                self.state = State::Value;
            }
            State::FirstItem if byte == b']' => return self.close(false),
            State::FirstItem | State::Value => return self.value(byte),
            State::AfterValue => match byte {
                b',' if self.in_object() => self.state = State::Key,
                b',' => self.state = State::Value,
                b'}' => return self.close(true),
                b']' => return self.close(false),
                _ => self.state = State::Invalid,
            },
            State::Escape { key } => {
                self.state = match byte {
                    b'u' => State::Hex {
                        key,
                        left: 4,
                        code: 0,
                    },
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                        // None of these is part of a name that is looked for.
                        self.key.push(0);
                        State::Text { key }
                    }
                    _ => State::Invalid,
                }
            }
            State::Hex { key, left, code } => {
                self.state = match char::from(byte).to_digit(16) {
                    Some(digit) => self.hex(key, left, code << 4 | digit as u16),
                    None => State::Invalid,
                }
            }
            State::Literal(rest) => {
                self.state = match rest.split_first() {
                    Some((expected, [])) if *expected == byte => State::AfterValue,
                    Some((expected, rest)) if *expected == byte => State::Literal(rest),
                    _ => State::Invalid,
                }
            }
            // `advance` handles strings and numbers itself.
            _ => self.state = State::Invalid,
        }
        None
    }

    fn hex(&mut self, key: bool, left: u8, code: u16) -> State {
        if left > 1 {
            return State::Hex {
                key,
                left: left - 1,
                code,
            };
        }
        self.key.push(u8::try_from(code).unwrap_or(0));
        State::Text { key }
    }

    /// The first byte of a value.
    fn value(&mut self, byte: u8) -> Option<Found> {
        let named = if self.depth == 1 {
            self.name
        } else {
            Name::Other
        };
        match byte {
            b'{' => self.open(true, State::FirstKey),
            b'[' => self.open(false, State::FirstItem),
            b'"' => self.state = State::Text { key: false },
            b't' => self.state = State::Literal(b"rue"),
            b'f' => self.state = State::Literal(b"alse"),
            b'n' => self.state = State::Literal(b"ull"),
            b'-' => self.state = State::Number(Number::Minus),
            b'0' => self.state = State::Number(Number::Zero),
            b'1'..=b'9' => self.state = State::Number(Number::Integer),
            _ => self.state = State::Invalid,
        }
        match (named, byte) {
            _ if self.invalid() => None,
            (Name::Usage, b'{') => {
                self.in_usage = true;
                Some(Found::UsageStart)
            }
            (Name::Error, first) if first != b'n' => Some(Found::Error),
            _ => None,
        }
    }

    const fn in_object(&self) -> bool {
        self.stack & 1 == 1
    }

    fn open(&mut self, object: bool, next: State) {
        if self.depth == DEPTH_MAX {
            self.state = State::Invalid;
            return;
        }
        self.stack = self.stack << 1 | u128::from(object);
        self.depth += 1;
        self.state = next;
    }

    fn close(&mut self, object: bool) -> Option<Found> {
        if self.in_object() != object {
            self.state = State::Invalid;
            return None;
        }
        self.stack >>= 1;
        self.depth = self.depth.saturating_sub(1);
        self.state = if self.depth == 0 {
            State::Complete
        } else {
            State::AfterValue
        };
        let usage_ends = self.in_usage && self.depth == 1;
        if usage_ends {
            self.in_usage = false;
        }
        usage_ends.then_some(Found::UsageEnd)
    }
}

impl Number {
    const fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Integer, b'0'..=b'9') => Self::Integer,
            (Self::Zero | Self::Integer, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Integer | Self::Fraction, b'e' | b'E') => Self::Exponent,
            (Self::Exponent, b'+' | b'-') => Self::ExponentSign,
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => {
                Self::ExponentDigits
            }
            _ => return None,
        })
    }

    const fn may_end(self) -> bool {
        matches!(
            self,
            Self::Zero | Self::Integer | Self::Fraction | Self::ExponentDigits
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(text: &[u8], piece: usize) -> (bool, Vec<(usize, Found)>) {
        let mut lexer = Lexer::new();
        let mut found = Vec::new();
        let mut base = 0;
        for mut piece in text.chunks(piece.max(1)) {
            while !piece.is_empty() {
                let (taken, what) = lexer.advance(piece);
                base += taken;
                piece = &piece[taken..];
                found.extend(what.map(|what| (base, what)));
            }
        }
        (lexer.complete(), found)
    }

    #[test]
    fn finds_the_top_level_usage_only() {
        let text = br#" {"a":{"usage":{}},"b":"\"usage\":{","c":["usage",{"usage":{"x":1}}],"usage" : {"usage":{}} ,"error":null,"us\u0061ge":{},"usage":null,"error":{}}"#;
        let (complete, found) = run(text, usize::MAX);
        assert!(complete);
        let marks: Vec<_> = found
            .iter()
            .map(|(at, what)| (&text[at - 2..*at], *what))
            .collect();
        assert_eq!(
            marks,
            [
                (&b" {"[..], Found::UsageStart),
                (b"}}", Found::UsageEnd),
                (b":{", Found::UsageStart),
                (b"{}", Found::UsageEnd),
                (b":{", Found::Error),
            ]
        );
        for piece in 1..text.len() {
            assert_eq!(run(text, piece), (complete, found.clone()), "{piece}");
        }
    }

    #[test]
    fn grammar() {
        for good in [
            "{}",
            " { } \n",
            r#"{"a":[],"b":[1,-0,0.5,1e9,-1.25E-07,true,false,null,"\u00e9\n"]}"#,
            r#"{"a":{"a":[[{}]]}}"#,
        ] {
            assert!(run(good.as_bytes(), 1).0, "{good}");
        }
        for bad in [
            "",
            "[]",
            "1",
            "{",
            "{}}",
            "{} x",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{1:1}",
            "{]}",
            "{x",
            "{\"a\":nuxl}",
            "{\"a\":falsy}",
            "{\"usage\":x",
            "{\"a\":[1,]}",
            "{\"a\":[}",
            "{\"a\":(1]}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":-}",
            "{\"a\":1e}",
            "{\"a\":.5}",
            "{\"a\":+1}",
            "{\"a\":nul}",
            "{\"a\":nulll}",
            "{\"a\":tru}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u00g0\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":1 2}",
            "{\"a\":\"",
            "\u{feff}{}",
            "{\"a\" \"b\"}",
            "{\"a\":1]",
        ] {
            assert!(!run(bad.as_bytes(), usize::MAX).0, "{bad}");
            assert!(!run(bad.as_bytes(), 1).0, "{bad}");
        }
    }

    #[test]
    fn what_is_no_value_is_no_error() {
        assert_eq!(run(br#"{"error":x}"#, 1).1, []);
        assert_eq!(run(br#"{"error":1}"#, 1).1.len(), 1);
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(run(nested(127).as_bytes(), usize::MAX).0);
        assert!(!run(nested(128).as_bytes(), usize::MAX).0);
    }

    proptest! {
        /// The same verdict as serde_json's, on text that is nearly JSON.
        #[test]
        fn agrees_with_serde_json(
            parts in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"a\"", "\"usage\"", "\"\\u0041\"", "\"\\\"\"", "1",
                "-0.5e+3", "0", "null", "true", " ", "\n", "{\"a\":1}", "\"a\":", "\"", "\\", "e", ".",
            ]), 0..12),
            piece in 1usize..8,
        ) {
            let text = format!("{{{}}}", parts.concat());
            let expected = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(run(text.as_bytes(), piece).0, expected, "{}", text);
        }
    }
}
