//! The scripted upstream: it records what arrives, and each test says what it answers, when.

use std::net::SocketAddr;

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};

use crate::{
    deadline::within,
    http::{Connection, Headers, Request, encode_chunk, encode_head},
};

/// Requests that wait to be looked at.
const BACKLOG: usize = 1024;

/// A server on a free loopback port. Each connection carries one request.
pub struct Upstream {
    address: SocketAddr,
    calls: mpsc::Receiver<Call>,
    accept: JoinHandle<()>,
}

/// A request that arrived completely, waiting for the test to answer it.
pub struct Call {
    /// The request as it came over the wire.
    pub request: Request,
    connection: Connection,
}

impl Upstream {
    /// Starts listening.
    pub async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts listening there.
    pub async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address)
            .await
            .unwrap_or_else(|e| panic!("{address}: {e}"));
        let address = listener.local_addr().unwrap_or_else(|e| panic!("{e}"));
        let (sender, calls) = mpsc::channel(BACKLOG);
        let accept = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(receive(stream, sender.clone()));
            }
        });
        Self {
            address,
            calls,
            accept,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening: connections are refused from now on.
    pub async fn close(&mut self) {
        self.accept.abort();
        // Ends with an error, being aborted; the listener is closed then.
        let _ = (&mut self.accept).await;
    }

    /// The next request.
    pub async fn next(&mut self) -> Call {
        within("a request at the upstream", self.calls.recv())
            .await
            .expect("listener runs")
    }

    /// The next request, however long it takes: for servers that run beside a test.
    pub async fn wait(&mut self) -> Option<Call> {
        self.calls.recv().await
    }

    /// Panics when a request has arrived that the test has not taken.
    pub fn assert_untouched(&mut self) {
        if let Ok(call) = self.calls.try_recv() {
            panic!(
                "the upstream saw {} {}",
                call.request.method, call.request.target
            );
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn receive(stream: TcpStream, calls: mpsc::Sender<Call>) {
    let mut connection = Connection::new(stream);
    let Some(request) = connection.read_request().await else {
        return;
    };
    // Fails only when the test is over.
    let _ = calls
        .send(Call {
            request,
            connection,
        })
        .await;
}

impl Call {
    /// Sends status and headers; a chunked body follows unless `content-length` is among them.
    pub async fn head(&mut self, status: u16, headers: &[(&str, &str)]) {
        let mut headers = Headers::of(headers);
        headers.0.push(("connection".into(), "close".into()));
        if headers.get("content-length").is_none() {
            headers
                .0
                .push(("transfer-encoding".into(), "chunked".into()));
        }
        self.write(&encode_head(status, &headers)).await;
    }

    /// Sends the head of an event stream.
    pub async fn stream_head(&mut self) {
        self.head(200, &[("content-type", "text/event-stream")])
            .await;
    }

    /// Sends one chunk of a chunked body, in one write.
    pub async fn chunk(&mut self, bytes: impl AsRef<[u8]>) {
        self.write(&encode_chunk(bytes.as_ref())).await;
    }

    /// Sends bytes as they are, framing included, in one write.
    pub async fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.write(bytes.as_ref()).await;
    }

    /// Ends a chunked body.
    pub async fn end(self) {
        self.end_with_trailers(&[]).await;
    }

    /// Ends a chunked body with trailers.
    pub async fn end_with_trailers(mut self, trailers: &[(&str, &str)]) {
        let mut bytes = b"0\r\n".to_vec();
        for (name, value) in trailers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        self.write(&bytes).await;
    }

    /// Answers with a JSON body of known length.
    pub async fn json(self, status: u16, body: impl AsRef<[u8]>) {
        self.body(status, "application/json", body).await;
    }

    /// Answers with a body of known length.
    pub async fn body(mut self, status: u16, content_type: &str, body: impl AsRef<[u8]>) {
        let length = body.as_ref().len().to_string();
        self.head(
            status,
            &[("content-type", content_type), ("content-length", &length)],
        )
        .await;
        self.write(body.as_ref()).await;
    }

    /// Answers with a whole event stream, one chunk an event.
    pub async fn events(mut self, events: &[&str]) {
        self.stream_head().await;
        for event in events {
            self.chunk(format!("data: {event}\n\n")).await;
        }
        self.end().await;
    }

    /// Breaks the connection off.
    pub fn reset(self) {
        self.connection.reset();
    }

    /// Waits until the peer has closed the connection: the client's departure has arrived here.
    pub async fn gone(mut self) {
        within("the proxy to drop the upstream connection", async {
            // Nothing more is sent on this connection: what comes is its end.
            let mut rest = [0; 1];
            let _ = tokio::io::AsyncReadExt::read(self.connection.stream(), &mut rest).await;
        })
        .await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        // A peer that left is what some tests are about; others notice on their own side.
        let _ = within("write to the proxy", self.connection.write(bytes)).await;
    }
}
