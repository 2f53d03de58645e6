//! The cheapest possible LLM: reads a request, discards it, and writes prepared bytes, at a pace
//! that the request asks for.

use std::{io, net::SocketAddr, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::spawn_local,
    time::{MissedTickBehavior, interval},
};

use crate::answer::{Answers, find};

/// The request header that says how to answer: one of [`Pace`].
pub const PACE_HEADER: &str = "x-bench-pace";
/// Pause between two events of a paced stream: 200 tokens a second.
pub const EVENT_INTERVAL: Duration = Duration::from_millis(5);

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// A JSON completion.
    Json,
    /// A short stream at once, the first event in a write of its own.
    Short,
    /// A long stream, one event in each [`EVENT_INTERVAL`].
    Paced,
    /// A long stream as fast as it goes.
    Flood,
}

impl Pace {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Short => "short",
            Self::Paced => "paced",
            Self::Flood => "flood",
        }
    }

    fn of(head: &[u8]) -> Self {
        [Self::Short, Self::Paced, Self::Flood]
            .into_iter()
            .find(|pace| {
                let line = format!("{PACE_HEADER}: {}\r\n", pace.as_str());
                find(head, line.as_bytes()).is_some()
            })
            .unwrap_or(Self::Json)
    }
}

/// Listens on a free port; answers as long as the process lives.
pub async fn start(answers: Rc<Answers>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answers = Rc::clone(&answers);
            // A connection that breaks is the client's to report.
            spawn_local(async move {
                let _ = serve(stream, &answers).await;
            });
        }
    });
    Ok(address)
}

async fn serve(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 256 << 10];
    let mut filled = 0;
    loop {
        let head_bytes = loop {
            if let Some(at) = find(&buffer[..filled], b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Ok(()),
                read => filled += read,
            }
        };
        let head = &buffer[..head_bytes];
        let pace = Pace::of(head);
        let body_bytes = crate::answer::content_length(head).unwrap_or(0);
        let mut missing = (head_bytes + body_bytes).saturating_sub(filled);
        while missing > 0 {
            match stream.read(&mut buffer).await? {
                0 => return Ok(()),
                read => missing = missing.saturating_sub(read),
            }
        }
        // Nothing is pipelined.
        filled = 0;
        answer(&mut stream, answers, pace).await?;
    }
}

async fn answer(stream: &mut TcpStream, answers: &Answers, pace: Pace) -> io::Result<()> {
    match pace {
        Pace::Json => stream.write_all(&answers.json).await,
        Pace::Short => {
            stream.write_all(&answers.first_event).await?;
            stream.write_all(&answers.short_rest).await
        }
        Pace::Flood => stream.write_all(&answers.long).await,
        Pace::Paced => {
            stream.write_all(&answers.first_event).await?;
            let mut ticks = interval(EVENT_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for event in &answers.events {
                ticks.tick().await;
                stream.write_all(event).await?;
            }
            stream.write_all(&answers.end).await
        }
    }
}
