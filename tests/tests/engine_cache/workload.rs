//! Many tenants who talk at once: each has a long system prompt, marked, and several conversations
//! that grow turn by turn, their last message marked. The same on every run.

use prompt_cache_e2e::{
    engine::{KvCache, Shape, Tokenizer},
    http::Request,
    world::{Cached, cache_of, chat},
};
use serde_json::{Value, json};

use crate::fleet::Fleet;

/// Decides the texts and the order in which conversations take turns.
const SEED: u64 = 9;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub tenants: usize,
    pub conversations: usize,
    pub turns: usize,
}

/// The conversations, as far as they have come.
pub struct Workload {
    size: Size,
    random: fastrand::Rng,
    conversations: Vec<Conversation>,
    /// One engine that forgets nothing, for comparison.
    ideal: (Tokenizer, KvCache),
    pub sums: Sums,
}

struct Conversation {
    key: String,
    messages: Vec<Value>,
}

/// Tokens over all requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    pub requests: usize,
    pub prompt: usize,
    /// What one engine that forgets nothing would have had cached.
    pub ideal: usize,
    /// What clients were shown as read.
    pub reported: u64,
    /// Requests that wrote something.
    writes: u64,
}

impl Workload {
    pub fn new(size: Size) -> Self {
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut conversations = vec![];
        for tenant in 0..size.tenants {
            let system = text(&mut random, &format!("assistant of tenant {tenant}"), 110);
            let system = json!({"role": "system", "content": [
                {"type": "text", "text": system, "cache_control": {"type": "ephemeral"}},
            ]});
            conversations.extend((0..size.conversations).map(|_| Conversation {
                key: format!("key-of-tenant-{tenant}"),
                messages: vec![system.clone()],
            }));
        }
        Self {
            size,
            random,
            conversations,
            ideal: (Tokenizer::default(), KvCache::new(usize::MAX)),
            sums: Sums::default(),
        }
    }

    /// All turns, so many conversations at once.
    pub async fn run(&mut self, fleet: &Fleet, at_once: usize) {
        for turn in 0..self.size.turns {
            let mut order: Vec<usize> = (0..self.conversations.len()).collect();
            self.random.shuffle(&mut order);
            for together in order.chunks(at_once) {
                self.turn(fleet, turn, together).await;
            }
            // What was written in this turn can be read in the next.
            fleet.world.await_commits(self.sums.writes).await;
        }
    }

    /// One turn of these conversations, at once.
    async fn turn(&mut self, fleet: &Fleet, turn: usize, conversations: &[usize]) {
        let mut asked = vec![];
        for n in conversations {
            let question = text(&mut self.random, &format!("question {turn}"), 8);
            let part = json!({"type": "text", "text": question});
            let conversation = &mut self.conversations[*n];
            conversation
                .messages
                .push(json!({"role": "user", "content": [part]}));
            let mut messages = conversation.messages.clone();
            let last = messages.last_mut().unwrap();
            last["content"][0]["cache_control"] = json!({"type": "ephemeral"});
            let body = json!({"model": "demo", "messages": messages});
            asked.push((*n, chat(&conversation.key, &body), body));
        }
        let requests: Vec<&Request> = asked.iter().map(|(_, request, _)| request).collect();
        let responses = fleet.send_all(&requests).await;
        for ((n, _, body), response) in asked.iter().zip(responses) {
            assert_eq!(response.status, 200, "{}", response.text());
            let answer = response.json()["choices"][0]["message"]["content"].clone();
            let messages = &mut self.conversations[*n].messages;
            messages.push(json!({"role": "assistant", "content": answer}));
            self.add(body, answer.as_str().unwrap(), cache_of(&response.usage()));
        }
    }

    fn add(&mut self, body: &Value, answer: &str, reported: Cached) {
        let (tokenizer, cache) = &mut self.ideal;
        let prompt = tokenizer.prompt(Shape::Chat, body);
        let answer = tokenizer.answer(answer);
        self.sums.requests += 1;
        self.sums.prompt += prompt.len();
        self.sums.ideal += cache.serve(&prompt, &answer, None);
        self.sums.reported += reported.read;
        self.sums.writes += u64::from(reported.creation() > 0);
    }
}

/// `lines` lines of about 16 tokens, like none before.
fn text(random: &mut fastrand::Rng, about: &str, lines: usize) -> String {
    let mut line = || {
        let number = random.u32(100_000..1_000_000);
        format!(
            "Rule {number} for the {about}: never mix it up with {}.\n",
            number / 7
        )
    };
    (0..lines).map(|_| line()).collect()
}
