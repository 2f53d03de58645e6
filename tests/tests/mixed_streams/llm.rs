//! The LLM: answers each request as its script says, and remembers what it sent.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use prompt_cache_e2e::{
    http::{Headers, encode_chunk, encode_head},
    upstream::{Call, Upstream},
};
use tokio::time::sleep;

use crate::script::{NUMBER, Script};

/// What the upstream sent for a stream.
#[derive(Clone, Debug)]
pub struct Sent {
    pub body: Vec<u8>,
    /// It was asked for a usage that the client did not ask for.
    pub drop_usage_only: bool,
    pub broke: bool,
}

pub type AllSent = Arc<Mutex<HashMap<usize, Sent>>>;

/// The LLM: answers each request as its script says.
pub async fn serve(mut upstream: Upstream, seed: u64, sent: AllSent) {
    loop {
        let call = upstream.next().await;
        let sent = sent.clone();
        tokio::spawn(async move { answer(call, seed, &sent).await });
    }
}

async fn answer(mut call: Call, seed: u64, sent: &AllSent) {
    let number = call
        .request
        .headers
        .get(NUMBER)
        .and_then(|n| n.parse().ok());
    let mut script = Script::of(seed, number.expect("a number"));
    let seen = call.request.json();
    let include_usage = seen["stream_options"]["include_usage"] == true;
    assert!(
        seen.to_string().find("cache_control").is_none(),
        "a marker got through"
    );
    let body = script.body(include_usage);
    let mut chunks = vec![];
    let mut rest = &body[..];
    while !rest.is_empty() {
        let most = script.chunk_bytes_max.min(rest.len());
        // A few hundred chunks are enough.
        let size = script.random.usize(1..=most).max(body.len() / 300);
        let (chunk, tail) = rest.split_at(size.min(rest.len()));
        chunks.push(chunk);
        rest = tail;
    }
    let breaks = script.upstream_breaks_at.filter(|at| *at < chunks.len());
    sent.lock().unwrap().insert(
        script.number,
        Sent {
            body: body.clone(),
            drop_usage_only: include_usage && !script.asked,
            broke: breaks.is_some(),
        },
    );
    let content_type = if script.stream {
        "text/event-stream"
    } else {
        "application/json"
    };
    let length = body.len().to_string();
    let framing = if script.with_length {
        ("content-length", &*length)
    } else {
        ("transfer-encoding", "chunked")
    };
    let headers = Headers::of(&[
        ("content-type", content_type),
        framing,
        ("connection", "close"),
    ]);
    call.raw(encode_head(script.status, &headers)).await;
    let count = chunks.len();
    for (index, chunk) in chunks.into_iter().enumerate() {
        if breaks == Some(index) {
            return call.reset();
        }
        let mut bytes = if script.with_length {
            chunk.to_vec()
        } else {
            encode_chunk(chunk)
        };
        if index + 1 == count && script.end_with_last && !script.with_length {
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        call.raw(bytes).await;
        if script.delay_ms_max > 0 && script.random.u8(..4) == 0 {
            sleep(Duration::from_millis(
                script.random.u64(..=script.delay_ms_max),
            ))
            .await;
        }
    }
    if !script.with_length && !script.end_with_last {
        call.raw("0\r\n\r\n").await;
    }
}
