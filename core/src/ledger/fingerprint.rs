//! The principal: a keyed fingerprint of the credential, never the credential.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;

use crate::prefix_hash::{HexVisitor, write_hex};

/// HMAC-SHA-256 of a credential. Travels as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Wraps the raw bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The fingerprint of `credential` under `key` (any length, also empty).
    pub fn of(key: &[u8], credential: &[u8]) -> Option<Self> {
        Some(FingerprintKey::new(key)?.fingerprint(credential))
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A key that has been taken in: half the work of a fingerprint.
#[derive(Clone)]
pub struct FingerprintKey(Hmac<Sha256>);

impl FingerprintKey {
    /// Takes in a key of any length, also empty.
    pub fn new(key: &[u8]) -> Option<Self> {
        Hmac::new_from_slice(key).ok().map(Self)
    }

    /// The fingerprint of `credential`.
    pub fn fingerprint(&self, credential: &[u8]) -> Fingerprint {
        let mut mac = self.0.clone();
        mac.update(credential);
        Fingerprint(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey")
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(HexVisitor).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_is_hmac_sha_256() {
        // RFC 4231, test case 2.
        let fingerprint = Fingerprint::of(b"Jefe", b"what do ya want for nothing?").unwrap();
        assert_eq!(
            fingerprint.to_string(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_ne!(Fingerprint::of(b"", b"a"), Fingerprint::of(b"k", b"a"));
        assert_eq!(format!("{fingerprint:?}"), fingerprint.to_string());
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = FingerprintKey::new(b"Jefe").unwrap();
        assert_eq!(format!("{key:?}"), "FingerprintKey");
    }
}
