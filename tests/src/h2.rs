//! HTTP/2 with prior knowledge, on both sides: an upstream whose every frame a test decides, and a
//! client that sees each frame as it arrives.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client, server};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};

use crate::{
    client::Response,
    deadline::within,
    http::{Headers, Request},
};

/// Requests that wait to be looked at.
const BACKLOG: usize = 1024;

/// A server on a free loopback port that speaks HTTP/2 only.
pub struct H2Upstream {
    address: SocketAddr,
    calls: mpsc::Receiver<H2Call>,
    accept: JoinHandle<()>,
}

/// A request that arrived completely, waiting for the test to answer it.
pub struct H2Call {
    /// The request; pseudo headers are left out.
    pub request: Request,
    respond: server::SendResponse<Bytes>,
    body: Option<SendStream<Bytes>>,
}

impl H2Upstream {
    /// Starts listening.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap_or_else(|e| panic!("{e}"));
        let address = listener.local_addr().unwrap_or_else(|e| panic!("{e}"));
        let (sender, calls) = mpsc::channel(BACKLOG);
        let accept = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, sender.clone()));
            }
        });
        Self {
            address,
            calls,
            accept,
        }
    }

    /// What makes Envoy's upstream cluster this server; for
    /// [`Options::members`](crate::world::Options::members).
    pub fn members(&self) -> Vec<(&'static str, Value)> {
        let kind = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        vec![
            (
                "/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value",
                json!(self.address.port()),
            ),
            (
                "/static_resources/clusters/0/typed_extension_protocol_options",
                json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": kind, "explicit_http_config": {"http2_protocol_options": {}}}}),
            ),
        ]
    }

    /// The next request.
    pub async fn next(&mut self) -> H2Call {
        within("a request at the HTTP/2 upstream", self.calls.recv())
            .await
            .expect("listener runs")
    }
}

impl Drop for H2Upstream {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn serve(stream: TcpStream, calls: mpsc::Sender<H2Call>) {
    let _ = stream.set_nodelay(true);
    let Ok(mut connection) = server::handshake(stream).await else {
        return;
    };
    // Accepting also drives the connection's other streams.
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(receive(request, respond, calls.clone()));
    }
}

async fn receive(
    request: http::Request<RecvStream>,
    respond: server::SendResponse<Bytes>,
    calls: mpsc::Sender<H2Call>,
) {
    let (head, mut body) = request.into_parts();
    let Ok((body, _)) = read(&mut body).await else {
        return;
    };
    let request = Request {
        method: head.method.to_string(),
        target: head
            .uri
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        headers: headers_of(&head.headers),
        body,
    };
    // Fails only when the test is over.
    let _ = calls
        .send(H2Call {
            request,
            respond,
            body: None,
        })
        .await;
}

impl H2Call {
    /// Sends status and headers; a body follows.
    pub fn head(&mut self, status: u16, headers: &[(&str, &str)]) {
        let mut response = http::Response::new(());
        *response.status_mut() = status.try_into().unwrap_or_else(|e| panic!("{e}"));
        *response.headers_mut() = map_of(headers);
        let body = self.respond.send_response(response, false);
        self.body = Some(body.unwrap_or_else(|e| panic!("response head: {e}")));
    }

    /// Sends a DATA frame; the last one when `end`.
    pub async fn data(&mut self, bytes: impl AsRef<[u8]>, end: bool) {
        let stream = self.body.as_mut().expect("a head was sent");
        let mut rest = Bytes::copy_from_slice(bytes.as_ref());
        while !rest.is_empty() {
            stream.reserve_capacity(rest.len());
            let granted = within(
                "room for a frame",
                std::future::poll_fn(|context| stream.poll_capacity(context)),
            );
            // A peer that left is what some tests are about; others notice on their own side.
            let Some(Ok(granted)) = granted.await else {
                return;
            };
            let piece = rest.split_to(granted.min(rest.len()));
            let last = end && rest.is_empty();
            if stream.send_data(piece, last).is_err() || last {
                return;
            }
        }
        if end {
            let _ = stream.send_data(Bytes::new(), true);
        }
    }

    /// Ends the body with trailers.
    pub fn trailers(mut self, trailers: &[(&str, &str)]) {
        let stream = self.body.as_mut().expect("a head was sent");
        let _ = stream.send_trailers(map_of(trailers));
    }

    /// Breaks the stream off.
    pub fn reset(mut self) {
        match self.body.as_mut() {
            Some(body) => body.send_reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}

/// Sends `request` to `address` over a connection of its own and reads the whole answer; `Err`
/// has what arrived before the stream broke.
pub async fn call(address: SocketAddr, request: &Request) -> Result<Response, String> {
    within("an HTTP/2 exchange", exchange(address, request)).await
}

async fn exchange(address: SocketAddr, request: &Request) -> Result<Response, String> {
    let said = |e: &dyn std::fmt::Display| e.to_string();
    let stream = TcpStream::connect(address).await.map_err(|e| said(&e))?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = client::handshake(stream).await.map_err(|e| said(&e))?;
    let driver = tokio::spawn(connection);
    let method: Method = request.method.parse().map_err(|_| "method".to_owned())?;
    let uri = format!("http://{address}{}", request.target);
    let mut head = http::Request::builder().method(method).uri(uri);
    for (name, value) in &request.headers.0 {
        head = head.header(name, value);
    }
    let head = head.body(()).map_err(|e| said(&e))?;
    let empty = request.body.is_empty();
    let (answer, mut body) = sender.send_request(head, empty).map_err(|e| said(&e))?;
    if !empty {
        // Small bodies: the flow control window holds them, or h2 sends the rest later.
        let bytes = Bytes::copy_from_slice(&request.body);
        body.send_data(bytes, true).map_err(|e| said(&e))?;
    }
    let (head, mut body) = answer.await.map_err(|e| said(&e))?.into_parts();
    let (body, trailers) = read(&mut body).await?;
    driver.abort();
    Ok(Response {
        status: head.status.as_u16(),
        headers: headers_of(&head.headers),
        body,
        trailers,
    })
}

async fn read(stream: &mut RecvStream) -> Result<(Vec<u8>, Headers), String> {
    let mut body = vec![];
    while let Some(piece) = stream.data().await {
        let piece = piece.map_err(|e| format!("{e}, after: {}", String::from_utf8_lossy(&body)))?;
        let _ = stream.flow_control().release_capacity(piece.len());
        body.extend_from_slice(&piece);
    }
    let trailers = stream.trailers().await.map_err(|e| e.to_string())?;
    Ok((body, trailers.as_ref().map(headers_of).unwrap_or_default()))
}

fn headers_of(map: &HeaderMap) -> Headers {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    };
    Headers(map.iter().map(pair).collect())
}

fn map_of(headers: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| -> (HeaderName, HeaderValue) {
        let name = name.parse().unwrap_or_else(|e| panic!("{name}: {e}"));
        (
            name,
            value.parse().unwrap_or_else(|e| panic!("{value}: {e}")),
        )
    };
    headers.iter().map(pair).collect()
}
