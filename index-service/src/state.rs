//! What every request handler shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::announce::{Announced, Announcer};
use crate::bearer::Bearer;
use crate::clock::Clock;
use crate::config::Limits;
use crate::drift::Drift;
use crate::gates::Gates;
use crate::metrics::Metrics;
use crate::policy::Models;
use crate::principals::Principals;
use crate::refresh::RefreshQueue;
use crate::registry::Registry;
use crate::status::Status;
use crate::store::Store;
use crate::tokens::memory::Memory;
use crate::tokens::pool::Pool;

/// The service, shared by all connections.
pub struct Service {
    /// The ledger.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Active models.
    pub models: Models,
    /// What is said about them and the ledger.
    pub announcer: Announcer,
    /// Who may cache.
    pub principals: Principals,
    /// Counts that the ledger does not have yet.
    pub memory: Memory,
    /// How our counts follow the upstream's.
    pub drift: Drift,
    /// Threads for tokenizing.
    pub pool: Pool,
    /// Scopes that the store knows.
    pub registry: Registry,
    /// Refreshes on their way to the store.
    pub refreshes: RefreshQueue,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// What the status page shows.
    pub status: Status,
    /// Caps and deadlines.
    pub limits: Limits,
    /// What is in flight.
    pub gates: Gates,
    /// The token `/v1` asks for.
    pub bearer: Bearer,
    /// The token the purge asks for; without one it is off.
    pub admin: Option<Bearer>,
    /// Tokenizers are loaded and the sweeper runs.
    pub warm: AtomicBool,
    /// A shutdown has begun.
    pub stopping: AtomicBool,
}

impl Service {
    /// What the policy route answers now.
    ///
    /// # Errors
    /// When the policy cannot be written as JSON.
    pub async fn announce(&self) -> Result<Arc<Announced>, serde_json::Error> {
        let store = &*self.store;
        self.announcer
            .policy(&self.models, &self.principals, store, &self.metrics)
            .await
    }

    /// Whether start-up is over.
    pub fn is_warm(&self) -> bool {
        self.warm.load(Ordering::Acquire)
    }

    /// Whether a shutdown has begun.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}
