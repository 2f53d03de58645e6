//! The upstream: answers each request as its script says, and writes down what it sent.

use std::{net::SocketAddr, time::Duration};

use prompt_cache_e2e::http::{Connection, Headers, Request, encode_chunk, encode_head};
use serde_json::Value;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    answer::{Answer, Framing},
    books::{Books, Sent},
    delivered::{UsageOnly, common, excerpt},
    prompt,
    script::{Model, NUMBER, Script},
    settings::Plant,
    ways::LlmWay,
};

/// The longest wait for a client's leave.
const LEAVE_MAX: Duration = Duration::from_secs(10);

/// Starts it.
pub async fn start(books: Books) -> Result<SocketAddr, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.map_err(|e| e.to_string())?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(receive(stream, books.clone()));
        }
    });
    Ok(address)
}

async fn receive(stream: TcpStream, books: Books) {
    let mut connection = Connection::new(stream);
    let Some(request) = connection.read_request().await else {
        return;
    };
    let number = request.headers.get(NUMBER).and_then(|n| n.parse().ok());
    match number {
        Some(number) => answer(connection, &request, number, &books).await,
        None => {
            let headers = Headers::of(&[("content-length", "2"), ("connection", "close")]);
            let bytes = [encode_head(200, &headers), b"ok".to_vec()].concat();
            let _ = connection.write(&bytes).await;
        }
    }
}

async fn answer(mut connection: Connection, request: &Request, number: u64, books: &Books) {
    let script = Script::of(books.seed, number);
    let asked = asked_usage(&request.body);
    let total: u64 = script
        .blocks
        .iter()
        .map(|block| prompt::tokens(*block))
        .sum();
    let answer = Answer::of(&script, total, asked);
    let added = asked && !script.asked;
    let usage_only = match (script.llm, added) {
        _ if script.asked && script.junk.is_none() => UsageOnly::Arrives,
        // Not edited, so not dropped either; and what an event of that size takes along.
        (LlmWay::Giant, _) | (_, false) => UsageOnly::MayBeDropped,
        (_, true) => UsageOnly::IsDropped,
    };
    let arrived_ms = books.now_ms();
    let before = books.lock().sent.insert(
        number,
        Sent {
            answer: answer.clone(),
            usage_only,
            arrived_ms,
            first_event_ms: None,
            last_ms: None,
            broke: false,
            problem: forwarded(&script, request).err(),
        },
    );
    if before.is_some() {
        books.violation(&format!("request {number} was sent to the upstream twice"));
    }
    send(&mut connection, &script, &answer, books).await;
    let broke = answer.resets_at.is_some();
    if broke {
        if let Some(sent) = books.lock().sent.get_mut(&number) {
            sent.broke = true;
        }
        connection.reset();
    }
}

async fn send(connection: &mut Connection, script: &Script, answer: &Answer, books: &Books) {
    let mut random = script.random.clone();
    let mut body = answer.bytes();
    if books.plant == Some(Plant::FlipByte) && script.number.is_multiple_of(20) {
        let at = body.len() / 4;
        body[at] ^= 1;
    }
    let end = answer.resets_at.unwrap_or(body.len()).min(body.len());
    if script.llm == LlmWay::ResetsAtOnce {
        return broken(script, books);
    }
    let event_stream = script.stream && answer.status == 200;
    let framing = answer.framing;
    let fails = books.plant == Some(Plant::Failed) && script.number.is_multiple_of(20);
    let status = if fails { 500 } else { answer.status };
    let head = encode_head(status, &headers(event_stream, framing, body.len()));
    if connection.write(&head).await.is_err() {
        return;
    }
    let most = [20, 200, 2_000, 20_000, 1 << 20][random.usize(..5)];
    let stalls_after = end / 2;
    let mut at = 0;
    while at < end {
        // A hundred chunks are enough.
        let size = random.usize(1..=most).max(body.len() / 100).min(end - at);
        let next = at + size;
        mark(script, answer, (at, next), end, books);
        let chunk = &body[at..next];
        let bytes = if framing == Framing::Chunked {
            encode_chunk(chunk)
        } else {
            chunk.to_vec()
        };
        if connection.write(&bytes).await.is_err() {
            return;
        }
        match script.llm {
            LlmWay::Slow { pause_ms } => sleep(Duration::from_millis(pause_ms)).await,
            LlmWay::Stalls { pause_ms } if (at..next).contains(&stalls_after) => {
                sleep(Duration::from_millis(pause_ms)).await;
            }
            _ => {}
        }
        at = next;
    }
    match script.llm {
        LlmWay::WaitsForLeave => {
            // Nothing more is sent on this connection: what comes is its end.
            let mut rest = [0; 1];
            let _ = timeout(LEAVE_MAX, connection.stream().read(&mut rest)).await;
            broken(script, books);
        }
        _ if answer.resets_at.is_some() => {
            if answer.framing == Framing::UntilClose {
                mark(script, answer, (end, usize::MAX), end, books);
            }
            broken(script, books);
        }
        _ => {
            mark(script, answer, (end, usize::MAX), end, books);
            if framing == Framing::Chunked {
                let _ = connection.write(b"0\r\n\r\n").await;
            }
        }
    }
}

fn headers(event_stream: bool, framing: Framing, length: usize) -> Headers {
    let content_type = if event_stream {
        "text/event-stream"
    } else {
        "application/json"
    };
    let mut headers = Headers::of(&[("content-type", content_type), ("connection", "close")]);
    let length = length.to_string();
    let (name, value) = match framing {
        Framing::Length => ("content-length", &*length),
        Framing::Chunked => ("transfer-encoding", "chunked"),
        Framing::UntilClose => return headers,
    };
    headers.0.push((name.to_owned(), value.to_owned()));
    headers
}

/// Bytes `range` are about to be written.
fn mark(script: &Script, answer: &Answer, range: (usize, usize), end: usize, books: &Books) {
    let (from, to) = range;
    // `usize::MAX` is the end itself, after the last byte.
    let covers = |at: usize| from < at && at <= to;
    if answer.earns_at.is_some_and(covers) && !unearned(script, books) {
        books.paid(script);
    }
    let now_ms = books.now_ms();
    if let Some(sent) = books.lock().sent.get_mut(&script.number) {
        if answer.first_event_bytes.is_some_and(covers) {
            sent.first_event_ms = Some(now_ms);
        }
        if to >= end {
            sent.last_ms = Some(now_ms);
        }
    }
}

fn unearned(script: &Script, books: &Books) -> bool {
    books.plant == Some(Plant::Unearned) && script.number.is_multiple_of(3)
}

fn broken(script: &Script, books: &Books) {
    let now_ms = books.now_ms();
    if let Some(sent) = books.lock().sent.get_mut(&script.number) {
        sent.broke = true;
        sent.last_ms = Some(now_ms);
    }
}

fn asked_usage(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body)
        .is_ok_and(|body| body["stream_options"]["include_usage"] == true)
}

/// Whether what arrived is what was sent, without its markers and, for a stream, with its usage
/// asked for.
fn forwarded(script: &Script, request: &Request) -> Result<(), String> {
    if script.junk.is_some() {
        let sent = script.request().body;
        return if request.body == sent {
            Ok(())
        } else {
            Err(format!(
                "junk was changed: {:?}",
                String::from_utf8_lossy(&request.body)
            ))
        };
    }
    let wanted = script.body(false);
    if request.body == wanted.as_bytes() {
        return Ok(());
    }
    let may_differ = script.spelling.spaced || script.stream && !script.asked;
    let same = || {
        let mut got: Value = serde_json::from_slice(&request.body).ok()?;
        if script.stream && !script.asked && script.model != Model::Unknown {
            let added = got.as_object_mut()?.remove("stream_options");
            if added.is_some_and(|added| added["include_usage"] != true) {
                return None;
            }
        }
        (got == serde_json::from_str::<Value>(&wanted).ok()?).then_some(())
    };
    if may_differ && same().is_some() {
        return Ok(());
    }
    let same = common(&request.body, wanted.as_bytes()).saturating_sub(20);
    Err(format!(
        "forwarded from byte {same} {:?} instead of {:?}",
        excerpt(&request.body[same..]),
        excerpt(&wanted.as_bytes()[same..])
    ))
}
