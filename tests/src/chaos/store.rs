//! The store behind the service, and the proxy on the way to it.

use std::{sync::mpsc, thread::JoinHandle, time::Duration};

use prompt_cache_test_servers::{postgres::Postgres, proxy::Proxy, redis::Redis};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::{settings::StoreKind, weather::StoreFault};

/// A store, where it is a server of its own.
pub struct StoreServer {
    kind: StoreKind,
    url: String,
    proxy: Proxy,
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread does that the server belongs to: starting one takes seconds, and its process
/// ends with the thread that started it.
enum Order {
    Kill,
    StartAgain,
    Pause(bool),
    /// Answers when everything before is done.
    Tell(oneshot::Sender<()>),
}

enum Server {
    Postgres(Postgres),
    Redis(Redis),
}

impl Server {
    fn start(kind: StoreKind) -> Self {
        match kind {
            StoreKind::Redis => Self::Redis(Redis::start()),
            StoreKind::Postgres | StoreKind::Embedded => Self::Postgres(Postgres::start()),
        }
    }

    fn address(&self) -> (u16, String) {
        match self {
            Self::Postgres(server) => (server.port(), server.url()),
            Self::Redis(server) => (server.port(), server.url()),
        }
    }

    fn obey(&mut self, order: Order) {
        match (self, order) {
            (Self::Postgres(server), Order::Kill) => server.kill(),
            (Self::Redis(server), Order::Kill) => server.kill(),
            (Self::Postgres(server), Order::StartAgain) => server.start_again(),
            (Self::Redis(server), Order::StartAgain) => server.start_again(),
            (Self::Postgres(server), Order::Pause(stop)) => server.pause(stop),
            (Self::Redis(server), Order::Pause(stop)) => server.pause(stop),
            (_, Order::Tell(done)) => {
                // Fails only when nobody waits any more.
                let _ = done.send(());
            }
        }
    }
}

impl StoreServer {
    /// Starts it; `None` for a store that is a file of the service's.
    pub async fn start(kind: StoreKind) -> Result<Option<Self>, String> {
        if kind == StoreKind::Embedded {
            return Ok(None);
        }
        let (orders, ordered) = mpsc::channel();
        let (ready, started) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let mut server = Server::start(kind);
            // Fails only when the run has ended.
            let _ = ready.send(server.address());
            while let Ok(order) = ordered.recv() {
                server.obey(order);
            }
        });
        let (port, url) = started
            .await
            .map_err(|_| format!("{} does not start", kind.as_str()))?;
        let proxy = Proxy::start(port);
        let url = url.replace(&format!(":{port}"), &format!(":{}", proxy.port()));
        Ok(Some(Self {
            kind,
            url,
            proxy,
            orders: Some(orders),
            thread: Some(thread),
        }))
    }

    /// The service's `store` key.
    pub fn config(&self) -> Value {
        let mut limits = json!({
            "url": self.url,
            "connect_timeout_ms": 500,
            "operation_timeout_ms": 1_000,
            "refresh_flush_ms": 50,
        });
        if self.kind == StoreKind::Postgres {
            limits["acquire_timeout_ms"] = json!(500);
        }
        json!({self.kind.as_str(): limits})
    }

    /// A fault begins.
    pub fn strike(&self, fault: StoreFault) {
        match fault {
            StoreFault::Kill => self.order(Order::Kill),
            StoreFault::Pause => self.order(Order::Pause(true)),
            StoreFault::Silent => self.proxy.be_deaf(true),
            StoreFault::Slow { ms } => self.proxy.delay(Duration::from_millis(ms)),
            StoreFault::Severed => self.proxy.sever(),
            StoreFault::DiskFull => {}
        }
    }

    /// It ends.
    pub fn heal(&self, fault: StoreFault) {
        match fault {
            StoreFault::Kill => self.order(Order::StartAgain),
            StoreFault::Pause => self.order(Order::Pause(false)),
            StoreFault::Silent => self.proxy.be_deaf(false),
            StoreFault::Slow { .. } => self.proxy.delay(Duration::ZERO),
            StoreFault::Severed | StoreFault::DiskFull => {}
        }
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // Fails only when its thread has panicked, which the next wait reports.
            let _ = orders.send(order);
        }
    }

    /// Waits until everything that was ordered is done.
    pub async fn settled(&self) -> Result<(), String> {
        let (done, told) = oneshot::channel();
        self.order(Order::Tell(done));
        told.await
            .map_err(|_| format!("{} did not come back", self.kind.as_str()))
    }
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            let _ = thread.join();
        }
    }
}
