//! The bytes of a ledger entry, of its place in the expiry index, and of a scope.
//!
//! | table | key | value |
//! |---|---|---|
//! | `entries` | number of the scope (4, BE) ‖ prefix hash (32) | expiry, ms × 4 + tier (6, LE) ‖ tokens (4, LE) |
//! | `due` | second (4, BE) ‖ first 8 bytes of the entry's key | |
//! | `scopes` | scope (16) | its number (4, LE) ‖ what it stands for, once it is registered: account (32) ‖ length of the model (2, LE) ‖ model ‖ tokenizer version |
//!
//! A scope's number stands for it in the keys, because the scope itself would be a third of a
//! row. Every entry has a row in `due`, at a second not after that of its expiry (rounded up). A
//! refresh leaves the row where it is; the sweeper, when the second has passed, removes the
//! entry or adds a row for its new expiry. So a read costs no index write. A row stands for all
//! entries whose keys begin as it says: mostly one, and two of the same scope and second may
//! share it.

use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{Fingerprint, LiveEntry, NewEntry};

use crate::store::tier::{tier_code, tier_of};
use crate::store::{Scope, ScopeInfo, Write};

/// Length of a scope's number.
const NUMBER_BYTES: usize = 4;
/// Length of an entry's key.
pub const KEY_BYTES: usize = NUMBER_BYTES + 32;
/// Length of an entry's value.
pub const VALUE_BYTES: usize = 10;
/// Length of the part of a key that is in the expiry index.
const DUE_KEY_BYTES: usize = 8;
/// Length of a row of the expiry index.
pub const DUE_BYTES: usize = 4 + DUE_KEY_BYTES;
/// What the expiry index rounds up to.
const SECOND_MS: u64 = 1000;
/// Latest expiry that a value holds, in ms: the year 4199.
const EXPIRY_MS_MAX: u64 = (1 << 46) - 1;

/// Key of an entry.
pub type Key = [u8; KEY_BYTES];
/// Value of an entry.
pub type Value = [u8; VALUE_BYTES];
/// Row of the expiry index.
pub type Due = [u8; DUE_BYTES];

/// The key of `hash` in the scope of that number.
pub fn key(scope: u32, hash: &PrefixHash) -> Key {
    let mut key = [0; KEY_BYTES];
    let (head, tail) = key.split_at_mut(NUMBER_BYTES);
    head.copy_from_slice(&scope.to_be_bytes());
    tail.copy_from_slice(hash.as_bytes());
    key
}

/// The first and the last possible key of a scope.
pub fn key_bounds(scope: u32) -> (Key, Key) {
    let hash = |byte| PrefixHash::new([byte; 32]);
    (key(scope, &hash(0)), key(scope, &hash(0xff)))
}

/// The stored form of an entry.
pub fn encode(entry: &LiveEntry) -> Value {
    let expiry = entry.expires_at_ms.min(EXPIRY_MS_MAX) << 2 | u64::from(tier_code(entry.tier));
    let [a, b, c, d, e, f, ..] = expiry.to_le_bytes();
    let [g, h, i, j] = entry.tokens.to_le_bytes();
    [a, b, c, d, e, f, g, h, i, j]
}

/// The entry of a stored value; `None` for a tier that this version does not know, which then
/// reads as no entry.
pub fn decode(value: &Value) -> Option<LiveEntry> {
    let [a, b, c, d, e, f, g, h, i, j] = *value;
    let expiry = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
    Some(LiveEntry {
        tokens: u32::from_le_bytes([g, h, i, j]),
        tier: tier_of((expiry & 3) as u8)?,
        expires_at_ms: expiry >> 2,
    })
}

/// The number of the scope and the hash of a key.
pub fn split_key(key: &Key) -> Option<(u32, PrefixHash)> {
    let (number, hash) = key.split_first_chunk::<NUMBER_BYTES>()?;
    let hash = PrefixHash::new(*hash.first_chunk()?);
    Some((u32::from_be_bytes(*number), hash))
}

/// The row as it was written; `None` like [`decode`].
pub fn decode_row(scope: Scope, hash: PrefixHash, value: &Value) -> Option<Write> {
    let entry = decode(value)?;
    Some(Write {
        scope,
        entry: NewEntry {
            hash,
            tokens: entry.tokens,
            tier: entry.tier,
        },
        expires_at_ms: entry.expires_at_ms,
    })
}

/// The row of a scope; `None` where the model's name is longer than any that is served.
pub fn encode_scope(number: u32, info: Option<&ScopeInfo>) -> Option<Vec<u8>> {
    let number = number.to_le_bytes();
    let Some(info) = info else {
        return Some(number.to_vec());
    };
    Some([&number, encode_info(info)?.as_slice()].concat())
}

/// What a scope stands for, without its number: the form that Redis keeps too. `None` like
/// [`encode_scope`].
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

/// The number in the row of a scope.
pub fn scope_number(row: &[u8]) -> Option<u32> {
    row.first_chunk().map(|number| u32::from_le_bytes(*number))
}

/// What the row of a scope says it stands for; `None` before it is registered.
pub fn decode_scope(row: &[u8]) -> Option<ScopeInfo> {
    let (_, info) = row.split_first_chunk::<NUMBER_BYTES>()?;
    decode_info(info)
}

/// What [`encode_info`] has written; `None` for anything else.
pub fn decode_info(info: &[u8]) -> Option<ScopeInfo> {
    let (account, rest) = info.split_first_chunk::<32>()?;
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
    let mut due = due_start(expires_at_ms.div_ceil(SECOND_MS));
    for (slot, byte) in due.iter_mut().skip(4).zip(key) {
        *slot = *byte;
    }
    due
}

/// The first row that is not due at `now_ms`. A live entry's proper row is never due.
pub fn due_end(now_ms: u64) -> Due {
    due_start(now_ms / SECOND_MS + 1)
}

fn due_start(second: u64) -> Due {
    let mut due = [0; DUE_BYTES];
    let second = u32::try_from(second).unwrap_or(u32::MAX);
    if let Some(slot) = due.first_chunk_mut() {
        *slot = second.to_be_bytes();
    }
    due
}

/// The first and the last possible key of the entries that a row stands for.
pub fn due_keys(due: &Due) -> (Key, Key) {
    let bound = |fill| {
        let mut key = [fill; KEY_BYTES];
        for (slot, byte) in key.iter_mut().zip(due.iter().skip(4)) {
            *slot = *byte;
        }
        key
    };
    (bound(0), bound(0xff))
}

#[cfg(test)]
mod tests {
    use prompt_cache_core::ledger::Tier;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_round_trip(tokens: u32, tier in 0usize..3, expires_at_ms in 0..=EXPIRY_MS_MAX) {
            let entry = LiveEntry { tokens, tier: Tier::ALL[tier], expires_at_ms };
            prop_assert_eq!(decode(&encode(&entry)), Some(entry));
        }

        #[test]
        fn keys_round_trip_and_lie_within_their_bounds(number: u32, hash: [u8; 32], at: u64) {
            let hash = PrefixHash::new(hash);
            let key = key(number, &hash);
            prop_assert_eq!(split_key(&key), Some((number, hash)));
            for (first, last) in [key_bounds(number), due_keys(&due(at, &key))] {
                prop_assert!(first <= key && key <= last);
            }
        }

        #[test]
        fn scopes_round_trip(
            number: u32,
            account: [u8; 32],
            model: String,
            tokenizer_version: String,
        ) {
            let account = Fingerprint::new(account);
            let info = ScopeInfo { account, model, tokenizer_version };
            let row = encode_scope(number, Some(&info)).unwrap();
            prop_assert_eq!((scope_number(&row), decode_scope(&row)), (Some(number), Some(info)));
            let row = encode_scope(number, None).unwrap();
            prop_assert_eq!((scope_number(&row), decode_scope(&row)), (Some(number), None));
        }

        #[test]
        fn a_row_is_due_within_a_second_after_the_expiry(
            expires in 0u64..1 << 41,
            late in -3000i64..3000,
        ) {
            let row = due(expires, &[7; KEY_BYTES]);
            let now = expires.saturating_add_signed(late);
            let is_due = row < due_end(now);
            prop_assert!(!is_due || now >= expires, "due while live");
            prop_assert!(is_due || now < expires + SECOND_MS, "not due when long expired");
        }
    }

    #[test]
    fn an_unknown_tier_reads_as_no_entry() {
        assert_eq!(decode(&[0xff; VALUE_BYTES]), None);
    }

    #[test]
    fn an_expiry_beyond_the_format_is_the_latest_that_fits() {
        let entry = LiveEntry {
            tokens: 1,
            tier: Tier::Day,
            expires_at_ms: u64::MAX,
        };
        let stored = decode(&encode(&entry)).unwrap();
        assert_eq!(
            (stored.tier, stored.expires_at_ms),
            (Tier::Day, EXPIRY_MS_MAX)
        );
    }
}
