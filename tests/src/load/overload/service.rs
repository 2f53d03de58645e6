//! The index service by itself: what it can take, and how it answers twice of that.

use std::{net::SocketAddr, time::Duration};

use prompt_cache_core::{
    PrefixHash,
    api::Api,
    ledger::{Breakpoint, Candidate, Fingerprint, Tier},
    wire::{CLASSIFY_PATH, ClassifyRequest, TEXT_CONTENT_TYPE, WIRE_VERSION},
};

use crate::load::{
    open_loop::{Plan, Shot, Tally, closed, run},
    prompt::{Mark, Template, Values},
};

/// Classifications at a time that show what it can take.
const CONNECTIONS: usize = 8;
/// How long that is measured.
const TIME: Duration = Duration::from_secs(4);

/// Classifications that bring a prompt no request had before.
pub struct Classifications {
    request: ClassifyRequest,
    body: Vec<u8>,
    topic: u64,
}

impl Classifications {
    /// Of prompts whose first block is `text`; topics from `topic` on.
    pub fn new(text: &str, topic: u64) -> Self {
        let values = Values {
            topic: 0,
            tenant: 0,
            model: 0,
            answer: 0,
        };
        let request = Template::new(Api::Chat, false, Mark::None, text).with(values);
        let head_bytes = memchr::memmem::find(&request, b"\r\n\r\n").map_or(0, |at| at + 4);
        Self {
            request: ClassifyRequest {
                v: WIRE_VERSION,
                api: Api::Chat,
                principal: Fingerprint::new([1; 32]),
                model: "M0".to_owned(),
                breakpoints: vec![Breakpoint {
                    block: 0,
                    tier: Tier::FiveMinutes,
                }],
                candidates: vec![],
            },
            body: request[head_bytes..].to_vec(),
            topic,
        }
    }

    /// The next one on the wire.
    pub fn draw(&mut self) -> Vec<u8> {
        self.topic += 1;
        let mut hash = [7; 32];
        hash[..8].copy_from_slice(&self.topic.to_be_bytes());
        self.request.candidates = vec![Candidate {
            block: 0,
            hash: PrefixHash::new(hash),
        }];
        let line = serde_json::to_vec(&self.request).unwrap_or_default();
        let mut bytes = format!(
            "POST {CLASSIFY_PATH} HTTP/1.1\r\nhost: index\r\ncontent-type: {TEXT_CONTENT_TYPE}\r\n\
             content-length: {}\r\n\r\n",
            line.len() + 1 + self.body.len()
        )
        .into_bytes();
        bytes.extend(line);
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Classifications per second that it answers, a few at a time.
pub async fn capacity(address: SocketAddr, text: &str) -> Result<f64, String> {
    let mut classifications = Classifications::new(text, 1 << 40);
    closed(address, CONNECTIONS, TIME, move || classifications.draw()).await
}

/// So many per second, whatever it answers.
pub async fn flood(address: SocketAddr, text: &str, plan: Plan) -> Tally {
    let mut classifications = Classifications::new(text, (1 << 41) + (plan.seed << 32));
    let mut tallies = run(address, plan, |_| Shot {
        kind: "classify",
        bytes: classifications.draw(),
    })
    .await;
    tallies.remove("classify").unwrap_or_default()
}
