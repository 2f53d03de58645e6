//! The TCP side: accepts connections up to a cap, serves HTTP/1.1 and cleartext HTTP/2, and ends
//! gracefully. What silent and slow connections may cost is bounded in [`crate::connections`] (seats
//! and the first head) and [`crate::http::limits`] (a request with its body).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Version, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};

use crate::connections::{Admission, Connections, Guest};
use crate::metrics::{Shed, Tally};
use crate::state::Service;

/// Longest time for a request's headers, which on a kept-alive connection includes the pause
/// before them: Envoy's default idle timeout is one hour, ours must not be what ends a
/// connection that is about to be used. Until then a dribbled head costs a seat that is given away
/// when it is needed.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(3700);
/// Pause after a failed accept (out of file descriptors), so that it does not spin.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);
/// Streams of one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 256;

/// Serves until `stop` resolves and for `shutdown_delay_ms` after that, not ready; then finishes
/// what is in flight for at most `shutdown_grace_ms`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    service: Arc<Service>,
    stop: impl Future<Output = ()>,
) {
    let limits = &service.limits;
    let closing = middleware::from_fn_with_state(Arc::clone(&service), close_when_stopping);
    let server = Server {
        listener,
        router: router.layer(closing),
        graceful: GracefulShutdown::new(),
        connections: Connections::new(limits.connections_max),
        service: &service,
    };
    server.accept_until(stop).await;
    service.stopping.store(true, Ordering::Release);
    tracing::info!(delay_ms = limits.shutdown_delay_ms, "stopping");
    let delay = Duration::from_millis(limits.shutdown_delay_ms);
    server.accept_until(tokio::time::sleep(delay)).await;

    let Server {
        listener, graceful, ..
    } = server;
    drop(listener);
    let grace = Duration::from_millis(limits.shutdown_grace_ms);
    if tokio::time::timeout(grace, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests were still running after shutdown_grace_ms");
    }
}

/// A listening socket and what became of it.
struct Server<'a> {
    listener: TcpListener,
    router: Router,
    graceful: GracefulShutdown,
    connections: Arc<Connections>,
    service: &'a Service,
}

impl Server<'_> {
    /// Accepts connections, each served by a task of its own, until `end` resolves.
    async fn accept_until(&self, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut end => return,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_BACK_OFF).await;
                continue;
            };
            let admission = self.connections.admit();
            if !matches!(admission, Admission::Free(_)) {
                self.service.metrics.shed.count(Shed::Connections);
            }
            let (Admission::Free(guest) | Admission::InPlace(guest)) = admission else {
                // Closed at once: the filter's callout fails fast and degrades.
                continue;
            };
            let connection = connection(stream, self.router.clone(), &guest);
            let watched = self.graceful.watcher();
            tokio::spawn(async move {
                // A connection that ends badly is the peer's affair.
                tokio::select! {
                    _ = watched.watch(connection) => {}
                    () = guest.has_to_leave() => {}
                }
            });
        }
    }
}

/// Tells the peer not to use the connection again, before it is closed: a request that meets a
/// closing connection is lost. HTTP/2 has GOAWAY for that.
async fn close_when_stopping(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Response {
    let is_http1 = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    if is_http1 && service.is_stopping() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

fn connection(
    stream: TcpStream,
    router: Router,
    guest: &Guest,
) -> impl hyper_util::server::graceful::GracefulConnection<Output = Result<(), BoxError>> + use<> {
    // Answers are one small write each: waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX);
    builder
        .serve_connection(
            TokioIo::new(stream),
            TowerToHyperService::new(guest.watch(router)),
        )
        .into_owned()
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
