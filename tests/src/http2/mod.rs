//! HTTP/2 with prior knowledge, where a test is about frames: a client that uploads in its own
//! pieces, and an upstream whose every frame the test decides.

mod client;
mod upstream;

pub use client::{Upload, call};
pub use upstream::{Http2Call, Http2Upstream};

use h2::RecvStream;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::Headers;

/// Body and trailers; `Err` says what broke, and what had arrived.
async fn read(stream: &mut RecvStream) -> Result<(Vec<u8>, Headers), String> {
    let mut body = vec![];
    while let Some(piece) = stream.data().await {
        let piece = piece.map_err(|e| format!("{e}, after: {}", String::from_utf8_lossy(&body)))?;
        // Fails only when the stream is gone, which the next read reports.
        let _ = stream.flow_control().release_capacity(piece.len());
        body.extend_from_slice(&piece);
    }
    let trailers = stream.trailers().await.map_err(|e| e.to_string())?;
    Ok((body, headers_of(&trailers.unwrap_or_default())))
}

fn headers_of(map: &HeaderMap) -> Headers {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    };
    Headers(map.iter().map(pair).collect())
}

fn map_of(headers: &Headers) -> HeaderMap {
    let pair = |(name, value): &(String, String)| -> (HeaderName, HeaderValue) {
        let name = name.parse().unwrap_or_else(|e| panic!("{name}: {e}"));
        let value = value.parse().unwrap_or_else(|e| panic!("{value}: {e}"));
        (name, value)
    };
    headers.0.iter().map(pair).collect()
}
