//! The bytes of a ledger entry and of its place in the expiry index.
//!
//! | table | key | value |
//! |---|---|---|
//! | `entries` | scope (16) ‖ prefix hash (32) | expiry, ms (8, LE) ‖ tokens (4, LE) ‖ tier (1) |
//! | `due` | second (4, BE) ‖ key of the entry (48) | |
//! | `scopes` | scope (16) | account (32) ‖ length of the model (2, LE) ‖ model ‖ tokenizer version |
//!
//! Every entry has exactly one row in `due`, at a second not after that of its expiry (rounded
//! up). A refresh leaves the row where it is; the sweeper, when the second has passed, removes
//! the entry or moves its row on. So a read costs no index write.

use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{LiveEntry, NewEntry};
use prompt_cache_core::wire::Fingerprint;

use crate::store::tier::{tier_code, tier_of};
use crate::store::{SCOPE_BYTES, Scope, ScopeInfo, Write};

/// Length of an entry's key.
pub const KEY_BYTES: usize = SCOPE_BYTES + 32;
/// Length of an entry's value.
pub const VALUE_BYTES: usize = 13;
/// Length of a row of the expiry index.
pub const DUE_BYTES: usize = 4 + KEY_BYTES;
/// What the expiry index rounds up to.
const SECOND_MS: u64 = 1000;

/// Key of an entry.
pub type Key = [u8; KEY_BYTES];
/// Value of an entry.
pub type Value = [u8; VALUE_BYTES];
/// Row of the expiry index.
pub type Due = [u8; DUE_BYTES];

/// The key of `hash` in `scope`.
pub fn key(scope: &Scope, hash: &PrefixHash) -> Key {
    let mut key = [0; KEY_BYTES];
    let (head, tail) = key.split_at_mut(SCOPE_BYTES);
    head.copy_from_slice(scope.as_bytes());
    tail.copy_from_slice(hash.as_bytes());
    key
}

/// The first and the last possible key of a scope.
pub fn key_bounds(scope: &Scope) -> (Key, Key) {
    let hash = |byte| PrefixHash::new([byte; 32]);
    (key(scope, &hash(0)), key(scope, &hash(0xff)))
}

/// The stored form of an entry.
pub fn encode(entry: &LiveEntry) -> Value {
    let mut value = [0; VALUE_BYTES];
    let bytes = entry
        .expires_at_ms
        .to_le_bytes()
        .into_iter()
        .chain(entry.tokens.to_le_bytes())
        .chain([tier_code(entry.tier)]);
    for (slot, byte) in value.iter_mut().zip(bytes) {
        *slot = byte;
    }
    value
}

/// The entry of a stored value; `None` for a tier that this version does not know, which then
/// reads as no entry.
pub fn decode(value: &Value) -> Option<LiveEntry> {
    let (expires_at_ms, rest) = value.split_first_chunk::<8>()?;
    let (tokens, rest) = rest.split_first_chunk::<4>()?;
    Some(LiveEntry {
        tokens: u32::from_le_bytes(*tokens),
        tier: tier_of(*rest.first()?)?,
        expires_at_ms: u64::from_le_bytes(*expires_at_ms),
    })
}

/// The row of `entries` as it was written; `None` like [`decode`].
pub fn decode_row(key: &Key, value: &Value) -> Option<Write> {
    let entry = decode(value)?;
    let (scope, hash) = key.split_first_chunk::<SCOPE_BYTES>()?;
    Some(Write {
        scope: Scope::from_bytes(*scope),
        entry: NewEntry {
            hash: PrefixHash::new(*hash.first_chunk()?),
            tokens: entry.tokens,
            tier: entry.tier,
        },
        expires_at_ms: entry.expires_at_ms,
    })
}

/// The stored form of a scope's description; `None` where the model's name is longer than any
/// that is served.
pub fn encode_info(info: &ScopeInfo) -> Option<Vec<u8>> {
    let model_bytes = u16::try_from(info.model.len()).ok()?.to_le_bytes();
    let parts: [&[u8]; 4] = [
        info.account.as_bytes(),
        &model_bytes,
        info.model.as_bytes(),
        info.tokenizer_version.as_bytes(),
    ];
    Some(parts.concat())
}

/// A scope's description; `None` for what no version has written.
pub fn decode_info(bytes: &[u8]) -> Option<ScopeInfo> {
    let (account, rest) = bytes.split_first_chunk::<32>()?;
    let (model_bytes, rest) = rest.split_first_chunk::<2>()?;
    let (model, version) = rest.split_at_checked(u16::from_le_bytes(*model_bytes).into())?;
    Some(ScopeInfo {
        account: Fingerprint::new(*account),
        model: std::str::from_utf8(model).ok()?.to_owned(),
        tokenizer_version: std::str::from_utf8(version).ok()?.to_owned(),
    })
}

/// The row of an entry that expires then.
pub fn due(expires_at_ms: u64, key: &Key) -> Due {
    let mut due = [0; DUE_BYTES];
    let (second, rest) = due.split_at_mut(4);
    second.copy_from_slice(&seconds(expires_at_ms.div_ceil(SECOND_MS)).to_be_bytes());
    rest.copy_from_slice(key);
    due
}

/// The first row that is not due at `now_ms`. A live entry's proper row is never due.
pub fn due_end(now_ms: u64) -> Due {
    let mut end = [0; DUE_BYTES];
    let (second, _) = end.split_at_mut(4);
    second.copy_from_slice(&seconds(now_ms / SECOND_MS + 1).to_be_bytes());
    end
}

/// The entry a row stands for.
pub fn due_key(due: &Due) -> Key {
    let mut key = [0; KEY_BYTES];
    for (slot, byte) in key.iter_mut().zip(due.iter().skip(4)) {
        *slot = *byte;
    }
    key
}

fn seconds(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use prompt_cache_core::ledger::Tier;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_round_trip(tokens: u32, tier in 0usize..3, expires_at_ms: u64) {
            let entry = LiveEntry { tokens, tier: Tier::ALL[tier], expires_at_ms };
            prop_assert_eq!(decode(&encode(&entry)), Some(entry));
        }

        #[test]
        fn descriptions_round_trip(account: [u8; 32], model: String, tokenizer_version: String) {
            let account = Fingerprint::new(account);
            let info = ScopeInfo { account, model, tokenizer_version };
            prop_assert_eq!(decode_info(&encode_info(&info).unwrap()), Some(info));
        }

        #[test]
        fn a_row_is_due_within_a_second_after_the_expiry(
            expires in 0u64..1 << 41,
            late in -3000i64..3000,
        ) {
            let key = [7; KEY_BYTES];
            let row = due(expires, &key);
            let now = expires.saturating_add_signed(late);
            prop_assert_eq!(due_key(&row), key);
            let is_due = row < due_end(now);
            prop_assert!(!is_due || now >= expires, "due while live");
            prop_assert!(is_due || now < expires + SECOND_MS, "not due when long expired");
        }
    }

    #[test]
    fn an_unknown_tier_reads_as_no_entry() {
        assert_eq!(decode(&[9; VALUE_BYTES]), None);
    }
}
