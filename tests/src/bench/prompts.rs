//! The requests that are sent, ready to be written.

use serde_json::{Value, json};

use crate::{
    answer::find,
    corpus::{Kind, body},
    upstream::{PACE_HEADER, Pace},
};

/// Stands at the start of a prompt: sixteen digits that make it another prompt.
const TOPIC: &str = "topic-";
const TOPIC_DIGITS: usize = 16;

/// What the usage has to say about the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Nothing: no filter.
    Absent,
    /// Nothing read and nothing written: no markers.
    Zero,
    /// Read only.
    Hot,
    /// Written only.
    Cold,
    /// Whatever: a request that only prepares others.
    Any,
}

impl Cache {
    /// Whether `payload` shows it.
    pub fn shown_in(self, payload: &[u8]) -> bool {
        let has = |text: &str| find(payload, text.as_bytes()).is_some();
        let read_nothing = has(r#""cached_tokens":0"#);
        let wrote_nothing = has(r#""cache_write_tokens":0"#);
        match self {
            Self::Absent => !has("cache_write_tokens"),
            Self::Zero => read_nothing && wrote_nothing,
            Self::Hot => has("cached_tokens") && !read_nothing && wrote_nothing,
            Self::Cold => read_nothing && has("cache_write_tokens") && !wrote_nothing,
            Self::Any => true,
        }
    }
}

/// One request, head and body.
#[derive(Clone)]
pub struct Prompt {
    bytes: Vec<u8>,
    pace: Pace,
    topic_at: usize,
}

impl Prompt {
    /// A chat of about `body_bytes`, `marked` or not.
    pub fn new(body_bytes: usize, marked: bool, pace: Pace) -> Self {
        let mut request: Value =
            serde_json::from_slice(&body(Kind::Chat, body_bytes)).unwrap_or_default();
        request["model"] = json!("demo");
        request["stream"] = json!(pace != Pace::Json);
        if pace != Pace::Json {
            request["stream_options"] = json!({"include_usage": true});
        }
        let topic = format!("{TOPIC}{:0TOPIC_DIGITS$x} ", 0);
        for (index, message) in request["messages"]
            .as_array_mut()
            .into_iter()
            .flatten()
            .enumerate()
        {
            if let (0, Some(text)) = (index, message["content"].as_str()) {
                message["content"] = json!(topic.clone() + text);
            }
            if !marked {
                remove_marker(message);
                let parts = message["content"].as_array_mut();
                parts.into_iter().flatten().for_each(remove_marker);
            }
        }
        let body = request.to_string();
        let pace_name = pace.as_str();
        let bytes = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: llm.example\r\nuser-agent: bench\r\n\
             accept: */*\r\naccept-encoding: gzip, deflate\r\ncontent-type: application/json\r\n\
             authorization: Bearer bench-key\r\n{PACE_HEADER}: {pace_name}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes();
        let topic_at = find(&bytes, TOPIC.as_bytes()).map_or(0, |at| at + TOPIC.len());
        Self {
            bytes,
            pace,
            topic_at,
        }
    }

    /// Makes it another prompt from its first block on.
    pub fn set_topic(&mut self, topic: u64) {
        let digits = format!("{topic:0TOPIC_DIGITS$x}");
        self.bytes[self.topic_at..self.topic_at + TOPIC_DIGITS].copy_from_slice(digits.as_bytes());
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn pace(&self) -> Pace {
        self.pace
    }
}

fn remove_marker(value: &mut Value) {
    if let Value::Object(members) = value {
        members.remove("cache_control");
    }
}
