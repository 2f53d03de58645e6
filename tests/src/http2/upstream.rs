//! An upstream that speaks HTTP/2 only, whose every frame the test decides.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};

use super::{headers_of, map_of, read};
use crate::{
    deadline::within,
    http::{Headers, Request},
};

/// Requests that wait to be looked at.
const BACKLOG: usize = 1024;

/// A server on a free loopback port that speaks HTTP/2 only.
pub struct Http2Upstream {
    address: SocketAddr,
    calls: mpsc::Receiver<Http2Call>,
    accept: JoinHandle<()>,
}

/// A request that arrived completely, waiting for the test to answer it.
pub struct Http2Call {
    /// The request; pseudo headers are left out.
    pub request: Request,
    /// Its trailers, if it had any.
    pub trailers: Headers,
    respond: server::SendResponse<Bytes>,
    body: Option<SendStream<Bytes>>,
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

    /// Where it listens; for [`Options::http2_upstream`](crate::world::Options::http2_upstream).
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next request.
    pub async fn next(&mut self) -> Http2Call {
        within("a request at the HTTP/2 upstream", self.calls.recv())
            .await
            .expect("listener runs")
    }
}

impl Drop for Http2Upstream {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn serve(stream: TcpStream, calls: mpsc::Sender<Http2Call>) {
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
    calls: mpsc::Sender<Http2Call>,
) {
    let (head, mut body) = request.into_parts();
    let Ok((body, trailers)) = read(&mut body).await else {
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
        .send(Http2Call {
            request,
            trailers,
            respond,
            body: None,
        })
        .await;
}

impl Http2Call {
    /// Sends status and headers; a body follows.
    pub fn head(&mut self, status: u16, headers: &[(&str, &str)]) {
        let mut response = http::Response::new(());
        *response.status_mut() = status.try_into().unwrap_or_else(|e| panic!("{e}"));
        *response.headers_mut() = map_of(&Headers::of(headers));
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
    pub fn end_with_trailers(mut self, trailers: &[(&str, &str)]) {
        let stream = self.body.as_mut().expect("a head was sent");
        let _ = stream.send_trailers(map_of(&Headers::of(trailers)));
    }

    /// Answers with `pieces`, one DATA frame each, of which the last ends the stream.
    pub async fn answer(mut self, content_type: &str, pieces: &[&str]) {
        self.head(200, &[("content-type", content_type)]);
        for (left, piece) in (0..pieces.len()).rev().zip(pieces) {
            self.data(piece, left == 0).await;
        }
    }

    /// Breaks the stream off.
    pub fn reset(mut self) {
        match self.body.as_mut() {
            Some(body) => body.send_reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}
