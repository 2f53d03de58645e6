//! The filter's view of the policy: which models are active.

use std::collections::HashMap;

use crate::wire::{ModelPolicy, Policy, WIRE_VERSION};

/// The last policy the service answered.
#[derive(Debug, Default)]
pub enum PolicyView {
    /// The service has never answered: no model is active.
    #[default]
    Unknown,
    /// The active models by name.
    Known(HashMap<String, ModelPolicy>),
}

impl PolicyView {
    /// Reads a policy answer; `None` if it is not one of this version.
    // Inline: compiled where it is called, for size, not as fast as the rest of `core`.
    #[inline]
    pub fn parse(json: &[u8]) -> Option<Self> {
        let policy: Policy = serde_json::from_slice(json).ok()?;
        if policy.v != WIRE_VERSION || policy.models.iter().any(|m| m.tiers.is_empty()) {
            return None;
        }
        Some(Self::Known(
            policy
                .models
                .into_iter()
                .map(|m| (m.model.clone(), m))
                .collect(),
        ))
    }

    /// The policy of an active model.
    pub fn model(&self, name: &str) -> Option<&ModelPolicy> {
        match self {
            Self::Unknown => None,
            Self::Known(models) => models.get(name),
        }
    }
}
