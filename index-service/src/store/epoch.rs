//! The epoch: tells one ledger from another, and from itself before a purge.

use std::fmt;

use super::StoreError;

/// Length of an epoch in bytes.
pub const EPOCH_BYTES: usize = 16;

/// An opaque random value. A new or wiped store has another one, and so has a store after each
/// purge: whoever remembers something of the ledger asks whether it still stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch([u8; EPOCH_BYTES]);

impl Epoch {
    /// A fresh one.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn random() -> Result<Self, StoreError> {
        let mut bytes = [0; EPOCH_BYTES];
        getrandom::fill(&mut bytes)
            .map_err(|error| StoreError::Failed(format!("no randomness: {error}")))?;
        Ok(Self(bytes))
    }

    /// An epoch from its stored bytes.
    pub const fn from_bytes(bytes: [u8; EPOCH_BYTES]) -> Self {
        Self(bytes)
    }

    /// The raw bytes, as stored.
    pub const fn as_bytes(&self) -> &[u8; EPOCH_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({:032x})", u128::from_be_bytes(self.0))
    }
}
