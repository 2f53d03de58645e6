//! The head of a response: what it says about the body, and what it may no longer say.

use prompt_cache_core::{edge::Bypass, response::BodyKind};

use super::delivery::Place;
use crate::host::{self, Headers};

/// Headers that no longer describe a body which may change.
const BODY_HEADERS: [&str; 6] = [
    "content-length",
    "etag",
    "digest",
    "content-digest",
    "repr-digest",
    "content-md5",
];

/// Status and headers.
pub(super) struct Head(Headers);

impl Head {
    /// Reads them, in their callback.
    pub fn read() -> Self {
        Self(host::response_headers().unwrap_or_default())
    }

    /// Whether the status is 2xx.
    pub fn success(&self) -> bool {
        let status = self.0.get(":status");
        status.is_some_and(|s| s.len() == 3 && s.starts_with(b"2"))
    }

    /// The body's layout; `None` if it is not one that carries usage.
    pub fn kind(&self) -> Option<BodyKind> {
        BodyKind::from_content_type(self.0.get("content-type").as_deref())
    }

    /// The body's layout, or why it cannot be read.
    pub fn readable(&self) -> Result<BodyKind, Bypass> {
        let kind = self.kind().ok_or(Bypass::ContentType)?;
        let encoding = self.0.get("content-encoding");
        if encoding.is_some_and(|e| !e.is_empty() && !e.eq_ignore_ascii_case(b"identity")) {
            return Err(Bypass::Encoded);
        }
        Ok(kind)
    }

    /// How the body is framed decides where its bytes can wait.
    pub fn place(&self) -> Place {
        if self.0.has("trailer") {
            Place::Announced
        } else if self.0.has("content-length") {
            Place::Vm
        } else if self.0.has("transfer-encoding") {
            Place::Chunked
        } else if self.0.has("connection") {
            // HTTP/1 until the connection closes (HTTP/2 has no such header): no trailers either.
            Place::Vm
        } else {
            Place::Unframed
        }
    }

    /// Removes what a change of the body would make wrong.
    pub fn forget_body(&self) {
        for name in BODY_HEADERS.iter().filter(|name| self.0.has(name)) {
            let _ = host::remove_response_header(name);
        }
    }
}
