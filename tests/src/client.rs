//! A client that sees a response as it arrives and can leave in the middle of it.

use std::{io, net::SocketAddr};

use tokio::net::TcpStream;

use crate::{
    deadline::within,
    http::{Connection, Head, Headers, Request, find},
};

/// Sends requests to one address, each on a connection of its own.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    address: SocketAddr,
}

/// A response that is still arriving. Dropping it closes the connection.
pub struct Incoming {
    /// Status and headers.
    pub head: Head,
    connection: Connection,
    seen: Vec<u8>,
}

/// A complete response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header lines.
    pub headers: Headers,
    /// Body without its framing.
    pub body: Vec<u8>,
    /// Trailers.
    pub trailers: Headers,
}

impl Client {
    /// A client of `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection with nothing sent yet.
    pub async fn connect(&self) -> Connection {
        let stream = within("connect", TcpStream::connect(self.address)).await;
        Connection::new(stream.unwrap_or_else(|e| panic!("connect to {}: {e}", self.address)))
    }

    /// Sends the request and does not look at the answer yet.
    pub async fn send(&self, request: &Request) -> Sent {
        let mut connection = self.connect().await;
        let bytes = request.encode(&self.address.to_string());
        // A server may answer and close before it has read everything; the answer decides.
        let _ = within("write a request", connection.write(&bytes)).await;
        Sent { connection }
    }

    /// Sends the request beside waiting for the answer, which may come before all is sent.
    pub async fn send_beside(&self, request: &Request) -> Sent {
        let stream = within("connect", TcpStream::connect(self.address)).await;
        let (reading, writing) =
            twins(stream).unwrap_or_else(|e| panic!("connect to {}: {e}", self.address));
        let bytes = request.encode(&self.address.to_string());
        tokio::spawn(async move {
            // Ends with an error when the peer wants no more; the answer decides.
            let _ = Connection::new(writing).write(&bytes).await;
        });
        let connection = Connection::new(reading);
        Sent { connection }
    }

    /// Sends the request and reads the whole answer.
    pub async fn call(&self, request: &Request) -> Response {
        self.send(request).await.head().await.finish().await
    }

    /// Like [`Client::call`], `Err` instead of a panic; for probing what may not be up.
    pub async fn try_call(&self, request: &Request) -> io::Result<Response> {
        let mut connection = Connection::new(TcpStream::connect(self.address).await?);
        connection
            .write(&request.encode(&self.address.to_string()))
            .await?;
        let Some(head) = connection.read_head().await? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let body = connection.read_body().await?;
        let trailers = std::mem::take(&mut connection.trailers);
        Ok(Response {
            status: head.status,
            headers: head.headers,
            body,
            trailers,
        })
    }
}

/// The same socket twice.
fn twins(stream: io::Result<TcpStream>) -> io::Result<(TcpStream, TcpStream)> {
    let stream = stream?.into_std()?;
    let twin = stream.try_clone()?;
    Ok((TcpStream::from_std(stream)?, TcpStream::from_std(twin)?))
}

/// A request whose answer has not begun.
pub struct Sent {
    connection: Connection,
}

impl Sent {
    /// Waits for status and headers.
    pub async fn head(mut self) -> Incoming {
        match within("response head", self.connection.read_head()).await {
            Ok(Some(head)) => Incoming {
                head,
                connection: self.connection,
                seen: vec![],
            },
            Ok(None) => panic!("the connection closed without a response"),
            Err(e) => panic!("response head: {e}"),
        }
    }

    /// Waits for the answer and reads all of it.
    pub async fn finish(self) -> Response {
        self.head().await.finish().await
    }
}

impl Incoming {
    /// Reads until the body so far contains `needle`, and returns the body so far.
    pub async fn read_until(&mut self, needle: &str) -> &[u8] {
        while find(&self.seen, needle.as_bytes()).is_none() {
            match within(
                format_args!("{needle:?} in the body"),
                self.connection.read_piece(),
            )
            .await
            {
                Ok(Some(piece)) => self.seen.extend_from_slice(&piece),
                Ok(None) => panic!("ended without {needle:?}: {}", self.text()),
                Err(e) => panic!("{e} without {needle:?}: {}", self.text()),
            }
        }
        &self.seen
    }

    /// The body so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// Reads to the end.
    pub async fn finish(self) -> Response {
        match self.try_finish().await {
            Ok(response) => response,
            Err((e, seen)) => panic!("response body: {e}, after: {seen}"),
        }
    }

    /// Reads to the end; `Err` with the body so far when the connection breaks before it.
    pub async fn try_finish(mut self) -> Result<Response, (io::Error, String)> {
        loop {
            match within("response body", self.connection.read_piece()).await {
                Ok(Some(piece)) => self.seen.extend_from_slice(&piece),
                Ok(None) => break,
                Err(e) => return Err((e, self.text())),
            }
        }
        Ok(Response {
            status: self.head.status,
            headers: self.head.headers,
            body: self.seen,
            trailers: std::mem::take(&mut self.connection.trailers),
        })
    }
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The data of each event of an event stream that our own programs wrote (one `data:` line
    /// each), `[DONE]` left out.
    pub fn events(&self) -> Vec<serde_json::Value> {
        self.text()
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}")))
            .collect()
    }

    /// The usage object: of a JSON body, or the last one of an event stream.
    pub fn usage(&self) -> serde_json::Value {
        let usage = if self.body.starts_with(b"{") {
            self.json().get("usage").cloned()
        } else {
            self.events()
                .iter()
                .rev()
                .find_map(|event| event.get("usage").cloned())
        };
        usage.unwrap_or_else(|| panic!("no usage: {}", self.text()))
    }
}
