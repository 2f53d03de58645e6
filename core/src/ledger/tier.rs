//! Cache tiers (how long an entry lives) and token counts per tier.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a cache entry lives after it was written or last read. Ordered by duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Tier {
    /// Five minutes.
    #[serde(rename = "5m")]
    FiveMinutes,
    /// One hour.
    #[serde(rename = "1h")]
    OneHour,
    /// Twenty-four hours.
    #[serde(rename = "24h")]
    Day,
}

impl Tier {
    /// Every tier that exists, the shortest first.
    pub const ALL: [Self; 3] = [Self::FiveMinutes, Self::OneHour, Self::Day];

    /// The name clients write in `ttl`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FiveMinutes => "5m",
            Self::OneHour => "1h",
            Self::Day => "24h",
        }
    }

    /// The tier of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == name)
    }

    /// The life of an entry.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.duration_ms())
    }

    /// The life of an entry in milliseconds.
    pub const fn duration_ms(self) -> u64 {
        match self {
            Self::FiveMinutes => 300_000,
            Self::OneHour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }
}

/// Tokens per tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierTokens {
    /// Tokens of the five-minute tier.
    #[serde(rename = "5m", default)]
    pub five_minutes: u64,
    /// Tokens of the one-hour tier.
    #[serde(rename = "1h", default)]
    pub one_hour: u64,
    /// Tokens of the one-day tier.
    #[serde(rename = "24h", default)]
    pub day: u64,
}

impl TierTokens {
    /// The tokens of one tier.
    pub const fn get(&self, tier: Tier) -> u64 {
        match tier {
            Tier::FiveMinutes => self.five_minutes,
            Tier::OneHour => self.one_hour,
            Tier::Day => self.day,
        }
    }

    /// Adds tokens to one tier, saturating.
    pub const fn add(&mut self, tier: Tier, tokens: u64) {
        let slot = match tier {
            Tier::FiveMinutes => &mut self.five_minutes,
            Tier::OneHour => &mut self.one_hour,
            Tier::Day => &mut self.day,
        };
        *slot = slot.saturating_add(tokens);
    }

    /// The sum over all tiers, saturating.
    pub const fn total(&self) -> u64 {
        self.five_minutes
            .saturating_add(self.one_hour)
            .saturating_add(self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_live_as_long_as_they_are_called() {
        let seconds = Tier::ALL.map(|tier| tier.duration().as_secs());
        assert_eq!(seconds, [5 * 60, 60 * 60, 24 * 60 * 60]);
    }
}
