//! The stored number of a tier: ordered like the tiers, so that the larger one is the longer.

use prompt_cache_core::ledger::Tier;

/// The number.
pub const fn tier_code(tier: Tier) -> u8 {
    match tier {
        Tier::FiveMinutes => 0,
        Tier::OneHour => 1,
        Tier::Day => 2,
    }
}

/// The highest number of a tier that this version knows.
pub const TIER_CODE_MAX: u8 = tier_code(Tier::Day);

/// The tier of a number; `None` for one that this version does not know.
pub const fn tier_of(code: u8) -> Option<Tier> {
    match code {
        0 => Some(Tier::FiveMinutes),
        1 => Some(Tier::OneHour),
        2 => Some(Tier::Day),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_in_order() {
        for pair in Tier::ALL.windows(2) {
            assert!(pair[0] < pair[1] && tier_code(pair[0]) < tier_code(pair[1]));
        }
        for tier in Tier::ALL {
            assert_eq!(tier_of(tier_code(tier)), Some(tier));
        }
        assert_eq!(tier_of(TIER_CODE_MAX + 1), None);
        assert_eq!(tier_of(9), None);
    }
}
