//! Start to finish of `serve`: opens the store, binds, warms up, serves, shuts down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpListener;

use crate::announce::Announcer;
use crate::bearer::Bearer;
use crate::clock::Clock;
use crate::config::accounts_file::AccountsFile;
use crate::config::{AccountsConfig, Config, StoreConfig};
use crate::drift::Drift;
use crate::gates::Gates;
use crate::metrics::Metrics;
use crate::policy::{ModelError, Models};
use crate::principals::Principals;
use crate::refresh::RefreshQueue;
use crate::registry::Registry;
use crate::state::Service;
use crate::status::Status;
use crate::store::Store;
use crate::store::embedded::EmbeddedStore;
use crate::store::postgres::PostgresStore;
use crate::store::redis::RedisStore;
use crate::tokens::memory::Memory;
use crate::tokens::pool::Pool;
use crate::upkeep::{self, AccountSource, FileSource, TableSource};
use crate::version::Build;
use crate::{http, server};

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The address is taken or not ours.
    #[error("cannot listen on {addr}: {error}")]
    Listen {
        /// The configured address.
        addr: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The store did not open.
    #[error("cannot open the store: {0}")]
    Store(#[from] crate::store::StoreError),
    /// A model's files do not load.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Something that no configuration should cause.
    #[error("{0}")]
    Other(String),
}

/// Opens the configured store. One behind a network is not waited for: until it answers, the
/// service is not ready.
///
/// # Errors
/// [`BootError::Store`].
pub fn open_store(config: &StoreConfig) -> Result<Arc<dyn Store>, BootError> {
    match config {
        StoreConfig::Embedded(embedded) => Ok(Arc::new(EmbeddedStore::open(embedded)?)),
        StoreConfig::Postgres(postgres) => Ok(Arc::new(PostgresStore::open(postgres)?)),
        StoreConfig::Redis(redis) => Ok(Arc::new(RedisStore::open(redis)?)),
    }
}

/// Puts the service together around a store and a clock. Needs a tokio runtime.
///
/// # Errors
/// [`BootError::Other`].
pub fn assemble(
    config: &Config,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Service>, BootError> {
    let metrics = Arc::new(Metrics::new());
    let flush_ms = config.store.refresh_flush_ms();
    let limits = config.limits.clone();
    let principals = match &config.accounts {
        AccountsConfig::None => Principals::new(config.principals.clone()),
        AccountsConfig::Table(_) => Principals::awaiting_accounts(config.principals.clone()),
        AccountsConfig::File(file) => {
            let accounts = AccountsFile::load(file).and_then(|file| file.map());
            let accounts = accounts.map_err(|error| BootError::Other(error.to_string()))?;
            metrics.accounts.set(accounts.len() as u64);
            let principals = Principals::new(config.principals.clone());
            principals.replace(accounts);
            principals
        }
    };
    Ok(Arc::new(Service {
        refreshes: RefreshQueue::start(Arc::clone(&store), flush_ms, Arc::clone(&metrics)),
        status: Status::new(config, clock.now_ms()),
        store,
        clock,
        models: Models::new(&config.models)?,
        announcer: Announcer::default(),
        registry: Registry::default(),
        principals,
        memory: Memory::new(),
        drift: Drift::new(
            config.drift,
            config.models.iter().map(|model| model.model.as_str()),
            &metrics,
        ),
        pool: Pool::new(
            limits.tokenize_concurrency_max,
            limits.tokenize_queue_max,
            limits.tokenize_timeout_ms,
        ),
        metrics,
        gates: Gates::new(&limits),
        bearer: Bearer::new(config.auth_token.as_ref()),
        admin: config
            .admin_token
            .as_ref()
            .map(|token| Bearer::new(Some(token))),
        limits,
        warm: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
    }))
}

/// Runs the service until `stop` resolves.
///
/// # Errors
/// When it cannot start.
pub async fn serve(
    config: Config,
    build: Build,
    clock: Arc<dyn Clock>,
    stop: impl Future<Output = ()>,
) -> Result<(), BootError> {
    let store = open_store(&config.store)?;
    let service = assemble(&config, Arc::clone(&store), Arc::clone(&clock))?;
    // Not before: what is wrong with a configuration is to be the only line.
    log_boot(&config, build);
    let listen = config.listen;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| BootError::Listen {
            addr: listen,
            error,
        })?;
    let addr = listener.local_addr().map_err(|error| BootError::Listen {
        addr: listen,
        error,
    })?;
    tracing::info!(%addr, "listening");

    let sweeper = tokio::spawn(upkeep::sweep(
        Arc::clone(&store),
        clock,
        Arc::clone(&service.metrics),
        config.sweep_interval_ms,
    ));
    let reloader = account_source(config.accounts)?
        .map(|source| tokio::spawn(upkeep::reload_accounts(Arc::clone(&service), source)));
    let warm = tokio::task::spawn_blocking({
        let service = Arc::clone(&service);
        move || {
            service.models.warm_up();
            service.warm.store(true, Ordering::Release);
            tracing::info!("ready");
        }
    });
    let looker = tokio::spawn(upkeep::keep_history(Arc::clone(&service)));
    let models = tokio::spawn(upkeep::refresh_models(
        Arc::clone(&service),
        config.tokenizer_poll_ms,
    ));
    server::serve(
        listener,
        http::router(Arc::clone(&service)).merge(http::version(build)),
        Arc::clone(&service),
        stop,
    )
    .await;

    sweeper.abort();
    looker.abort();
    models.abort();
    if let Some(reloader) = reloader {
        reloader.abort();
    }
    let _ = warm.await;
    service.refreshes.flush().await;
    store.close().await;
    tracing::info!("stopped");
    Ok(())
}

fn account_source(config: AccountsConfig) -> Result<Option<Box<dyn AccountSource>>, BootError> {
    Ok(match config {
        AccountsConfig::None => None,
        AccountsConfig::File(file) => Some(Box::new(FileSource::new(file))),
        AccountsConfig::Table(postgres) => Some(Box::new(TableSource::open(&postgres)?)),
    })
}

fn log_boot(config: &Config, build: Build) {
    let models: Vec<&str> = config
        .models
        .iter()
        .map(|model| model.model.as_str())
        .collect();
    let data_dir = match &config.store {
        StoreConfig::Embedded(embedded) => Some(embedded.data_dir.display().to_string()),
        StoreConfig::Postgres(_) | StoreConfig::Redis(_) => None,
    };
    tracing::info!(
        version = build.version(),
        git_commit = build.git_commit(),
        models = models.join(","),
        store = config.store.kind(),
        data_dir,
        auth = config.auth_token.is_some(),
        "starting"
    );
}
