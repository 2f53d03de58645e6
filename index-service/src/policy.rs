//! The active models: what the filter is told about them, and what counts their tokens.

use std::collections::HashMap;
use std::sync::Arc;

use prompt_cache_core::wire::{ModelPolicy, Policy, WIRE_VERSION};

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
    policy: Policy,
    body: bytes::Bytes,
    etag: String,
}

impl Models {
    /// The configured models. Those with the same encoding share its token source.
    ///
    /// # Errors
    /// When the policy cannot be written as JSON.
    pub fn new(configs: &[ModelConfig]) -> Result<Self, serde_json::Error> {
        let mut sources: HashMap<Encoding, Arc<dyn TokenSource>> = HashMap::new();
        let mut by_name = HashMap::with_capacity(configs.len());
        let mut models = Vec::with_capacity(configs.len());
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
            models.push(policy.clone());
            by_name.insert(config.model.clone(), ActiveModel { policy, tokens });
        }
        let policy = Policy {
            v: WIRE_VERSION,
            models,
        };
        let body = serde_json::to_vec(&policy)?;
        let digest: String = blake3::hash(&body).to_hex().chars().take(32).collect();
        Ok(Self {
            by_name,
            policy,
            body: body.into(),
            etag: format!("\"{digest}\""),
        })
    }

    /// The model of that name.
    pub fn get(&self, model: &str) -> Option<&ActiveModel> {
        self.by_name.get(model)
    }

    /// What the filter is told, in the order of the configuration.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The policy as JSON; the same bytes as long as the policy is the same.
    pub fn policy_body(&self) -> bytes::Bytes {
        self.body.clone()
    }

    /// A strong entity tag of [`Models::policy_body`], with its quotes.
    pub fn policy_etag(&self) -> &str {
        &self.etag
    }

    /// Loads every tokenizer. Blocking.
    pub fn warm_up(&self) {
        for model in self.by_name.values() {
            model.tokens.warm_up();
        }
    }
}
