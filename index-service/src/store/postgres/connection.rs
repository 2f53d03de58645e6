//! Connections: the pool, its deadlines, the first migration, and the one second try.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::{
    ClientWrapper, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
    Timeouts,
};
use tokio::sync::Mutex;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, Transaction};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::migrate::{Outcome, migrate};
use super::operations::Operation;
use crate::config::PostgresConfig;
use crate::store::{StoreError, tls};

/// Longest time for the migrations of one start.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(3600);

/// A pool of connections to migrated tables.
pub struct Connector {
    pool: Pool,
    tables: Arc<Tables>,
    operation_timeout: Duration,
    retries: AtomicU64,
}

/// What is known of the tables.
struct Tables {
    schema: String,
    ready: AtomicBool,
    /// Held by the one that migrates.
    gate: Arc<Mutex<()>>,
}

/// Why an operation failed on a connection.
enum Failure {
    /// The connection is gone: what was asked may or may not have happened.
    Severed(Error),
    Other(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Other(error)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Severed(error) => failed(&error),
            Failure::Other(error) => error,
        }
    }
}

impl Connector {
    /// A pool that connects when it is first used.
    ///
    /// # Errors
    /// When `ca_file` cannot be read.
    pub fn new(config: &PostgresConfig) -> Result<Self, StoreError> {
        let ms = Duration::from_millis;
        let mut target: Config = config
            .url
            .expose()
            .parse()
            .map_err(|error| failed(&error))?;
        prepare(&mut target, config);
        let manager_config = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = if target.get_ssl_mode() == SslMode::Disable {
            Manager::from_config(target, tokio_postgres::NoTls, manager_config)
        } else {
            // Without TLS the password and the ledger would cross the network readable.
            target.ssl_mode(SslMode::Require);
            let tls = MakeRustlsConnect::new(tls::client_config(config.ca_file.as_deref())?);
            Manager::from_config(target, tls, manager_config)
        };
        let pool = Pool::builder(manager)
            .max_size(config.connections_max)
            .timeouts(Timeouts {
                wait: Some(ms(config.acquire_timeout_ms)),
                create: Some(ms(config.connect_timeout_ms)),
                recycle: Some(ms(config.connect_timeout_ms)),
            })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Failed(error.to_string()))?;
        Ok(Self {
            pool,
            tables: Arc::new(Tables {
                schema: config.schema.clone(),
                ready: AtomicBool::new(false),
                gate: Arc::default(),
            }),
            operation_timeout: ms(config.operation_timeout_ms),
            retries: AtomicU64::new(0),
        })
    }

    /// Does it, at most twice and within the deadline of an operation.
    pub async fn perform<O: Operation>(&self, operation: &O) -> Result<O::Answer, StoreError> {
        tokio::time::timeout(self.operation_timeout, self.attempts(operation))
            .await
            .unwrap_or_else(|_| Err(StoreError::Failed("no answer in time".to_owned())))
    }

    /// Does it once, in a transaction that is gone unless `work` commits it.
    pub async fn transact<T, E: From<StoreError>>(
        &self,
        work: impl AsyncFnOnce(Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let attempt = async {
            self.make_ready().await?;
            let mut lease = Lease::of(&self.pool).await?;
            let client: &mut Client = lease.client_mut()?;
            let transaction = client.transaction().await.map_err(|error| failed(&error))?;
            let outcome = work(transaction).await?;
            lease.give_back();
            Ok(outcome)
        };
        tokio::time::timeout(self.operation_timeout, attempt)
            .await
            .unwrap_or_else(|_| Err(StoreError::Failed("no answer in time".to_owned()).into()))
    }

    /// Second tries since the start.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    pub fn close(&self) {
        self.pool.close();
    }

    async fn attempts<O: Operation>(&self, operation: &O) -> Result<O::Answer, StoreError> {
        self.make_ready().await?;
        match self.attempt(operation).await {
            Err(Failure::Severed(error)) => {
                tracing::warn!(error = %describe(&error), "connection lost, trying once more");
                self.retries.fetch_add(1, Ordering::Relaxed);
                // What ended one connection has most likely ended the idle ones as well.
                self.pool.retain(|_, _| false);
                Ok(self.attempt(operation).await?)
            }
            other => Ok(other?),
        }
    }

    async fn attempt<O: Operation>(&self, operation: &O) -> Result<O::Answer, Failure> {
        let lease = Lease::of(&self.pool).await?;
        let answer = operation.run(lease.client()?).await;
        match answer {
            Err(error) if is_severed(&error) => Err(Failure::Severed(error)),
            Err(error) => {
                lease.give_back();
                if is_missing_table(&error) {
                    // Somebody has dropped or replaced the database: start over.
                    self.tables.ready.store(false, Ordering::Release);
                }
                Err(Failure::Other(failed(&error)))
            }
            Ok(answer) => {
                lease.give_back();
                Ok(answer)
            }
        }
    }

    /// Returns when the tables are there. The migration runs in a task of its own, so that an
    /// operation whose time is up does not cut it off.
    async fn make_ready(&self) -> Result<(), StoreError> {
        if self.tables.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let guard = Arc::clone(&self.tables.gate).lock_owned().await;
        if self.tables.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let (pool, tables) = (self.pool.clone(), Arc::clone(&self.tables));
        let migration = tokio::spawn(async move {
            let _guard = guard;
            let mut lease = Lease::of(&pool).await?;
            let migrating = migrate(lease.client_mut()?, &tables.schema);
            let outcome = tokio::time::timeout(MIGRATION_TIMEOUT, migrating)
                .await
                .map_err(|_| StoreError::Failed("the migration took too long".to_owned()))?
                .map_err(|error| failed(&error))?;
            lease.give_back();
            match outcome {
                Outcome::Ready => {
                    tables.ready.store(true, Ordering::Release);
                    Ok(())
                }
                Outcome::Newer(version) => Err(StoreError::Failed(format!(
                    "the schema {} is at version {version}, newer than this service",
                    tables.schema
                ))),
            }
        });
        migration.await.unwrap_or(Err(StoreError::Closed))
    }
}

/// Session settings, which also hold for what the URL does not say.
fn prepare(target: &mut Config, config: &PostgresConfig) {
    let mut options = target.get_options().unwrap_or_default().to_owned();
    // The statements are written for their indexes. A plan that was made while the table was
    // small must not scan it when it is large.
    options.push_str(&format!(
        " -c search_path={} -c statement_timeout={} -c enable_seqscan=off -c jit=off",
        config.schema, config.operation_timeout_ms
    ));
    target.options(options);
    target.connect_timeout(Duration::from_millis(config.connect_timeout_ms));
    if target.get_application_name().is_none() {
        target.application_name("prompt-cache-index");
    }
}

/// A connection that goes back to the pool only when it is known to be idle. One that is dropped
/// in the middle of a statement would make the next user wait for an answer to somebody else.
struct Lease(Option<Object>);

impl Lease {
    async fn of(pool: &Pool) -> Result<Self, StoreError> {
        match pool.get().await {
            Ok(object) => Ok(Self(Some(object))),
            Err(PoolError::Timeout(deadpool_postgres::TimeoutType::Wait)) => Err(StoreError::Busy),
            Err(PoolError::Closed) => Err(StoreError::Closed),
            Err(PoolError::Backend(error)) => Err(failed(&error)),
            Err(error) => Err(StoreError::Failed(error.to_string())),
        }
    }

    fn client(&self) -> Result<&ClientWrapper, StoreError> {
        self.0.as_deref().ok_or(StoreError::Closed)
    }

    fn client_mut(&mut self) -> Result<&mut ClientWrapper, StoreError> {
        self.0.as_deref_mut().ok_or(StoreError::Closed)
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

/// Whether the connection is of no more use, so that a fresh one may do better: it broke, the
/// server ended it, or its server no longer takes writes.
fn is_severed(error: &Error) -> bool {
    const ENDED: [&SqlState; 3] = [
        &SqlState::ADMIN_SHUTDOWN,
        &SqlState::CRASH_SHUTDOWN,
        &SqlState::READ_ONLY_SQL_TRANSACTION,
    ];
    error.is_closed()
        || error
            .source()
            .is_some_and(|source| source.is::<std::io::Error>())
        || error.code().is_some_and(|code| ENDED.contains(&code))
}

fn is_missing_table(error: &Error) -> bool {
    error
        .code()
        .is_some_and(|code| *code == SqlState::UNDEFINED_TABLE)
}

pub fn failed(error: &Error) -> StoreError {
    StoreError::Failed(describe(error))
}

/// The error and what is behind it, without a database error's details, which quote values.
fn describe(error: &Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(database), _) => format!("{} {}", database.code().code(), database.message()),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}
