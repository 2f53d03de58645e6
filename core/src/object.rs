//! A complete JSON object seen as members with byte ranges, so that it can be edited in place.

use std::{fmt, ops::Range};

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A member of an object: where its key (with quotes) and its value stand in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub key: Range<usize>,
    pub value: Range<usize>,
}

impl Member {
    /// Whether the key spells `name`, escapes included.
    pub fn is(&self, text: &[u8], name: &str) -> bool {
        let key = slice(text, self.key.clone());
        let Some(inner) = key.strip_prefix(b"\"").and_then(|k| k.strip_suffix(b"\"")) else {
            return false;
        };
        if memchr::memchr(b'\\', inner).is_none() {
            return inner == name.as_bytes();
        }
        serde_json::from_slice::<String>(key).is_ok_and(|decoded| decoded == name)
    }
}

/// The bytes of a range; empty where the range does not lie inside.
pub(crate) fn slice(text: &[u8], range: Range<usize>) -> &[u8] {
    text.get(range).unwrap_or_default()
}

/// Whether a value's text is an object. Only its first byte is looked at: the text is JSON.
pub(crate) fn is_object(value: &[u8]) -> bool {
    value.first() == Some(&b'{')
}

/// The members of the object that `text` holds, duplicates included, in order. `None` when it is
/// not JSON or not an object.
pub(crate) fn members(text: &[u8]) -> Option<Vec<Member>> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let raw = deserializer.deserialize_map(Members).ok()?;
    deserializer.end().ok()?;
    raw.into_iter()
        .map(|(k, v)| {
            Some(Member {
                key: range(text, k)?,
                value: range(text, v)?,
            })
        })
        .collect()
}

/// Where the items of the array stand that `text` holds; none when it is not one.
pub(crate) fn items(text: &[u8]) -> Vec<Range<usize>> {
    let items: Vec<&RawValue> = serde_json::from_slice(text).unwrap_or_default();
    items
        .into_iter()
        .filter_map(|item| range(text, item))
        .collect()
}

/// Where a part of `text` that was borrowed from it stands.
fn range(text: &[u8], part: &RawValue) -> Option<Range<usize>> {
    let part = part.get();
    let start = part.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    Some(start..start.checked_add(part.len())?)
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(&'de RawValue, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(member) = map.next_entry()? {
            all.push(member);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_text() {
        let text = br#" { "a" : [1, 2] ,"us\u0061ge":{"x":"}"},"usage":null } "#;
        let all = members(text).unwrap();
        let shown: Vec<_> = all
            .iter()
            .map(|m| {
                (
                    &text[m.key.clone()],
                    &text[m.value.clone()],
                    m.is(text, "usage"),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                (&br#""a""#[..], &b"[1, 2]"[..], false),
                (br#""us\u0061ge""#, br#"{"x":"}"}"#, true),
                (br#""usage""#, b"null", true),
            ]
        );
    }

    #[test]
    fn items_are_those_of_an_array() {
        assert_eq!(items(b" [1, {\"a\":[2]},\"x\"]"), [2..3, 5..14, 15..18]);
        for text in ["", "{}", "[1", "[1]]"] {
            assert_eq!(items(text.as_bytes()), [], "{text}");
        }
    }

    #[test]
    fn what_is_no_object_has_no_members() {
        for text in [
            "",
            "[1]",
            "null",
            "{",
            "{} x",
            "{\"a\":1,}",
            "{\"a\":01}",
            "{\"a\":\"\n\"}",
        ] {
            assert_eq!(members(text.as_bytes()), None, "{text}");
        }
        assert_eq!(members(b"{ }"), Some(Vec::new()));
        assert_eq!(members(b"{\"a\":\"\xff\"}"), None);
    }
}
