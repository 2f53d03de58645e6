//! The active models: what the filter is told about them, and what counts their tokens.

use std::collections::HashMap;
use std::sync::Arc;

use prompt_cache_core::wire::ModelPolicy;

use crate::config::ModelConfig;
use crate::tokens::{Encoding, TokenSource, builtin};

/// A model with a cache policy.
pub struct ActiveModel {
    /// What the filter is told.
    pub policy: ModelPolicy,
    /// What counts its tokens.
    pub tokens: Arc<dyn TokenSource>,
}

/// All active models.
pub struct Models {
    by_name: HashMap<String, ActiveModel>,
    policies: Vec<ModelPolicy>,
}

impl Models {
    /// The configured models. Those with the same encoding share its token source.
    pub fn new(configs: &[ModelConfig]) -> Self {
        let mut sources: HashMap<Encoding, Arc<dyn TokenSource>> = HashMap::new();
        let mut by_name = HashMap::with_capacity(configs.len());
        let mut policies = Vec::with_capacity(configs.len());
        for config in configs {
            let source = sources.entry(config.encoding);
            let tokens = Arc::clone(source.or_insert_with(|| builtin(config.encoding)));
            let policy = ModelPolicy {
                model: config.model.clone(),
                tiers: config.tiers.clone(),
                default_tier: config.default_tier,
                min_prefix_tokens: config.min_prefix_tokens,
                tokenizer_version: tokens.version().to_owned(),
            };
            policies.push(policy.clone());
            by_name.insert(config.model.clone(), ActiveModel { policy, tokens });
        }
        Self { by_name, policies }
    }

    /// The model of that name.
    pub fn get(&self, model: &str) -> Option<&ActiveModel> {
        self.by_name.get(model)
    }

    /// What the filter is told, in the order of the configuration.
    pub fn policies(&self) -> &[ModelPolicy] {
        &self.policies
    }

    /// Loads every tokenizer. Blocking.
    pub fn warm_up(&self) {
        for model in self.by_name.values() {
            model.tokens.warm_up();
        }
    }
}
