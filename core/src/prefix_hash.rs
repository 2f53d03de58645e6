//! The 32-byte identity of a prefix: one link of the hash chain of `request::prefix`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Length of a prefix hash in bytes.
pub const PREFIX_HASH_BYTES: usize = 32;

/// Identity of a prefix within a scope. Travels and prints as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrefixHash([u8; PREFIX_HASH_BYTES]);

impl PrefixHash {
    /// Wraps the raw bytes.
    pub const fn new(bytes: [u8; PREFIX_HASH_BYTES]) -> Self {
        Self(bytes)
    }

    /// The raw bytes, as stored by the ledger.
    pub const fn as_bytes(&self) -> &[u8; PREFIX_HASH_BYTES] {
        &self.0
    }

    /// Reads 64 hex digits of either case.
    pub fn from_hex(hex: &str) -> Option<Self> {
        Some(Self(parse_hex(hex)?))
    }
}

impl fmt::Display for PrefixHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for PrefixHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl Serialize for PrefixHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PrefixHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(HexVisitor).map(Self)
    }
}

/// Reads the 64 hex digits of 32 bytes from a borrowed or owned string.
pub(crate) struct HexVisitor;

impl de::Visitor<'_> for HexVisitor {
    type Value = [u8; PREFIX_HASH_BYTES];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("64 hex digits")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        parse_hex(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str("other text"), &self))
    }
}

pub(crate) fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for byte in bytes {
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

fn parse_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits = hex.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        let high = char::from(high).to_digit(16)?;
        let low = char::from(low).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_the_rest() {
        let hash = PrefixHash::new(std::array::from_fn(|i| (i * 7) as u8));
        assert_eq!(PrefixHash::from_hex(&hash.to_string()), Some(hash));
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<PrefixHash>(&json).unwrap(), hash);
        for bad in [
            "",
            "00",
            &"g".repeat(64),
            &"0".repeat(63),
            &"0".repeat(66),
            &"é".repeat(32),
        ] {
            assert_eq!(PrefixHash::from_hex(bad), None, "{bad}");
        }
    }
}
