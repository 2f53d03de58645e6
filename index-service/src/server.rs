//! The TCP side: accepts connections up to a cap, serves HTTP/1.1 and cleartext HTTP/2, and ends
//! gracefully.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::metrics::{Shed, Tally};
use crate::state::Service;

/// Longest time for a request's headers, which on a kept-alive connection includes the pause
/// before them: Envoy's default idle timeout is one hour, ours must not be what ends a
/// connection that is about to be used.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(3700);
/// Pause after a failed accept (out of file descriptors), so that it does not spin.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);
/// Streams of one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 256;

/// Serves until `stop` resolves, then finishes what is in flight for at most
/// `shutdown_grace_ms`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    service: Arc<Service>,
    stop: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(service.limits.connections_max));
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_BACK_OFF).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            // Closed at once: the filter's callout fails fast and degrades.
            service.metrics.shed.count(Shed::Connections);
            continue;
        };
        let connection = connection(stream, router.clone());
        let watched = graceful.watcher();
        tokio::spawn(async move {
            let _permit = permit;
            // A connection that ends badly is the peer's affair.
            let _ = watched.watch(connection).await;
        });
    }
    drop(listener);
    let grace = Duration::from_millis(service.limits.shutdown_grace_ms);
    if tokio::time::timeout(grace, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests were still running after shutdown_grace_ms");
    }
}

fn connection(
    stream: TcpStream,
    router: Router,
) -> impl hyper_util::server::graceful::GracefulConnection<Output = Result<(), BoxError>> {
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
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .into_owned()
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
