//! One keep-alive connection that sends prepared bytes, and no more reading than it takes to know
//! when an answer is whole.

use std::{io, net::SocketAddr};

use memchr::memmem;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Room for a response at first; it doubles.
const RESPONSE_BYTES: usize = 8 << 10;
/// Most bytes of one response, head included.
const RESPONSE_BYTES_MAX: usize = 4 << 20;

/// A connection to a server of HTTP/1.1.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A whole answer.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// Status code.
    pub status: u16,
    /// The body, with its framing.
    pub body: &'a [u8],
    /// The server closes the connection after it.
    pub closes: bool,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug)]
struct Framing {
    status: u16,
    end: End,
    closes: bool,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Length(usize),
    Chunked,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; RESPONSE_BYTES],
        })
    }

    /// Sends `request` and reads the whole answer. A connection that failed is of no more use.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<Reply<'_>> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let mut head: Option<(usize, Framing)> = None;
        loop {
            filled += self.read(filled).await?;
            let seen = self.buffer.get(..filled).unwrap_or_default();
            if head.is_none() {
                head = whole_head(seen)?;
            }
            let Some((head_bytes, framing)) = head else {
                continue;
            };
            if framing.complete(seen.get(head_bytes..).unwrap_or_default()) {
                let body = self.buffer.get(head_bytes..filled).unwrap_or_default();
                return Ok(Reply {
                    status: framing.status,
                    body,
                    closes: framing.closes,
                });
            }
        }
    }

    /// Sends `request`, reads the answer until its body contains `needle`, and leaves.
    pub async fn leave_at(mut self, request: &[u8], needle: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            filled += self.read(filled).await?;
            let seen = self.buffer.get(..filled).unwrap_or_default();
            if memmem::find(seen, needle).is_some() {
                return Ok(());
            }
        }
    }

    /// Appends what there is to the buffer.
    async fn read(&mut self, filled: usize) -> io::Result<usize> {
        if filled == self.buffer.len() {
            if filled >= RESPONSE_BYTES_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.buffer.resize(filled * 2, 0);
        }
        let room = self.buffer.get_mut(filled..).unwrap_or_default();
        match self.stream.read(room).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

/// Length of the head and what it says; `None` while it is not whole.
fn whole_head(seen: &[u8]) -> io::Result<Option<(usize, Framing)>> {
    let Some(at) = memmem::find(seen, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = seen.get(..at + 2).unwrap_or_default();
    let framing = Framing::of(head).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some((at + 4, framing)))
}

impl Framing {
    fn of(head: &[u8]) -> Option<Self> {
        let status = head.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
        let end = match content_length(head) {
            Some(length) => End::Length(length),
            None => {
                memmem::find(head, b"transfer-encoding: chunked\r\n")?;
                End::Chunked
            }
        };
        Some(Self {
            status: std::str::from_utf8(status).ok()?.parse().ok()?,
            end,
            closes: memmem::find(head, b"connection: close\r\n").is_some(),
        })
    }

    /// Whether `body` is whole. No body here contains the last chunk's bytes.
    fn complete(self, body: &[u8]) -> bool {
        match self.end {
            End::Length(length) => body.len() >= length,
            End::Chunked => body.ends_with(b"\r\n0\r\n\r\n") || body == b"0\r\n\r\n",
        }
    }
}

/// The value of `content-length`, spelled as Envoy, the service and we spell it.
pub fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length: ";
    let value = head.get(memmem::find(head, NAME)? + NAME.len()..)?;
    let end = memmem::find(value, b"\r\n")?;
    std::str::from_utf8(value.get(..end)?).ok()?.parse().ok()
}

/// The greatest number that a member called `name` has in `body`; `None` if there is none. A
/// stream of the Messages API shows its usage twice.
pub fn greatest(body: &[u8], name: &str) -> Option<u64> {
    let member = format!("\"{name}\":");
    let number = |at: usize| {
        let digits = body.get(at + member.len()..)?;
        let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
        std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
    };
    memmem::find_iter(body, member.as_bytes())
        .filter_map(number)
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_body() {
        let framing = |head: &[u8]| whole_head(head).unwrap().unwrap().1;
        let counted = framing(b"HTTP/1.1 503 X\r\ncontent-length: 3\r\nconnection: close\r\n\r\n");
        assert!(counted.status == 503 && counted.closes);
        assert!(!counted.complete(b"ab") && counted.complete(b"abc"));
        let chunked = framing(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        assert!(!chunked.complete(b"1\r\na\r\n") && chunked.complete(b"1\r\na\r\n0\r\n\r\n"));
        assert!(chunked.complete(b"0\r\n\r\n") && !chunked.closes);
        assert!(whole_head(b"HTTP/1.1 200 OK\r\n").unwrap().is_none());
        assert!(whole_head(b"HTTP/1.1 200 OK\r\nserver: x\r\n\r\n").is_err());
    }

    #[test]
    fn the_greatest_of_a_member() {
        let body = br#"{"read":0,"x":{"read":12},"read":7,"read":"9"}"#;
        assert_eq!(greatest(body, "read"), Some(12));
        assert_eq!(greatest(body, "written"), None);
    }
}
