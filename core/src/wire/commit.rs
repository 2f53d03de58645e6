//! The commit call: entries that successful requests earned.

use serde::{Deserialize, Serialize};

use super::principal::Fingerprint;
use crate::ledger::NewEntry;

/// A batch of commits, at most [`super::MAX_COMMITS_PER_BATCH`]. Idempotent: the same batch
/// twice is the same as once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitBatch {
    /// [`super::WIRE_VERSION`].
    pub v: u32,
    /// The commits, oldest first.
    pub commits: Vec<Commit>,
}

/// The entries of one successful request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// Who paid.
    pub principal: Fingerprint,
    /// The request's `model` string.
    pub model: String,
    /// As answered by the classification; a commit for another version is dropped.
    pub tokenizer_version: String,
    /// Milliseconds since the response was complete: expiry = now - age + tier, so that a
    /// repeated delivery does not lengthen an entry's life.
    pub age_ms: u64,
    /// The upstream's own count, to measure drift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
    /// Our count of the same, as answered by the classification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_prompt_tokens: Option<u64>,
    /// What to write.
    pub writes: Vec<NewEntry>,
}

/// How a batch was received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitAnswer {
    /// Entries written or already there.
    pub written: u64,
    /// Entries dropped because model, principal or tokenizer version are not (or no longer) served.
    pub dropped: u64,
}
