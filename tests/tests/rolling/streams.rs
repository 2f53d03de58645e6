//! Answers that are in their middle while something happens to the proxy.

use prompt_cache_e2e::{
    client::{Client, Incoming},
    world::{cache_of, chat, completion_events, long_prefix, marked_stream},
};
use serde_json::Value;

use crate::{
    llm::{Llm, PROMPT_TOKENS},
    load::ask,
};

/// How many.
const STREAMS: usize = 4;
const KEY: &str = "streams";

pub struct Streams(Vec<Incoming>);

/// What each of them wrote, by topic.
pub struct Written(Vec<(String, u64)>);

impl Streams {
    /// Each writes a prefix of its own; returns when every client has seen the beginning.
    pub async fn begin(client: Client) -> Self {
        let mut all = vec![];
        for number in 0..STREAMS {
            let body = marked_stream(&long_prefix(&topic(number)));
            let sent = client.send(&Llm::hold(chat(KEY, &body))).await;
            let mut incoming = sent.head().await;
            assert_eq!(incoming.head.status, 200);
            incoming.read_until("\"s.\"").await;
            all.push(incoming);
        }
        Self(all)
    }

    /// Lets them end: all bytes must have come, and that the prefix was written.
    pub async fn finish(self, llm: &mut Llm) -> Written {
        llm.finish(STREAMS).await;
        let mut written = vec![];
        for (number, incoming) in self.0.into_iter().enumerate() {
            let response = incoming.finish().await;
            let usage = response.usage();
            let cached = cache_of(&usage);
            assert_eq!(usage["prompt_tokens"], PROMPT_TOKENS);
            assert_eq!((cached.read, cached.one_hour), (0, 0));
            assert!(cached.five_minutes > 1024, "{cached:?}");
            assert_eq!(beside_usage(response.events()), beside_usage(own_events()));
            assert!(response.text().ends_with("data: [DONE]\n\n"));
            written.push((topic(number), cached.five_minutes));
        }
        Written(written)
    }
}

impl Written {
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// Panics unless each is read.
    pub async fn are_read(&self, client: Client) {
        for (topic, tokens) in &self.0 {
            let usage = ask(client, KEY, topic, true).await.usage();
            assert_eq!(cache_of(&usage).read, *tokens, "{topic}");
        }
    }
}

fn topic(number: usize) -> String {
    format!("stream {number}")
}

/// What the upstream sent.
fn own_events() -> Vec<Value> {
    let events = completion_events(PROMPT_TOKENS);
    let parsed = events
        .iter()
        .filter_map(|event| serde_json::from_str(event).ok());
    parsed.collect()
}

fn beside_usage(mut events: Vec<Value>) -> Vec<Value> {
    for event in &mut events {
        if let Some(event) = event.as_object_mut() {
            event.remove("usage");
        }
    }
    events
}
