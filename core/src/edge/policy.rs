//! The filter's view of the policy: which models are active.

use std::collections::HashMap;

use crate::wire::{ModelPolicy, Policy, WIRE_VERSION};

/// The last policy the service answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum PolicyView {
    /// The service has never answered: no model is active.
    #[default]
    Unknown,
    /// What it said.
    Known {
        /// See [`Policy::epoch`].
        epoch: String,
        /// The active models by name.
        models: HashMap<String, ModelPolicy>,
    },
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
        let models = policy.models.into_iter().map(|m| (m.model.clone(), m));
        Some(Self::Known {
            epoch: policy.epoch,
            models: models.collect(),
        })
    }

    /// The policy of an active model.
    pub fn model(&self, name: &str) -> Option<&ModelPolicy> {
        match self {
            Self::Unknown => None,
            Self::Known { models, .. } => models.get(name),
        }
    }

    /// What the service calls the present state of affairs.
    pub fn epoch(&self) -> &str {
        match self {
            Self::Unknown => "",
            Self::Known { epoch, .. } => epoch,
        }
    }
}
