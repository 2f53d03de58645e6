//! What a scope stands for: a purge chooses scopes by it.

pub use prompt_cache_core::ledger::{Fingerprint, SCOPE_BYTES, Scope};

/// What a scope stands for: a purge chooses scopes by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScopeInfo {
    /// The account that owns the entries.
    pub account: Fingerprint,
    /// The model, at most [`crate::config::MODEL_NAME_BYTES_MAX`].
    pub model: String,
    /// Version of the tokenizer that counted them.
    pub tokenizer_version: String,
}

impl ScopeInfo {
    /// The scope these three make.
    pub fn scope(&self) -> Scope {
        Scope::of(&self.account, &self.model, &self.tokenizer_version)
    }
}
