//! Whose an entry is: the scope it is kept under.

use super::fingerprint::Fingerprint;

/// Length of a scope in bytes.
pub const SCOPE_BYTES: usize = 16;

/// Digest of (principal, model, tokenizer version): nothing is ever shared across scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope([u8; SCOPE_BYTES]);

impl Scope {
    /// The scope of these three. 128 bits of BLAKE3 over length-prefixed parts: a collision
    /// would need 2^64 scopes, and a chosen one 2^128 work against a keyed fingerprint.
    pub fn of(principal: &Fingerprint, model: &str, tokenizer_version: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"prompt-cache scope 1");
        hasher.update(principal.as_bytes());
        for part in [model, tokenizer_version] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let mut scope = [0; SCOPE_BYTES];
        hasher.finalize_xof().fill(&mut scope);
        Self(scope)
    }

    /// A scope from its stored bytes.
    pub const fn from_bytes(bytes: [u8; SCOPE_BYTES]) -> Self {
        Self(bytes)
    }

    /// The raw bytes, as stored.
    pub const fn as_bytes(&self) -> &[u8; SCOPE_BYTES] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ledgers hold scopes: one that is computed otherwise loses them all.
    #[test]
    fn a_scope_is_what_it_was() {
        // Of another implementation: Python's `blake3`.
        let stored = "8f21970fdca25f27cce53f09d1def40a";
        let scope = Scope::of(&Fingerprint::new([7; 32]), "model", "version");
        let hex: String = scope
            .as_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hex, stored);
        assert_eq!(Scope::from_bytes(*scope.as_bytes()), scope);
    }
}
