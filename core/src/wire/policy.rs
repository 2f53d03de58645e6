//! What the service tells the edge about its models.

use serde::{Deserialize, Serialize};

use crate::ledger::Tier;

/// The active models. The filter refreshes it every `policy_refresh_ms`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Version of this document: 1 in every release.
    pub v: u32,
    /// The versions of the protocol that the service speaks. A service without that of the
    /// document names no models. Empty from one that is older than this member: it speaks `v`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub speaks: Vec<u32>,
    /// Opaque; changes when something that was answered before may no longer stand: the ledger
    /// is another one or was purged, or credentials belong to other accounts. Empty when the
    /// service does not know (yet).
    #[serde(default)]
    pub epoch: String,
    /// Models with a cache policy.
    pub models: Vec<ModelPolicy>,
}

/// The cache policy of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelPolicy {
    /// The `model` string that clients send.
    pub model: String,
    /// Enabled tiers, in configured order, at least one.
    pub tiers: Vec<Tier>,
    /// The tier of a marker without `ttl`; one of `tiers`.
    pub default_tier: Tier,
    /// The tier at which requests without any marker are cached; none: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto: Option<Tier>,
    /// The floor: prefixes below it are not written.
    pub min_prefix_tokens: u64,
    /// Digest of tokenizer and chat template.
    pub tokenizer_version: String,
}
