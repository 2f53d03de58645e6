//! The filter's view of the policy: which models are active.

use std::collections::HashMap;

use crate::wire::{ModelPolicy, Policy, WIRE_VERSIONS, common_version};

/// The last policy the service answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum PolicyView {
    /// The service has never answered: no model is active.
    #[default]
    Unknown,
    /// The service speaks no version of the protocol that the filter does.
    Foreign,
    /// What it said.
    Known {
        /// See [`Policy::epoch`].
        epoch: String,
        /// The active models by name.
        models: HashMap<String, ModelPolicy>,
    },
}

impl PolicyView {
    /// Reads a policy answer; `None` if it is not one.
    // Inline: compiled where it is called, for size, not as fast as the rest of `core`.
    #[inline]
    pub fn parse(json: &[u8]) -> Option<Self> {
        let policy: Policy = serde_json::from_slice(json).ok()?;
        let spoken = match policy.speaks.as_slice() {
            [] => &[policy.v],
            spoken => spoken,
        };
        if common_version(&WIRE_VERSIONS, spoken).is_none() {
            return Some(Self::Foreign);
        }
        if policy.models.iter().any(|m| m.tiers.is_empty()) {
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
            Self::Unknown | Self::Foreign => None,
            Self::Known { models, .. } => models.get(name),
        }
    }

    /// What the service calls the present state of affairs.
    pub fn epoch(&self) -> &str {
        match self {
            Self::Unknown | Self::Foreign => "",
            Self::Known { epoch, .. } => epoch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_says_which_versions_are_spoken() {
        type Is = fn(&PolicyView) -> bool;
        let models = r#""models":[{"model":"m","tiers":["5m"],"default_tier":"5m","min_prefix_tokens":1,"tokenizer_version":"t","later":{}}]"#;
        let known = |view: &PolicyView| matches!(view, PolicyView::Known { .. });
        let foreign = |view: &PolicyView| matches!(view, PolicyView::Foreign);
        let table: [(String, Is); 6] = [
            (format!(r#"{{"v":1,{models}}}"#), known),
            (format!(r#"{{"v":1,"speaks":[1],"later":7,{models}}}"#), known),
            (format!(r#"{{"v":1,"speaks":[3,2,1],{models}}}"#), known),
            (r#"{"v":1,"speaks":[2,3],"models":[]}"#.to_owned(), foreign),
            (r#"{"v":2,"models":[]}"#.to_owned(), foreign),
            // What it says beside is of no interest.
            (
                r#"{"v":2,"models":[{"model":"m","tiers":[],"default_tier":"5m","min_prefix_tokens":1,"tokenizer_version":"t"}]}"#.to_owned(),
                foreign,
            ),
        ];
        for (json, is) in table {
            let view = PolicyView::parse(json.as_bytes());
            assert!(view.as_ref().is_some_and(is), "{json}: {view:?}");
        }
        assert_eq!(PolicyView::parse(br#"{"v":1}"#), None);
        let epoch = PolicyView::parse(br#"{"v":1,"epoch":"e","models":[]}"#);
        assert_eq!(epoch.unwrap().epoch(), "e");
        let foreign = PolicyView::Foreign;
        assert!(foreign.model("m").is_none() && foreign.epoch().is_empty());
    }
}
