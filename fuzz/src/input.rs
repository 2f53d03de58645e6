//! How a target reads an input: a body, a zero byte, and knobs.
//!
//! A body is what a client or a backend sends and hardly ever contains a zero byte, so that a
//! plain file of either is a good seed.

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::request_support::{Array, Bool, Json, Null, Number, Object};

/// Longer inputs are not looked at: no limit of `scan` that the references do not know can be
/// reached below it.
pub const INPUT_BYTES_MAX: usize = 4096;

/// The bytes behind the last zero byte, each one less than it stands there; where they end,
/// zeros follow.
pub struct Knobs<'a>(&'a [u8]);

impl<'a> Knobs<'a> {
    /// Splits an input. Without a zero byte all of it is the body.
    pub fn split(input: &'a [u8]) -> (&'a [u8], Self) {
        let at = input.iter().rposition(|byte| *byte == 0);
        let (body, knobs) = input.split_at(at.unwrap_or(input.len()));
        (body, Self(knobs.get(1..).unwrap_or_default()))
    }

    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&1, &[]));
        self.0 = rest;
        first.wrapping_sub(1)
    }

    pub fn seed(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }
}

/// Reads a value, duplicates and spelling of numbers kept.
///
/// # Panics
/// If `serde_json` does not read it.
pub fn tree(text: &str) -> Json {
    let text = text.trim_matches([' ', '\n', '\r', '\t']);
    match text.as_bytes()[0] {
        b'n' => Null,
        b't' => Bool(true),
        b'f' => Bool(false),
        b'"' => Json::String(serde_json::from_str(text).unwrap()),
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).unwrap();
            Array(items.into_iter().map(|item| tree(item.get())).collect())
        }
        b'{' => {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            Object(deserializer.deserialize_map(Members).unwrap())
        }
        _ => Number(text.to_owned()),
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, Json)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            members.push((name, tree(value.get())));
        }
        Ok(members)
    }
}
