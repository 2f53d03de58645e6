//! Why something was not cached, not written or not served: one enum over the counters that say it.

use std::sync::atomic::Ordering;

use super::Status;
use crate::metrics::{ClassifyOutcome, CommitOutcome, Metrics, Shed, Tally as _, TokenizeOutcome};

macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $name:literal),+ $(,)?) => {
        /// Why something was not cached, not written or not served.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($(#[$doc])* $reason),+
        }

        impl Reason {
            /// How many there are.
            pub const COUNT: usize = [$(Self::$reason),+].len();
            /// Every reason, in the order of their numbers.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$reason),+];

            /// Its name in the report.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$reason => $name),+ }
            }
        }
    };
}

reasons! {
    /// The new part of the prefix is shorter than `min_prefix_tokens`.
    BelowFloor = "below_floor",
    /// The model has no policy.
    UnknownModel = "unknown_model",
    /// The principal is refused.
    UnknownPrincipal = "unknown_principal",
    /// The request was malformed.
    InvalidRequest = "invalid_request",
    /// The look-up failed.
    LookUpFailed = "look_up_failed",
    /// The tokenizer failed.
    CountFailed = "count_failed",
    /// Counting took too long.
    CountTimeout = "count_timeout",
    /// The text was larger than its tokenizer takes.
    CountTooLarge = "count_too_large",
    /// The model's counts have drifted and `drift.stop_writes` is set.
    DriftStopsWrites = "drift_stops_writes",
    /// A commit's entry was expired when it came.
    CommitExpired = "commit_expired",
    /// A commit for a model without policy.
    CommitUnknownModel = "commit_unknown_model",
    /// A commit of a principal that is refused.
    CommitUnknownPrincipal = "commit_unknown_principal",
    /// A commit counted by another tokenizer version.
    CommitOtherVersion = "commit_other_version",
    /// A commit for a tier that is not enabled.
    CommitTierDisabled = "commit_tier_disabled",
    /// The store failed; the filter delivers it again.
    CommitStoreError = "commit_store_error",
    /// `concurrency_max` requests were running.
    ShedConcurrency = "shed_concurrency",
    /// `tokenize_queue_max` prompts were waiting, or those that were would take too long.
    ShedTokenizeQueue = "shed_tokenize_queue",
    /// `text_bytes_in_flight_max` were held.
    ShedTextBytes = "shed_text_bytes",
    /// `request_timeout_ms` had passed.
    ShedTimeout = "shed_timeout",
    /// `connections_max` were open.
    ShedConnections = "shed_connections",
}

impl Reason {
    /// How often since the start.
    pub(super) fn total(self, metrics: &Metrics, status: &Status) -> u64 {
        let classify = |outcome| metrics.classify.counted(outcome);
        let count = |outcome| metrics.tokenize.counted(outcome);
        let commit = |outcome| metrics.commit_entries.counted(outcome);
        let shed = |reason| metrics.shed.counted(reason);
        match self {
            Self::BelowFloor => status.below_floor.load(Ordering::Relaxed),
            Self::DriftStopsWrites => status.writes_stopped.load(Ordering::Relaxed),
            Self::UnknownModel => classify(ClassifyOutcome::UnknownModel),
            Self::UnknownPrincipal => classify(ClassifyOutcome::UnknownPrincipal),
            Self::InvalidRequest => classify(ClassifyOutcome::Invalid),
            Self::LookUpFailed => classify(ClassifyOutcome::StoreError),
            Self::CountFailed => count(TokenizeOutcome::Failed),
            Self::CountTimeout => count(TokenizeOutcome::Timeout),
            Self::CountTooLarge => count(TokenizeOutcome::TooLarge),
            Self::CommitExpired => commit(CommitOutcome::Expired),
            Self::CommitUnknownModel => commit(CommitOutcome::UnknownModel),
            Self::CommitUnknownPrincipal => commit(CommitOutcome::UnknownPrincipal),
            Self::CommitOtherVersion => commit(CommitOutcome::OtherVersion),
            Self::CommitTierDisabled => commit(CommitOutcome::TierDisabled),
            Self::CommitStoreError => commit(CommitOutcome::StoreError),
            Self::ShedConcurrency => shed(Shed::Concurrency),
            Self::ShedTokenizeQueue => shed(Shed::TokenizeQueue),
            Self::ShedTextBytes => shed(Shed::TextBytes),
            Self::ShedTimeout => shed(Shed::Timeout),
            Self::ShedConnections => shed(Shed::Connections),
        }
    }
}
