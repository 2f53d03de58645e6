//! What one stream is: everything about it follows from the seed and its number.

use prompt_cache_core::response::BodyKind;
use prompt_cache_e2e::{
    backend::large_json,
    http::Request,
    world::{chat, completion_events, long_prefix, marked},
};
use serde_json::json;

const PROMPT_TOKENS: u64 = 100_000;
const KEYS: usize = 8;
const TOPICS: usize = 6;
/// Carries a stream's number to the upstream.
pub const NUMBER: &str = "x-stream";

/// Everything about one stream.
#[derive(Clone, Debug)]
pub struct Script {
    pub number: usize,
    pub key: usize,
    pub topic: Option<usize>,
    pub known_model: bool,
    pub stream: bool,
    pub asked: bool,
    pub status: u16,
    /// Leaves after so many bytes.
    pub client_leaves_at: Option<usize>,
    /// Breaks off after so many chunks.
    pub upstream_breaks_at: Option<usize>,
    pub tokens: usize,
    pub token_bytes: usize,
    pub line_end: &'static str,
    pub done: bool,
    pub usage_first: bool,
    pub chunk_bytes_max: usize,
    pub delay_ms_max: u64,
    pub with_length: bool,
    pub end_with_last: bool,
    pub random: fastrand::Rng,
}

impl Script {
    pub fn of(seed: u64, number: usize) -> Self {
        let mut random =
            fastrand::Rng::with_seed(seed ^ (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let chance = |percent: u32, random: &mut fastrand::Rng| random.u32(..100) < percent;
        let one_of =
            |values: &[usize], random: &mut fastrand::Rng| values[random.usize(..values.len())];
        let stream = chance(75, &mut random);
        Self {
            number,
            key: random.usize(..KEYS),
            topic: chance(70, &mut random).then(|| random.usize(..TOPICS)),
            known_model: chance(90, &mut random),
            stream,
            asked: random.bool(),
            status: if chance(3, &mut random) { 500 } else { 200 },
            client_leaves_at: chance(12, &mut random).then(|| random.usize(..4_000)),
            upstream_breaks_at: chance(4, &mut random).then(|| random.usize(..20)),
            tokens: random.usize(1..30),
            token_bytes: one_of(&[3, 8, 40, 3_000, 20_000], &mut random),
            line_end: ["\n", "\r\n"][random.usize(..2)],
            done: chance(90, &mut random),
            usage_first: chance(20, &mut random),
            chunk_bytes_max: one_of(&[20, 200, 2_000, 20_000, 1 << 20], &mut random),
            delay_ms_max: [0, 0, 1, 5][random.usize(..4)],
            with_length: random.bool(),
            end_with_last: random.bool(),
            random,
        }
    }

    pub fn request(&self) -> Request {
        let mut body = match self.topic {
            Some(topic) => marked(&long_prefix(&format!("topic {topic}"))),
            None => json!({"model": "demo", "messages": [{"role": "user", "content": "hi"}]}),
        };
        if !self.known_model {
            body["model"] = json!("nobody's");
        }
        if self.stream {
            body["stream"] = json!(true);
            if self.asked {
                body["stream_options"] = json!({"include_usage": true});
            }
        }
        chat(&format!("key {}", self.key), &body).header(NUMBER, &self.number.to_string())
    }

    /// The LLM's answer: a usage frame only to those who ask for it.
    pub fn body(&self, with_usage: bool) -> Vec<u8> {
        let filler = "é~".repeat(self.token_bytes / 3 + 1);
        if !self.stream {
            return large_json(
                self.usage_first,
                self.tokens * self.token_bytes,
                PROMPT_TOKENS,
            )
            .into_bytes();
        }
        let events = completion_events(PROMPT_TOKENS);
        let mut all = vec![events[0].replace("Ye", &filler); self.tokens];
        all.push(events[2].clone());
        if with_usage {
            all.push(events[3].clone());
        }
        if self.done {
            all.push(events[4].clone());
        }
        let all = all.iter().map(|event| format!("data: {event}\n\n"));
        all.collect::<String>()
            .replace('\n', self.line_end)
            .into_bytes()
    }

    pub fn kind(&self) -> BodyKind {
        if self.stream {
            BodyKind::Sse
        } else {
            BodyKind::Json
        }
    }
}
