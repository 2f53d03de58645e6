//! The commit call: entries that successful requests earned, and reads that the edge answered.

use serde::{Deserialize, Serialize};

use crate::{
    PrefixHash,
    ledger::{Fingerprint, NewEntry},
};

/// A batch of at most [`super::MAX_COMMITS_PER_BATCH`] commits and
/// [`super::MAX_READS_PER_BATCH`] reads. Idempotent: the same batch twice is the same as once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitBatch {
    /// [`super::WIRE_VERSION`].
    pub v: u32,
    /// The commits, oldest first.
    pub commits: Vec<Commit>,
    /// Reads that the edge answered from its leases, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<LeasedRead>,
}

/// A read that the edge answered without a callout: it extends lives as a classified one does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasedRead {
    /// Who read.
    pub principal: Fingerprint,
    /// The request's `model` string.
    pub model: String,
    /// Version of the tokenizer that counted the entries; a read of another one is dropped.
    pub tokenizer_version: String,
    /// Milliseconds since the read: expiry = now - age + the entry's own tier.
    pub age_ms: u64,
    /// The hit, and the breakpoints above it, live or not; at most
    /// [`crate::ledger::MAX_BREAKPOINTS`].
    pub hashes: Vec<PrefixHash>,
    /// Tokens read of the hit since it was last reported, this read included: for the metrics.
    pub read_tokens: u64,
}

/// The entries of one successful request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitAnswer {
    /// Entries written or already there.
    pub written: u64,
    /// Entries dropped because model, principal or tokenizer version are not (or no longer) served.
    pub dropped: u64,
    /// Reads dropped for the same reasons.
    #[serde(default)]
    pub reads_dropped: u64,
    /// The [`super::Policy::epoch`] this was answered in.
    #[serde(default)]
    pub epoch: String,
}
