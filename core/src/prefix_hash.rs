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

/// Writes 32 bytes as 64 lower-case digits, in one piece: a classification carries up to 80.
pub(crate) fn write_hex(
    bytes: &[u8; PREFIX_HASH_BYTES],
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'?');
    let mut text = [0; PREFIX_HASH_BYTES * 2];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

/// A classification carries up to 80 hashes, so a digit is one look into a table, and a bad one
/// is found at the end.
fn parse_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits = hex.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    let mut seen = 0;
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        let (high, low) = (nibble(high), nibble(low));
        seen |= high | low;
        *byte = high << 4 | low & 0xf;
    }
    (seen < 16).then_some(bytes)
}

/// The value of a digit; 255 for what is none.
fn nibble(digit: u8) -> u8 {
    const NIBBLES: [u8; 256] = {
        let mut table = [0xff; 256];
        let mut value = 0;
        while value < 16 {
            #[allow(clippy::indexing_slicing)] // In a constant: checked by the compiler.
            {
                table[b"0123456789abcdef"[value] as usize] = value as u8;
                table[b"0123456789ABCDEF"[value] as usize] = value as u8;
            }
            value += 1;
        }
        table
    };
    NIBBLES.get(usize::from(digit)).copied().unwrap_or(0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_the_rest() {
        let hash = PrefixHash::new(std::array::from_fn(|i| (i * 7) as u8));
        assert_eq!(PrefixHash::from_hex(&hash.to_string()), Some(hash));
        assert_eq!(format!("{hash:?}"), hash.to_string());
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<PrefixHash>(&json).unwrap(), hash);
        for bad in [
            "",
            "00",
            &"g".repeat(64),
            &"0".repeat(63),
            &"0".repeat(66),
            &"é".repeat(32),
            &format!("{}g", "0".repeat(63)),
            &format!("g{}", "0".repeat(63)),
        ] {
            assert_eq!(PrefixHash::from_hex(bad), None, "{bad}");
        }
    }
}
