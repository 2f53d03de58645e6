//! The client of one request.

use std::{io, net::SocketAddr, time::Duration};

use prompt_cache_e2e::http::Connection;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{books::Books, script::Script, ways::CallerWay};

/// The longest that an answer may stand still: many times anything that the schedule holds.
const STANDSTILL_MAX: Duration = Duration::from_secs(30);
/// How long a client that is about to leave waits for what it wanted to see.
const LEAVES_AFTER: Duration = Duration::from_millis(500);

/// What the client got, and when.
#[derive(Clone, Debug, Default)]
pub struct Got {
    /// Of the head, where there was one.
    pub status: Option<u16>,
    pub body: Vec<u8>,
    /// The body ended as its framing promised.
    pub complete: bool,
    /// The client left by itself.
    pub left: bool,
    /// What broke it off.
    pub error: Option<String>,
    pub stood_still: bool,
    pub began_ms: i64,
    pub sent_ms: i64,
    pub first_ms: Option<i64>,
    pub end_ms: i64,
}

/// Sends the script's request to Envoy and reads the answer.
pub async fn call(script: &Script, envoy: SocketAddr, books: &Books) -> Got {
    let mut got = Got {
        began_ms: books.now_ms(),
        ..Got::default()
    };
    if let Err(error) = converse(script, envoy, books, &mut got).await {
        got.stood_still = error.kind() == io::ErrorKind::TimedOut;
        got.error = Some(error.to_string());
    }
    got.end_ms = books.now_ms();
    got
}

async fn converse(
    script: &Script,
    envoy: SocketAddr,
    books: &Books,
    got: &mut Got,
) -> io::Result<()> {
    let mut connection = Connection::new(moving(TcpStream::connect(envoy)).await?);
    let bytes = script.request().encode("llm");
    match script.caller {
        CallerWay::VanishesSending => {
            let _ = moving(connection.write(&bytes[..bytes.len() / 2])).await;
            got.left = true;
            return Ok(());
        }
        CallerWay::Dribbles => {
            let size = bytes.len() / 7 + 1;
            for piece in bytes.chunks(size) {
                // Who answers early wants no more; the answer decides.
                if moving(connection.write(piece)).await.is_err() {
                    break;
                }
                sleep(Duration::from_millis(script.random.clone().u64(1..30))).await;
            }
        }
        CallerWay::Plain | CallerWay::Vanishes { .. } => {
            let _ = moving(connection.write(&bytes)).await;
        }
    }
    got.sent_ms = books.now_ms();
    let leaves_at = match script.caller {
        CallerWay::Vanishes { bytes } => Some(bytes),
        _ => None,
    };
    let head = match leaves_at {
        Some(_) => match timeout(LEAVES_AFTER, connection.read_head()).await {
            Err(_) => {
                got.left = true;
                return Ok(());
            }
            Ok(head) => head?,
        },
        None => moving(connection.read_head()).await?,
    };
    let Some(head) = head else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    got.status = Some(head.status);
    loop {
        if leaves_at.is_some_and(|bytes| got.body.len() >= bytes) {
            got.left = true;
            return Ok(());
        }
        let piece = match leaves_at {
            // What the upstream keeps back until the client has left never comes.
            Some(_) => match timeout(LEAVES_AFTER, connection.read_piece()).await {
                Err(_) => {
                    got.left = true;
                    return Ok(());
                }
                Ok(piece) => piece?,
            },
            None => moving(connection.read_piece()).await?,
        };
        let Some(piece) = piece else { break };
        got.first_ms.get_or_insert_with(|| books.now_ms());
        got.body.extend_from_slice(&piece);
    }
    got.complete = true;
    Ok(())
}

async fn moving<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(STANDSTILL_MAX, step)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
