//! Names of keys: `PREFIX:{SCOPE}:HASH`, the scope in hex and the hash as its bytes.
//!
//! The braces are the hash tag: a cluster keeps all entries of a scope in one slot, so that a
//! look-up is one command to one node.

use std::fmt::Write as _;

use prompt_cache_core::PrefixHash;

use crate::store::{SCOPE_BYTES, Scope};

/// Names under one prefix.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// The prefix is of letters, digits and `_.:-`: nothing that a pattern would interpret.
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// The key of an entry.
    pub fn entry(&self, scope: &Scope, hash: &PrefixHash) -> Vec<u8> {
        let mut key = self.of_scope(scope).into_bytes();
        key.extend_from_slice(hash.as_bytes());
        key
    }

    /// What an entry's key says.
    pub fn parse(&self, key: &[u8]) -> Option<(Scope, PrefixHash)> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?;
        let (hex, rest) = rest
            .strip_prefix(b":{")?
            .split_at_checked(2 * SCOPE_BYTES)?;
        let hash: [u8; 32] = rest.strip_prefix(b"}:")?.try_into().ok()?;
        let hex = std::str::from_utf8(hex).ok()?;
        let scope = u128::from_str_radix(hex, 16).ok()?.to_be_bytes();
        Some((Scope::from_bytes(scope), PrefixHash::new(hash)))
    }

    /// What all entries of a scope start with.
    fn of_scope(&self, scope: &Scope) -> String {
        let number = u128::from_be_bytes(*scope.as_bytes());
        let mut key = self.prefix.clone();
        // Writing to a string cannot fail.
        let _ = write!(key, ":{{{number:032x}}}:");
        key
    }

    /// A pattern of the entries of one scope, or of all.
    pub fn pattern(&self, scope: Option<&Scope>) -> String {
        match scope {
            Some(scope) => format!("{}*", self.of_scope(scope)),
            None => format!("{}:{{*", self.prefix),
        }
    }

    /// The hash with the scopes' descriptions.
    pub fn scopes(&self) -> String {
        format!("{}:scopes", self.prefix)
    }

    /// The epoch.
    pub fn epoch(&self) -> String {
        format!("{}:epoch", self.prefix)
    }

    /// Which releases can work with the ledger.
    pub fn format(&self) -> String {
        format!("{}:format", self.prefix)
    }

    /// What a ping writes.
    pub fn ping(&self) -> String {
        format!("{}:ping", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_round_trip(scope: [u8; SCOPE_BYTES], hash: [u8; 32]) {
            let keys = Keys::new("p:q");
            let (scope, hash) = (Scope::from_bytes(scope), PrefixHash::new(hash));
            let key = keys.entry(&scope, &hash);
            prop_assert_eq!(keys.parse(&key), Some((scope, hash)));
            prop_assert_eq!(Keys::new("p").parse(&key), None);
        }
    }

    #[test]
    fn other_keys_are_no_entries() {
        let keys = Keys::new("p");
        for other in [
            keys.scopes(),
            keys.epoch(),
            keys.format(),
            keys.ping(),
            keys.pattern(None),
        ] {
            assert_eq!(keys.parse(other.as_bytes()), None);
        }
    }
}
