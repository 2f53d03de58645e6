//! Clients that write prefixes of their own and read them again, and know what they may be told.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use prompt_cache_e2e::{
    client::{Client, Response},
    deadline::{PATIENCE, poll},
    world::{cache_of, chat, completion, completion_events, long_prefix, marked, marked_stream},
};
use tokio::task::JoinHandle;

use crate::{balancer::Balancer, llm::PROMPT_TOKENS};

/// Clients at once.
const CLIENTS: usize = 6;
/// Requests that one client makes of one prefix.
const REQUESTS_PER_PREFIX: u64 = 6;
/// Requests that must have been answered before something else happens.
const GOES_ON: u64 = 60;

pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Tally>>,
}

/// What the clients were told.
#[derive(Default)]
pub struct Tally {
    pub requests: u64,
    pub reads: u64,
    /// Answers that show a creation: each is a commit.
    pub created: u64,
    /// Answers whose usage is the upstream's own.
    pub uncached: u64,
    /// Client, topic and tokens of each prefix that was shown as written.
    written: Vec<(String, String, u64)>,
}

impl Load {
    pub fn start(balancer: &Balancer) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let clients = (0..CLIENTS)
            .map(|number| {
                let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
                tokio::spawn(run(balancer.clone(), number, stop, answered))
            })
            .collect();
        Self {
            stop,
            answered,
            clients,
        }
    }

    /// Waits until so many more requests have been answered.
    pub async fn goes_on(&self) {
        let enough = self.answered.load(Ordering::Relaxed) + GOES_ON;
        let reached = poll(PATIENCE, async || {
            (self.answered.load(Ordering::Relaxed) >= enough).then_some(())
        });
        reached.await.expect("the load goes on");
    }

    pub async fn end(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in self.clients {
            let tally = client.await.expect("a client found something wrong");
            all.requests += tally.requests;
            all.reads += tally.reads;
            all.created += tally.created;
            all.uncached += tally.uncached;
            all.written.extend(tally.written);
        }
        all
    }
}

async fn run(
    balancer: Balancer,
    number: usize,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
) -> Tally {
    let mut tally = Tally::default();
    let key = format!("client-{number}");
    let mut topic = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        topic += 1;
        let name = format!("{key}'s matter {topic}");
        let mut tokens = None;
        for request in 0..REQUESTS_PER_PREFIX {
            let stream = request % 2 == 1;
            let response = ask(balancer.next(), &key, &name, stream).await;
            answered.fetch_add(1, Ordering::Relaxed);
            tally.told(&key, &name, &mut tokens, &response, stream);
        }
    }
    tally
}

pub async fn ask(client: Client, key: &str, topic: &str, stream: bool) -> Response {
    let prefix = long_prefix(topic);
    let body = if stream {
        marked_stream(&prefix)
    } else {
        marked(&prefix)
    };
    let answer = client.try_call(&chat(key, &body)).await;
    let response = answer.unwrap_or_else(|error| panic!("a client's request failed: {error}"));
    assert_eq!(response.status, 200, "{}", response.text());
    response
}

impl Tally {
    /// Checks what was shown of a prefix that only this client has: nothing, that it was written
    /// now, or that what was written before was read.
    fn told(
        &mut self,
        key: &str,
        topic: &str,
        tokens: &mut Option<u64>,
        response: &Response,
        stream: bool,
    ) {
        self.requests += 1;
        let usage = response.usage();
        if usage.get("cache_read_input_tokens").is_none() {
            self.uncached += 1;
            let own: String = if stream {
                let events = completion_events(PROMPT_TOKENS);
                events
                    .iter()
                    .map(|event| format!("data: {event}\n\n"))
                    .collect()
            } else {
                completion(PROMPT_TOKENS).to_string()
            };
            assert_eq!(response.text(), own);
            return;
        }
        let cached = cache_of(&usage);
        assert_eq!(usage["prompt_tokens"], PROMPT_TOKENS);
        match (cached.read, cached.creation()) {
            (read @ 1.., 0) => {
                assert_eq!(Some(read), *tokens, "{topic}: never written");
                self.reads += 1;
            }
            (0, created @ 1025..) => {
                assert_eq!(tokens.unwrap_or(created), created, "{topic}");
                if tokens.replace(created).is_none() {
                    self.written.push((key.into(), topic.into(), created));
                }
                self.created += 1;
            }
            _ => panic!("{topic}: {cached:?}"),
        }
    }

    /// The prefixes that were shown as written and are not read, once anything is cached again.
    pub async fn unread(&self, client: Client) -> Vec<String> {
        let mut unread = vec![];
        for (key, topic, tokens) in &self.written {
            let cached = poll(PATIENCE, async || {
                let usage = ask(client, key, topic, false).await.usage();
                usage.get("cache_read_input_tokens")?;
                Some(cache_of(&usage))
            });
            let cached = cached.await.expect("the breaker closes");
            if cached.read != *tokens {
                unread.push(format!("{topic}: {cached:?}"));
            }
        }
        unread
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests: {} read, {} created, {} uncached",
            self.requests, self.reads, self.created, self.uncached
        )
    }
}
