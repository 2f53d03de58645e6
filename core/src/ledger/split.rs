//! The stats of one request: tokens read and tokens created per tier, and what is shown of them.

use serde::{Deserialize, Serialize};

use super::tier::TierTokens;

/// How a request's prompt splits: tokens read from the cache, tokens written to it per tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Tokens of the prefix that was already paid for.
    pub read: u64,
    /// Tokens written, per tier.
    pub creation: TierTokens,
}

/// What `Split::capped` had to give up so that the split fits into `prompt_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// Nothing: it fits.
    None,
    /// The read was shortened.
    Read,
    /// Creation alone was too much: all is zero.
    All,
}

/// The outcome of a handled request, as counted in `promptcache_requests_total` and written to
/// the filter state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Tokens were read, none written.
    Read,
    /// Tokens were written, none read.
    CreateOnly,
    /// Both.
    ReadAndCreate,
    /// The model is active and nothing was read or written.
    ZeroActive,
    /// Not cached: unknown model, no principal, failed or late classification.
    Inactive,
    /// The exchange ended before its answer was complete.
    Aborted,
}

impl Outcome {
    /// Every outcome, in the order of the documentation.
    pub const ALL: [Self; 6] = [
        Self::Read,
        Self::CreateOnly,
        Self::ReadAndCreate,
        Self::ZeroActive,
        Self::Inactive,
        Self::Aborted,
    ];

    /// The metric label and filter-state value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::CreateOnly => "create_only",
            Self::ReadAndCreate => "read_and_create",
            Self::ZeroActive => "zero_active",
            Self::Inactive => "inactive",
            Self::Aborted => "aborted",
        }
    }
}

impl Split {
    /// The split that may be shown beside `prompt_tokens`: `read + creation <= prompt_tokens`.
    /// The read gives way first; if creation alone exceeds it, everything is zero.
    pub const fn capped(self, prompt_tokens: u64) -> (Self, Cap) {
        let creation = self.creation.total();
        if creation > prompt_tokens {
            let none = TierTokens {
                five_minutes: 0,
                one_hour: 0,
                day: 0,
            };
            return (
                Self {
                    read: 0,
                    creation: none,
                },
                Cap::All,
            );
        }
        let room = prompt_tokens - creation;
        if self.read > room {
            (
                Self {
                    read: room,
                    creation: self.creation,
                },
                Cap::Read,
            )
        } else {
            (self, Cap::None)
        }
    }

    /// The outcome that this split of an active model stands for.
    pub const fn outcome(&self) -> Outcome {
        match (self.read > 0, self.creation.total() > 0) {
            (true, false) => Outcome::Read,
            (false, true) => Outcome::CreateOnly,
            (true, true) => Outcome::ReadAndCreate,
            (false, false) => Outcome::ZeroActive,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(read: u64, creation: [u64; 3]) -> Split {
        let [five_minutes, one_hour, day] = creation;
        Split {
            read,
            creation: TierTokens {
                five_minutes,
                one_hour,
                day,
            },
        }
    }

    /// Dashboards and bills read these words.
    #[test]
    fn outcomes_are_called_what_they_were() {
        assert_eq!(
            Outcome::ALL.map(Outcome::as_str),
            [
                "read",
                "create_only",
                "read_and_create",
                "zero_active",
                "inactive",
                "aborted"
            ]
        );
    }

    #[test]
    fn one_token_decides_the_outcome() {
        assert_eq!(split(0, [0, 0, 0]).outcome(), Outcome::ZeroActive);
        assert_eq!(split(1, [0, 0, 0]).outcome(), Outcome::Read);
        for creation in [[1, 0, 0], [0, 1, 0], [0, 0, 1]] {
            assert_eq!(split(0, creation).outcome(), Outcome::CreateOnly);
            assert_eq!(split(1, creation).outcome(), Outcome::ReadAndCreate);
        }
    }

    #[test]
    fn cap_table() {
        let cases = [
            (
                split(100, [20, 0, 0]),
                120,
                split(100, [20, 0, 0]),
                Cap::None,
            ),
            (
                split(100, [20, 0, 0]),
                119,
                split(99, [20, 0, 0]),
                Cap::Read,
            ),
            (split(100, [20, 5, 0]), 25, split(0, [20, 5, 0]), Cap::Read),
            (split(100, [20, 5, 0]), 24, split(0, [0, 0, 0]), Cap::All),
            (split(0, [0, 0, 0]), 0, split(0, [0, 0, 0]), Cap::None),
            (split(1, [0, 0, 0]), 0, split(0, [0, 0, 0]), Cap::Read),
        ];
        for (full, prompt_tokens, shown, cap) in cases {
            assert_eq!(
                full.capped(prompt_tokens),
                (shown, cap),
                "{full:?} of {prompt_tokens}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_capped_split_never_exceeds_the_prompt(read: u64, creation: [u64; 3], prompt: u64) {
            let (shown, _) = split(read, creation).capped(prompt);
            let total = u128::from(shown.read) + u128::from(shown.creation.total());
            prop_assert!(total <= u128::from(prompt));
        }
    }
}
