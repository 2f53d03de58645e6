//! The protocol between the filter and the index service: JSON over HTTP/1.1, version 1.
//!
//! | call | request | answer |
//! |---|---|---|
//! | `POST /v1/classify` | [`ClassifyRequest`] as JSON | [`ClassifyAnswer`] |
//! | `POST /v1/classify` with [`TEXT_CONTENT_TYPE`] | the same JSON, `\n`, the request's body | [`ClassifyAnswer`], never `text_needed` |
//! | `POST /v1/commit` | [`CommitBatch`] | [`CommitAnswer`] |
//! | `GET /v1/policy` (`If-None-Match`) | | [`Policy`] with an `ETag`, or 304 |
//!
//! Every answer that is not 2xx (304 for the policy) is an error to the filter.

mod classify;
mod commit;
mod policy;

pub use classify::{Classified, ClassifyAnswer, ClassifyRequest, Lease, Uncached};
pub use commit::{Commit, CommitAnswer, CommitBatch, LeasedRead};
pub use policy::{ModelPolicy, Policy};

/// Version of this protocol; a request of another version is refused with 400.
pub const WIRE_VERSION: u32 = 1;
/// Content type of a classification that brings the prompt.
pub const TEXT_CONTENT_TYPE: &str = "application/vnd.prompt-cache.classify-text";
/// Path of the classification.
pub const CLASSIFY_PATH: &str = "/v1/classify";
/// Path of the commit.
pub const COMMIT_PATH: &str = "/v1/commit";
/// Path of the policy.
pub const POLICY_PATH: &str = "/v1/policy";
/// Path of the health probe (answers 200 when the store answers).
pub const READY_PATH: &str = "/readyz";
/// Commits one batch may carry.
pub const MAX_COMMITS_PER_BATCH: usize = 256;
/// Reads one batch may carry.
pub const MAX_READS_PER_BATCH: usize = 256;
