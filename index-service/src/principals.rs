//! Who may cache: decides whether a fingerprint is served.

use prompt_cache_core::wire::Fingerprint;

use crate::config::PrincipalsConfig;

/// The principals this service serves.
#[derive(Clone, Debug)]
pub struct Principals(PrincipalsConfig);

impl Principals {
    /// As configured.
    pub const fn new(config: PrincipalsConfig) -> Self {
        Self(config)
    }

    /// The account that owns the entries of `fingerprint`, or `None` when it is refused. Every
    /// fingerprint is its own account.
    pub fn account_of(&self, fingerprint: &Fingerprint) -> Option<Fingerprint> {
        match &self.0 {
            PrincipalsConfig::Any => Some(*fingerprint),
            PrincipalsConfig::Known(known) => known.get(fingerprint).copied(),
        }
    }
}
