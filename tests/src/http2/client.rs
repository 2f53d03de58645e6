//! A client that decides how its request's body is cut into frames, and how it ends.

use std::{future::poll_fn, net::SocketAddr};

use bytes::Bytes;
use h2::{Reason, SendStream, client::ResponseFuture};
use tokio::{net::TcpStream, task::JoinHandle};

use super::{headers_of, map_of, read};
use crate::{
    client::Response,
    deadline::within,
    http::{Headers, Request},
};

/// Size of a last frame that carries data.
const LAST_FRAME_BYTES: usize = 1000;
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
        *head.headers_mut() = map_of(&request.headers);
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
        let _ = self.body.send_trailers(map_of(&Headers::of(trailers)));
        self.finish().await
    }

    /// Waits for the answer and reads all of it.
    pub async fn finish(self) -> Response {
        self.try_finish().await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// The same; `Err` says what broke, and what had arrived.
    pub async fn try_finish(self) -> Result<Response, String> {
        let response = within("response head", self.response).await;
        let (head, mut stream) = response
            .map_err(|e| format!("response head: {e}"))?
            .into_parts();
        let (body, trailers) = within("response body", read(&mut stream)).await?;
        self.connection.abort();
        Ok(Response {
            status: head.status.as_u16(),
            headers: headers_of(&head.headers),
            body,
            trailers,
        })
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

/// Sends the whole of `request` and reads the whole answer; `Err` says what broke, and what had
/// arrived.
pub async fn call(address: SocketAddr, request: &Request) -> Result<Response, String> {
    let mut upload = Upload::start(address, request).await;
    if upload.data(&request.body).await {
        let _ = upload.body.send_data(Bytes::new(), true);
    }
    upload.try_finish().await
}
