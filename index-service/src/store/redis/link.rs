//! The way to Redis: one multiplexed connection per node, its deadlines, and the one second try.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, Slot, SlotAddr};
use redis::{Client, Cmd, Pipeline, RedisError, RedisFuture, RedisResult, TlsCertificates, Value};
use tokio::sync::Mutex;

use crate::config::RedisConfig;
use crate::store::StoreError;

/// Commands that may wait for their turn on a connection; more wait in their callers.
const COMMANDS_QUEUED_MAX: usize = 1024;
/// Times a cluster command is sent again after a redirect or while a replica takes over; the
/// operation's deadline ends it earlier.
const CLUSTER_RETRIES: u32 = 16;
/// Pauses between those.
const CLUSTER_RETRY_MS_MIN: u64 = 20;
const CLUSTER_RETRY_MS_MAX: u64 = 200;

/// A connection; clones share it.
#[derive(Clone)]
pub enum Link {
    Single(ConnectionManager),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

impl Link {
    /// Sends a command without a key to the primary of a slot.
    pub async fn ask_node(&mut self, slot: u16, command: Cmd) -> RedisResult<Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(&command).await,
            Self::Cluster(connection) => {
                let slot = Slot::new(slot).ok_or((redis::ErrorKind::Client, "no such slot"))?;
                let route = Route::with_slot(slot, SlotAddr::Master);
                let node = SingleNodeRoutingInfo::SpecificNode(route);
                connection
                    .route_command(command, RoutingInfo::SingleNode(node))
                    .await
            }
        }
    }
}

/// Something to do on a connection. May be done twice, so it must be the same as once.
pub trait Operation: Sync {
    type Answer: Send;

    fn run(&self, link: Link) -> impl Future<Output = RedisResult<Self::Answer>> + Send;
}

enum Target {
    Single(Box<Client>),
    Cluster(Box<ClusterClient>),
}

/// Connects when it is first used, and again after silence.
pub struct Connector {
    target: Target,
    connect_timeout: Duration,
    operation_timeout: Duration,
    current: Mutex<Current>,
    retries: AtomicU64,
}

#[derive(Default)]
enum Current {
    #[default]
    None,
    Open(Link),
    Closed,
}

impl Connector {
    /// # Errors
    /// When `ca_file` cannot be read, or the URLs do not go together.
    pub fn new(config: &RedisConfig) -> Result<Self, StoreError> {
        let (connect_timeout, operation_timeout) = (
            Duration::from_millis(config.connect_timeout_ms),
            Duration::from_millis(config.operation_timeout_ms),
        );
        Ok(Self {
            target: target(config, connect_timeout, operation_timeout)?,
            connect_timeout,
            operation_timeout,
            current: Mutex::default(),
            retries: AtomicU64::new(0),
        })
    }

    /// Does it, at most twice and within the deadline of an operation.
    pub async fn perform<O: Operation>(&self, operation: &O) -> Result<O::Answer, StoreError> {
        let attempts = self.attempts(operation);
        match tokio::time::timeout(self.operation_timeout, attempts).await {
            Ok(answer) => answer.map_err(|error| failed(&error)),
            Err(_) => {
                // A connection that has gone silent may stay so for a quarter of an hour before
                // the system gives it up.
                let mut current = self.current.lock().await;
                if matches!(*current, Current::Open(_)) {
                    *current = Current::None;
                }
                Err(StoreError::Failed("no answer in time".to_owned()))
            }
        }
    }

    /// Second tries since the start.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Lets go of the connection; there is nothing to finish.
    pub async fn close(&self) {
        let mut current = self.current.lock().await;
        *current = Current::Closed;
    }

    async fn attempts<O: Operation>(&self, operation: &O) -> RedisResult<O::Answer> {
        let link = self.link().await?;
        match operation.run(link).await {
            Err(error) if error.is_connection_dropped() => {
                tracing::warn!(%error, "connection lost, trying once more");
                self.retries.fetch_add(1, Ordering::Relaxed);
                operation.run(self.link().await?).await
            }
            other => other,
        }
    }

    async fn link(&self) -> RedisResult<Link> {
        let mut current = self.current.lock().await;
        match &*current {
            Current::Open(link) => return Ok(link.clone()),
            Current::Closed => return Err((redis::ErrorKind::Client, "the store is closed").into()),
            Current::None => {}
        }
        let link = self.connect().await?;
        *current = Current::Open(link.clone());
        Ok(link)
    }

    async fn connect(&self) -> RedisResult<Link> {
        Ok(match &self.target {
            Target::Single(client) => {
                let config = ConnectionManagerConfig::new()
                    .set_connection_timeout(Some(self.connect_timeout))
                    .set_response_timeout(Some(self.operation_timeout))
                    .set_pipeline_buffer_size(COMMANDS_QUEUED_MAX)
                    // A failed command asks for a new connection; the next command waits for it.
                    .set_number_of_retries(0);
                Link::Single(ConnectionManager::new_lazy_with_config(
                    (**client).clone(),
                    config,
                )?)
            }
            Target::Cluster(client) => Link::Cluster(client.get_async_connection().await?),
        })
    }
}

fn target(
    config: &RedisConfig,
    connect_timeout: Duration,
    operation_timeout: Duration,
) -> Result<Target, StoreError> {
    let ca = match &config.ca_file {
        None => None,
        Some(file) => Some(
            std::fs::read(file)
                .map_err(|error| StoreError::Failed(format!("{}: {error}", file.display())))?,
        ),
    };
    let certificates = ca.map(|ca| TlsCertificates {
        client_tls: None,
        root_cert: Some(ca),
    });
    let urls: Vec<&str> = config.urls().collect();
    let target = if config.cluster {
        let mut builder = ClusterClientBuilder::new(urls)
            .connection_timeout(connect_timeout)
            .response_timeout(operation_timeout)
            .retries(CLUSTER_RETRIES)
            .min_retry_wait(CLUSTER_RETRY_MS_MIN)
            .max_retry_wait(CLUSTER_RETRY_MS_MAX);
        if let Some(certificates) = certificates {
            builder = builder.certs(certificates);
        }
        builder
            .build()
            .map(|client| Target::Cluster(Box::new(client)))
    } else {
        let url = urls.first().copied().unwrap_or_default();
        match certificates {
            Some(certificates) => Client::build_with_tls(url, certificates),
            None => Client::open(url),
        }
        .map(|client| Target::Single(Box::new(client)))
    };
    target.map_err(|error| failed(&error))
}

fn failed(error: &RedisError) -> StoreError {
    StoreError::Failed(error.to_string())
}
