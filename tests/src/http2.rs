//! HTTP/2 with prior knowledge, where a test is about frames: an upload in its own pieces, and a
//! scripted upstream.

use std::{future::poll_fn, net::SocketAddr};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue};
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

/// Size of a last frame that carries data.
const LAST_FRAME_BYTES: usize = 1000;
/// Requests that wait to be looked at.
const BACKLOG: usize = 64;

/// A request whose body the test sends piece by piece, on a connection of its own.
pub struct Upload {
    body: SendStream<Bytes>,
    response: ResponseFuture,
    connection: JoinHandle<()>,
}

impl Upload {
    /// Connects and sends the head of `request`, whose body is left out.
    pub async fn start(address: SocketAddr, request: &Request) -> Self {
        let stream = within("connect", TcpStream::connect(address)).await;
        let stream = stream.unwrap_or_else(|e| panic!("connect to {address}: {e}"));
        let _ = stream.set_nodelay(true);
        let (sender, connection) = within("handshake", h2::client::handshake(stream))
            .await
            .unwrap_or_else(|e| panic!("handshake: {e}"));
        let connection = tokio::spawn(async move {
            // How it ends is seen on the stream.
            let _ = connection.await;
        });
        let mut head = http::Request::builder()
            .method(&*request.method)
            .uri(format!("http://{address}{}", request.target))
            .body(())
            .unwrap_or_else(|e| panic!("{e}"));
        *head.headers_mut() = header_map(&request.headers);
        let mut sender = within("a stream", sender.ready())
            .await
            .unwrap_or_else(|e| panic!("{e}"));
        let (response, body) = sender
            .send_request(head, false)
            .unwrap_or_else(|e| panic!("{e}"));
        Self {
            body,
            response,
            connection,
        }
    }

    /// Sends `bytes` as the peer's windows allow. False when the peer takes no more: a server may
    /// answer before it has read everything, and the answer decides.
    pub async fn data(&mut self, bytes: &[u8]) -> bool {
        let mut rest = Bytes::copy_from_slice(bytes);
        while !rest.is_empty() {
            self.body.reserve_capacity(rest.len());
            let window = poll_fn(|context| self.body.poll_capacity(context));
            let Some(Ok(capacity)) = within("room for data", window).await else {
                return false;
            };
            let piece = rest.split_to(capacity.min(rest.len()));
            if self.body.send_data(piece, false).is_err() {
                return false;
            }
        }
        true
    }

    /// Sends `bytes`, of which the last frame ends the body.
    pub async fn end_with(mut self, bytes: &[u8]) -> Response {
        let (head, last) = bytes.split_at(bytes.len().saturating_sub(LAST_FRAME_BYTES));
        if self.data(head).await {
            self.body.reserve_capacity(last.len());
            // Queued until there is room for it.
            let last = Bytes::copy_from_slice(last);
            let _ = self.body.send_data(last, true);
        }
        self.finish().await
    }

    /// Ends the body with an empty frame.
    pub async fn end(mut self) -> Response {
        let _ = self.body.send_data(Bytes::new(), true);
        self.finish().await
    }

    /// Ends the body with trailers.
    pub async fn end_with_trailers(mut self, trailers: &[(&str, &str)]) -> Response {
        let _ = self.body.send_trailers(header_map(&Headers::of(trailers)));
        self.finish().await
    }

    /// Waits for the answer and reads all of it.
    pub async fn finish(self) -> Response {
        let response = within("response head", self.response)
            .await
            .unwrap_or_else(|e| panic!("response head: {e}"));
        let (head, mut stream) = response.into_parts();
        let (body, trailers) = within("response body", read(&mut stream))
            .await
            .unwrap_or_else(|e| panic!("response body: {e}"));
        self.connection.abort();
        Response {
            status: head.status.as_u16(),
            headers: headers(&head.headers),
            body,
            trailers,
        }
    }

    /// Takes the request back; the connection stays.
    pub fn cancel(mut self) {
        self.body.send_reset(Reason::CANCEL);
    }

    /// Closes the connection.
    pub fn leave(self) {
        self.connection.abort();
    }
}

/// An upstream that speaks HTTP/2 only, on a free loopback port.
pub struct Http2Upstream {
    address: SocketAddr,
    calls: mpsc::Receiver<Http2Call>,
    accept: JoinHandle<()>,
}

/// A request that arrived completely.
pub struct Http2Call {
    /// The request; pseudo headers are not among its headers.
    pub request: Request,
    /// Trailers, when it had any.
    pub trailers: Headers,
    respond: SendResponse<Bytes>,
}

impl Http2Upstream {
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next request.
    pub async fn next(&mut self) -> Http2Call {
        within("a request at the upstream", self.calls.recv())
            .await
            .expect("listener runs")
    }
}

impl Drop for Http2Upstream {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Http2Call {
    /// Answers with `pieces`, one DATA frame each, of which the last ends the stream.
    pub fn answer(mut self, content_type: &str, pieces: &[&str]) {
        let head = http::Response::builder()
            .header("content-type", content_type)
            .body(())
            .unwrap_or_else(|e| panic!("{e}"));
        // A peer that left notices on its own side.
        let Ok(mut body) = self.respond.send_response(head, pieces.is_empty()) else {
            return;
        };
        for (left, piece) in (0..pieces.len()).rev().zip(pieces) {
            let _ = body.send_data(Bytes::copy_from_slice(piece.as_bytes()), left == 0);
        }
    }
}

async fn serve(stream: TcpStream, calls: mpsc::Sender<Http2Call>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(receive(request, respond, calls.clone()));
    }
}

async fn receive(
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
    calls: mpsc::Sender<Http2Call>,
) {
    let (head, mut stream) = request.into_parts();
    let Ok((body, trailers)) = read(&mut stream).await else {
        return;
    };
    let request = Request {
        method: head.method.to_string(),
        target: head
            .uri
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        headers: headers(&head.headers),
        body,
    };
    let call = Http2Call {
        request,
        trailers,
        respond,
    };
    // Fails only when the test is over.
    let _ = calls.send(call).await;
}

/// Body and trailers.
async fn read(stream: &mut RecvStream) -> Result<(Vec<u8>, Headers), h2::Error> {
    let mut body = vec![];
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        body.extend_from_slice(&piece);
        stream.flow_control().release_capacity(piece.len())?;
    }
    let trailers = stream.trailers().await?;
    Ok((body, headers(&trailers.unwrap_or_default())))
}

fn header_map(headers: &Headers) -> HeaderMap {
    let pairs = headers.0.iter().map(|(name, value)| {
        let name = name.parse::<HeaderName>().unwrap_or_else(|e| panic!("{e}"));
        let value = value
            .parse::<HeaderValue>()
            .unwrap_or_else(|e| panic!("{e}"));
        (name, value)
    });
    pairs.collect()
}

fn headers(map: &HeaderMap) -> Headers {
    let pairs = map.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.to_string(), value)
    });
    Headers(pairs.collect())
}
