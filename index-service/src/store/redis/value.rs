//! The bytes of an entry's value, which the scripts take apart too: expiry, ms (8, LE) ‖ tokens
//! (4, LE) ‖ tier (1). Whole bytes, because Lua has no 64-bit shifts.

use prompt_cache_core::ledger::LiveEntry;

use crate::store::tier::{tier_code, tier_of};

/// The stored form of an entry.
pub fn encode(entry: &LiveEntry) -> Vec<u8> {
    let parts: [&[u8]; 3] = [
        &entry.expires_at_ms.to_le_bytes(),
        &entry.tokens.to_le_bytes(),
        &[tier_code(entry.tier)],
    ];
    parts.concat()
}

/// The entry of a stored value; `None` for one that this version does not know, which then reads
/// as no entry.
pub fn decode(value: &[u8]) -> Option<LiveEntry> {
    let (expires_at_ms, rest) = value.split_first_chunk()?;
    let (tokens, rest) = rest.split_first_chunk()?;
    let [tier] = rest else { return None };
    Some(LiveEntry {
        tokens: u32::from_le_bytes(*tokens),
        tier: tier_of(*tier)?,
        expires_at_ms: u64::from_le_bytes(*expires_at_ms),
    })
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
    }

    #[test]
    fn what_is_no_value_reads_as_no_entry() {
        for value in [&[9; 13][..], &[0; 12], &[0; 14], &[]] {
            assert_eq!(decode(value), None);
        }
    }
}
