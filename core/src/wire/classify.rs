//! The classification call.

use serde::{Deserialize, Serialize};

use crate::{
    PrefixHash,
    api::Api,
    ledger::{Breakpoint, Candidate, Fingerprint, NewEntry, Split, Tier},
};

/// Asks which prefix is live and what this request will write.
///
/// At most four breakpoints and 80 candidates, both ascending by block without repeats; every
/// breakpoint's block is among the candidates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassifyRequest {
    /// [`super::WIRE_VERSION`].
    pub v: u32,
    /// The API that the prompt speaks, when it comes along.
    #[serde(default, skip_serializing_if = "Api::is_chat")]
    pub api: Api,
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

impl ClassifyAnswer {
    /// Reads an answer as its `Deserialize` does, in two passes: the derived one first copies
    /// the answer into a tree, which is a thirtieth of the filter's module.
    ///
    /// # Errors
    /// When it is no such answer.
    // Inline: compiled where it is called, for size, not as fast as the rest of `core`.
    #[inline]
    pub fn parse(json: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Status {
            Ok,
            TextNeeded,
            Inactive,
        }
        #[derive(Deserialize)]
        struct Head {
            status: Status,
            #[serde(default)]
            read: u64,
            reason: Option<Uncached>,
        }
        let head: Head = serde_json::from_slice(json)?;
        match (head.status, head.reason) {
            (Status::Ok, _) => serde_json::from_slice(json).map(Self::Ok),
            (Status::TextNeeded, _) => Ok(Self::TextNeeded { read: head.read }),
            (Status::Inactive, Some(reason)) => Ok(Self::Inactive { reason }),
            (Status::Inactive, None) => Err(serde::de::Error::missing_field("reason")),
        }
    }
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
    /// The [`super::Policy::epoch`] this was answered in; leases of another one are void.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub epoch: String,
    /// Entries at the hit and at breakpoints above it that the edge may trust.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<Lease>,
    /// Tokens of the deepest breakpoint's prefix, where they are below the floor and nothing of
    /// it is live: under the same floor the same request is all zeros again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_of_floor: Option<u64>,
    /// Our count of the whole prompt, where it was counted: echoed in the commit, which is sent
    /// for its sake even where there is nothing to write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_prompt_tokens: Option<u64>,
}

/// A live entry. Its life can only grow, so whoever heard of it may rely on it for `ttl_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Identity of the prefix.
    pub hash: PrefixHash,
    /// Tokens of the whole prefix.
    pub tokens: u32,
    /// The tier it was written with.
    pub tier: Tier,
    /// What was left of its life when the service looked, in milliseconds.
    pub ttl_ms: u64,
}

/// Why the service does not cache a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Uncached {
    /// No cache policy for this model.
    UnknownModel,
    /// The principal is not known and the configuration refuses such.
    UnknownPrincipal,
    /// What a newer service says and this release has no name for. Never sent.
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_reads_what_the_derived_deserializer_reads() {
        let table = [
            r#"{"status":"ok","tokenizer_version":"v","split":{"read":5,"creation":{"5m":1}},"writes":[],"new_member":1}"#,
            r#"{"tokenizer_version":"v","split":{"read":5,"creation":{}},"writes":[],"epoch":"e","status":"ok"}"#,
            r#"{"status":"ok","split":{"read":5,"creation":{}},"writes":[]}"#,
            r#"{"status":"text_needed"}"#,
            r#"{"status":"text_needed","read":7}"#,
            r#"{"status":"inactive","reason":"unknown_model"}"#,
            r#"{"status":"inactive","reason":"unknown_principal"}"#,
            r#"{"status":"inactive","reason":"other"}"#,
            r#"{"status":"inactive"}"#,
            r#"{"status":"nonsense"}"#,
            r#"{"read":7}"#,
            "[]",
            "",
        ];
        for json in table {
            let derived = serde_json::from_str::<ClassifyAnswer>(json).ok();
            let parsed = ClassifyAnswer::parse(json.as_bytes()).ok();
            assert_eq!(parsed, derived, "{json}");
        }
        assert!(
            table
                .iter()
                .filter(|json| ClassifyAnswer::parse(json.as_bytes()).is_ok())
                .count()
                == 7
        );
    }
}
