//! How a read extends an entry's life.

use super::tier::Tier;

/// A refresh that would gain less than this part of the tier's window is skipped.
pub const REFRESH_GAIN_PARTS_MIN: u64 = 100;

/// The expiry that a read at `now_ms` gives an entry of `tier` which expires at `expires_at_ms`;
/// `None` where that would gain too little. All on one clock, in milliseconds.
pub const fn refreshed(tier: Tier, expires_at_ms: u64, now_ms: u64) -> Option<u64> {
    let window_ms = tier.duration_ms();
    let renewed_ms = now_ms.saturating_add(window_ms);
    let gain_ms = renewed_ms.saturating_sub(expires_at_ms);
    if gain_ms.saturating_mul(REFRESH_GAIN_PARTS_MIN) >= window_ms {
        Some(renewed_ms)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_gains_at_least_a_hundredth_of_the_window() {
        let tier = Tier::FiveMinutes;
        let table = [
            (300_000, 0, None),
            (300_000, 2_999, None),
            (300_000, 3_000, Some(303_000)),
            (300_000, 299_999, Some(599_999)),
            (900_000, 10, None),
        ];
        for (expires_at_ms, now_ms, renewed_ms) in table {
            assert_eq!(refreshed(tier, expires_at_ms, now_ms), renewed_ms);
        }
    }
}
