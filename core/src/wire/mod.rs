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
//!
//! # Versions
//!
//! Filters and services of different releases meet whenever one of them is upgraded, so:
//!
//! - Within a version, messages only gain members. Both sides ignore members that they do not know,
//!   so a new one must be optional, and harmless to whoever ignores it. No member is renamed,
//!   removed or becomes required; `tests/wire_fixtures.rs` holds all of that against messages of
//!   older releases.
//! - A new value of an enumeration in a request (an API, a tier) is refused by a service that does
//!   not know it, with 400: the filter counts `classify_refused`, and neither the breaker nor other
//!   requests notice. A service answers with new values only to a filter that gave reason to.
//! - What cannot be done that way is a new version, with paths of its own. `GET /v1/policy` stays in
//!   every release, and says in [`Policy::speaks`] which versions the service speaks; the filter
//!   takes the highest that both speak ([`common_version`]). Where there is none, it asks nothing
//!   else, counts `wire_version`, and goes on reading the policy.

mod classify;
mod commit;
mod policy;

pub use classify::{Classified, ClassifyAnswer, ClassifyRequest, Lease, Uncached};
pub use commit::{Commit, CommitAnswer, CommitBatch, LeasedRead};
pub use policy::{ModelPolicy, Policy};

/// Version of this protocol; a request of another version is refused with 400.
pub const WIRE_VERSION: u32 = 1;
/// Every version that this release speaks.
pub const WIRE_VERSIONS: [u32; 1] = [WIRE_VERSION];
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

/// The highest version that both sides speak.
pub fn common_version(ours: &[u32], theirs: &[u32]) -> Option<u32> {
    let theirs = theirs.iter().copied();
    theirs.filter(|version| ours.contains(version)).max()
}

#[cfg(test)]
mod tests {
    use super::common_version;

    #[test]
    fn the_highest_common_version_is_spoken() {
        let table: [(&[u32], &[u32], Option<u32>); 6] = [
            (&[1], &[1], Some(1)),
            (&[1], &[1, 2], Some(1)),
            (&[1, 2], &[1], Some(1)),
            (&[1, 2, 3], &[4, 3, 2], Some(3)),
            (&[1], &[2, 3], None),
            (&[1], &[], None),
        ];
        for (ours, theirs, common) in table {
            assert_eq!(common_version(ours, theirs), common, "{ours:?} {theirs:?}");
        }
    }
}
