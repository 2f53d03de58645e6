//! The cheapest possible LLM: reads a request, discards it, and writes what was prepared under the
//! number that the request names.

use std::{io, net::SocketAddr, rc::Rc, time::Duration};

use memchr::memmem;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::spawn_local,
    time::{sleep, timeout},
};

use super::wire::content_length;

/// The request header with the number of the answer, two digits.
pub const ANSWER_HEADER: &str = "x-load-answer";
/// Largest request head.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Longest that an answer without an end waits for its client to leave.
const LEAVE_MAX: Duration = Duration::from_secs(20);

/// A prepared answer.
#[derive(Clone, Debug)]
pub struct Script {
    /// Each is a write of its own.
    pub pieces: Vec<Vec<u8>>,
    /// Pause before the last piece.
    pub pause: Duration,
    /// What follows.
    pub then: Then,
}

impl Script {
    /// These pieces at once.
    pub fn new(pieces: Vec<Vec<u8>>, then: Then) -> Self {
        Self {
            pieces,
            pause: Duration::ZERO,
            then,
        }
    }

    /// The same, with a pause before the last piece.
    pub fn pausing(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }
}

/// What follows the last piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The next request.
    Next,
    /// The connection is closed.
    Close,
    /// Nothing, until the client is gone.
    Wait,
}

/// Listens on a free port; answers as long as the [`tokio::task::LocalSet`] around it lives.
pub async fn start(scripts: Vec<Script>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let scripts: Rc<[Script]> = scripts.into();
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let scripts = Rc::clone(&scripts);
            // A connection that breaks is the client's to report.
            spawn_local(async move {
                let _ = serve(stream, &scripts).await;
            });
        }
    });
    Ok(address)
}

async fn serve(mut stream: TcpStream, scripts: &[Script]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; HEAD_BYTES_MAX];
    loop {
        let mut filled = 0;
        let head_bytes = loop {
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Ok(()),
                read => filled += read,
            }
            if let Some(at) = memmem::find(&buffer[..filled], b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = &buffer[..head_bytes];
        let script = number(head).and_then(|number| scripts.get(number));
        let script = script.ok_or(io::ErrorKind::InvalidData)?;
        let body_bytes = content_length(head).unwrap_or(0);
        // Nothing is pipelined.
        let mut missing = (head_bytes + body_bytes).saturating_sub(filled);
        while missing > 0 {
            match stream.read(&mut buffer).await? {
                0 => return Ok(()),
                read => missing = missing.saturating_sub(read),
            }
        }
        for (index, piece) in script.pieces.iter().enumerate() {
            if index + 1 == script.pieces.len() && !script.pause.is_zero() {
                sleep(script.pause).await;
            }
            stream.write_all(piece).await?;
        }
        match script.then {
            Then::Next => {}
            Then::Close => return Ok(()),
            Then::Wait => {
                let _ = timeout(LEAVE_MAX, stream.read(&mut buffer)).await;
                return Ok(());
            }
        }
    }
}

fn number(head: &[u8]) -> Option<usize> {
    let at = memmem::find(head, ANSWER_HEADER.as_bytes())? + ANSWER_HEADER.len() + 2;
    std::str::from_utf8(head.get(at..at + 2)?)
        .ok()?
        .parse()
        .ok()
}
