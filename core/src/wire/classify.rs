//! The classification call.

use serde::{Deserialize, Serialize};

use super::principal::Fingerprint;
use crate::ledger::{Breakpoint, Candidate, NewEntry, Split};

/// Asks which prefix is live and what this request will write.
///
/// At most four breakpoints and 80 candidates, both ascending by block without repeats; every
/// breakpoint's block is among the candidates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifyRequest {
    /// [`super::WIRE_VERSION`].
    pub v: u32,
    /// Who pays.
    pub principal: Fingerprint,
    /// The request's `model` string.
    pub model: String,
    /// Where the client wants entries.
    pub breakpoints: Vec<Breakpoint>,
    /// The boundaries that may be live.
    pub candidates: Vec<Candidate>,
}

/// The answer to a classification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ClassifyAnswer {
    /// The split, and the entries to commit if the request succeeds.
    Ok(Classified),
    /// A prefix is new: send the same request again with the prompt.
    TextNeeded {
        /// Tokens of the live prefix before it. They are read whatever becomes of the count.
        #[serde(default)]
        read: u64,
    },
    /// This request is not cached.
    Inactive {
        /// Why.
        reason: Uncached,
    },
}

/// A classified request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classified {
    /// Version of the tokenizer that counted: part of the scope, echoed in the commit.
    pub tokenizer_version: String,
    /// Tokens read and created.
    pub split: Split,
    /// The pending write; empty when nothing is to be committed.
    pub writes: Vec<NewEntry>,
    /// Our count of the whole prompt, where it was counted: echoed in the commit, which is sent
    /// for its sake even where there is nothing to write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_prompt_tokens: Option<u64>,
}

/// Why the service does not cache a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Uncached {
    /// No cache policy for this model.
    UnknownModel,
    /// The principal is not known and the configuration refuses such.
    UnknownPrincipal,
}
