//! Whether requests can be served, and what is missing if not.

use std::time::Duration;

use crate::metrics::{StoreOperation, Tally};
use crate::state::Service;

/// Longest wait for the store's answer to a probe.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Why requests cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// A shutdown has begun.
    #[error("the service is stopping")]
    Stopping,
    /// Start-up is not over.
    #[error("the service is starting")]
    Starting,
    /// A model's tokenizer, by the model's name.
    #[error("the tokenizer of {0:?} is not loaded yet")]
    ModelLoading(String),
    /// The accounts have not been read.
    #[error("{0}")]
    Accounts(String),
    /// The store does not answer.
    #[error("the store does not answer")]
    Store,
}

impl NotReady {
    /// What it says to programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Stopping => "stopping",
            Self::Starting => "starting",
            Self::ModelLoading(_) => "model_loading",
            Self::Accounts(_) | Self::Store => "store_unavailable",
        }
    }
}

/// Whether tokenizers are loaded, accounts are known and the store answers.
///
/// # Errors
/// With what is missing.
pub async fn readiness(service: &Service) -> Result<(), NotReady> {
    if service.is_stopping() {
        return Err(NotReady::Stopping);
    }
    if !service.is_warm() {
        return Err(NotReady::Starting);
    }
    if let Some(model) = service.models.pending() {
        return Err(NotReady::ModelLoading(model));
    }
    if let Err(error) = service.principals.check_loaded() {
        return Err(NotReady::Accounts(error.to_string()));
    }
    match tokio::time::timeout(PING_TIMEOUT, service.store.ping()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => {
            service.metrics.store_errors.count(StoreOperation::Ping);
            Err(NotReady::Store)
        }
    }
}
