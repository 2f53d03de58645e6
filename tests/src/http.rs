//! HTTP/1.1 by hand, so that a test decides and sees every byte: requests, heads, bodies, trailers.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A head larger than this is a mistake of the test.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Room for one read.
const READ_BYTES: usize = 64 * 1024;

/// Header lines in order. Names keep their case; look-ups ignore it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// From pairs.
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self(
            pairs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
        )
    }

    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }

    fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in &self.0 {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
    }
}

/// A request, to be sent or as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Header lines.
    pub headers: Headers,
    /// Body without its framing.
    pub body: Vec<u8>,
}

impl Request {
    /// A request without a body.
    pub fn get(target: &str) -> Self {
        Self {
            method: "GET".into(),
            target: target.into(),
            headers: Headers::default(),
            body: vec![],
        }
    }

    /// A POST of JSON.
    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            method: "POST".into(),
            target: target.into(),
            headers: Headers::of(&[("content-type", "application/json")]),
            body: body.into(),
        }
    }

    /// With one more header line.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.0.push((name.into(), value.into()));
        self
    }

    /// The body as JSON; panics when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The bytes for the wire. `host` is added, and `content-length` unless framing is given.
    pub fn encode(&self, host: &str) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        if self.headers.get("host").is_none() {
            out.extend_from_slice(format!("host: {host}\r\n").as_bytes());
        }
        self.headers.write(&mut out);
        let framed = self.headers.get("content-length").is_some()
            || self.headers.get("transfer-encoding").is_some();
        let bodiless = self.method == "GET" && self.body.is_empty();
        if !framed && !bodiless {
            out.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

/// First line and headers of a message.
#[derive(Clone, Debug)]
pub struct Head {
    /// Of a response; 0 for a request.
    pub status: u16,
    /// Of a request; empty for a response.
    pub method: String,
    /// Of a request; empty for a response.
    pub target: String,
    /// Header lines.
    pub headers: Headers,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
    Done,
}

/// One side of a connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    framing: Framing,
    /// Trailers of the last body read, when it had any.
    pub trailers: Headers,
}

impl Connection {
    /// Wraps a connected stream; small writes leave at once.
    pub fn new(stream: TcpStream) -> Self {
        // Fails only on a socket that is gone, which the first read or write reports.
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            buffer: vec![],
            framing: Framing::Done,
            trailers: Headers::default(),
        }
    }

    /// Writes raw bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Closes in a way that the peer sees as a reset.
    pub fn reset(self) {
        // Deprecated for a close that may block when there is data; with zero it drops the data.
        #[allow(deprecated)]
        let _ = self.stream.set_linger(Some(std::time::Duration::ZERO));
    }

    /// The stream, when the rest of the conversation is not HTTP's business.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    async fn fill(&mut self) -> io::Result<usize> {
        // Straight into the heap: an array here would sit in every future that awaits this one.
        self.buffer.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.buffer).await
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// The next request, whole; `None` at its end, or where it breaks off.
    pub async fn read_request(&mut self) -> Option<Request> {
        let head = self.read_head().await.ok()??;
        let body = self.read_body().await.ok()?;
        Some(Request {
            method: head.method,
            target: head.target,
            headers: head.headers,
            body,
        })
    }

    /// The next head, `None` at a clean close. Interim responses (1xx) are skipped.
    pub async fn read_head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let bytes = self.take(end + 4);
                let head = parse_head(&bytes)?;
                if (100..200).contains(&head.status) {
                    continue;
                }
                self.framing = framing(&head);
                self.trailers = Headers::default();
                return Ok(Some(head));
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(invalid("head too large"));
            }
            if self.fill().await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(eof("in a head"))
                };
            }
        }
    }

    /// The next piece of the body as it arrives, `None` at its end; an error when the peer closes
    /// before it.
    pub async fn read_piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.framing {
            Framing::Done => Ok(None),
            Framing::Length(0) => {
                self.framing = Framing::Done;
                Ok(None)
            }
            Framing::Length(left) => {
                if self.buffer.is_empty() && self.fill().await? == 0 {
                    return Err(eof("before content-length"));
                }
                let piece = self.take(left.min(self.buffer.len()));
                self.framing = Framing::Length(left - piece.len());
                Ok(Some(piece))
            }
            Framing::UntilClose => {
                if self.buffer.is_empty() && self.fill().await? == 0 {
                    self.framing = Framing::Done;
                    return Ok(None);
                }
                Ok(Some(std::mem::take(&mut self.buffer)))
            }
            Framing::Chunked => self.read_chunk().await,
        }
    }

    /// The whole body.
    pub async fn read_body(&mut self) -> io::Result<Vec<u8>> {
        let mut body = vec![];
        while let Some(piece) = self.read_piece().await? {
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    async fn read_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.read_line().await?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).map_err(|_| invalid("chunk size"))?;
        if size == 0 {
            loop {
                let line = self.read_line().await?;
                let Some((name, value)) = line.split_once(':') else {
                    break;
                };
                self.trailers
                    .0
                    .push((name.trim().into(), value.trim().into()));
            }
            self.framing = Framing::Done;
            return Ok(None);
        }
        while self.buffer.len() < size + 2 {
            if self.fill().await? == 0 {
                return Err(eof("in a chunk"));
            }
        }
        let mut chunk = self.take(size + 2);
        chunk.truncate(size);
        Ok(Some(chunk))
    }

    async fn read_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line = self.take(end + 2);
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.fill().await? == 0 {
                return Err(eof("in a line"));
            }
        }
    }
}

/// The bytes of a response head.
pub fn encode_head(status: u16, headers: &Headers) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status} X\r\n").into_bytes();
    headers.write(&mut out);
    out.extend_from_slice(b"\r\n");
    out
}

/// `bytes` as one chunk of a chunked body.
pub fn encode_chunk(bytes: &[u8]) -> Vec<u8> {
    let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out
}

/// Position of `needle` in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

fn parse_head(bytes: &[u8]) -> io::Result<Head> {
    let mut lines = [httparse::EMPTY_HEADER; 128];
    let (status, method, target, parsed) = if bytes.starts_with(b"HTTP/") {
        let mut response = httparse::Response::new(&mut lines);
        response.parse(bytes).map_err(invalid)?;
        (
            response.code.unwrap_or(0),
            String::new(),
            String::new(),
            response.headers,
        )
    } else {
        let mut request = httparse::Request::new(&mut lines);
        request.parse(bytes).map_err(invalid)?;
        let method = request.method.unwrap_or_default().to_owned();
        (
            0,
            method,
            request.path.unwrap_or_default().to_owned(),
            request.headers,
        )
    };
    let headers = parsed
        .iter()
        .map(|h| {
            (
                h.name.to_owned(),
                String::from_utf8_lossy(h.value).into_owned(),
            )
        })
        .collect();
    Ok(Head {
        status,
        method,
        target,
        headers: Headers(headers),
    })
}

fn framing(head: &Head) -> Framing {
    let bodiless = head.status == 204 || head.status == 304;
    if let Some(coding) = head.headers.get("transfer-encoding")
        && coding.eq_ignore_ascii_case("chunked")
    {
        return Framing::Chunked;
    }
    match head
        .headers
        .get("content-length")
        .and_then(|v| v.parse().ok())
    {
        Some(length) => Framing::Length(length),
        None if head.status == 0 || bodiless => Framing::Done,
        None => Framing::UntilClose,
    }
}

fn invalid(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

fn eof(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed {what}"))
}
