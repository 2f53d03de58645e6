//! One keep-alive connection that sends prepared requests and checks what comes back.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    answer::{EVENTS, Framing, dechunked, find},
    prompts::{Cache, Prompt},
    upstream::Pace,
};

/// Most bytes of one response, head included.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// A connection to one Envoy.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// When the parts of a response came, from the moment the request was sent.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// First byte of the body: the first event.
    pub first: Duration,
    /// The end.
    pub whole: Duration,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| format!("{address}: {e}"))?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        Ok(Self {
            stream,
            buffer: vec![0; RESPONSE_BYTES_MAX],
        })
    }

    /// Sends `prompt` and reads the whole answer. `Err` if it is not what it has to be: a wrong
    /// answer is fast to give.
    pub async fn exchange(&mut self, prompt: &Prompt, cache: Cache) -> Result<Times, String> {
        let start = Instant::now();
        let failed = |e: std::io::Error| format!("a request broke: {e}");
        self.stream
            .write_all(prompt.bytes())
            .await
            .map_err(failed)?;
        let mut filled = 0;
        let mut head = None;
        let mut first = None;
        let (head_bytes, framing) = loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await;
            let read = read.map_err(failed)?;
            if read == 0 {
                return Err("a response ended early, or is too long".to_owned());
            }
            filled += read;
            let seen = &self.buffer[..filled];
            if head.is_none() {
                let Some(at) = find(seen, b"\r\n\r\n") else {
                    continue;
                };
                head = Some((at + 4, Framing::of(&seen[..at + 4])?));
            }
            let Some((head_bytes, framing)) = head else {
                continue;
            };
            let body = &seen[head_bytes..];
            if !body.is_empty() {
                first.get_or_insert_with(|| start.elapsed());
            }
            if framing.complete(body) {
                break (head_bytes, framing);
            }
        };
        let whole = start.elapsed();
        let body = &self.buffer[head_bytes..filled];
        check(prompt.pace(), cache, body, framing)?;
        Ok(Times {
            first: first.unwrap_or(whole),
            whole,
        })
    }
}

fn check(pace: Pace, cache: Cache, body: &[u8], framing: Framing) -> Result<(), String> {
    let payload = match framing {
        Framing::Length(_) => body.to_vec(),
        Framing::Chunked => dechunked(body).ok_or("a response is not chunked as it should be")?,
    };
    if matches!(pace, Pace::Paced | Pace::Flood) {
        // Every delta, the usage and `[DONE]`.
        let events = memchr::memmem::find_iter(&payload, b"\n\n").count();
        if events != EVENTS + 2 {
            return Err(format!("{events} events of {}", EVENTS + 2));
        }
    }
    if cache.shown_in(&payload) {
        Ok(())
    } else {
        let tail = &payload[payload.len().saturating_sub(600)..];
        Err(format!(
            "{cache:?} is not what the usage shows: {}",
            String::from_utf8_lossy(tail)
        ))
    }
}
