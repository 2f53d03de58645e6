//! A stand-in for one replica of an engine, with a prefix cache that is simulated block by block:
//! what it says to have cached follows from the requests that reached *it*, and from nothing else.

mod answer;
mod cache;
mod prompt;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle};

pub use answer::Tokens;
pub use cache::{BLOCK_TOKENS, KvCache};
pub use prompt::{Shape, Tokenizer};

use crate::{
    http::Request,
    upstream::{Call, Upstream},
};

/// One replica, on a loopback port.
pub struct Engine {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    running: Option<Running>,
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// A request that an engine has answered.
#[derive(Clone, Debug)]
pub struct Served {
    /// As it arrived.
    pub request: Request,
    /// What its usage said.
    pub tokens: Tokens,
}

#[derive(Debug)]
struct State {
    cache: KvCache,
    tokenizer: Tokenizer,
    served: Vec<Served>,
}

impl Engine {
    /// Starts one with room for `blocks_max` blocks of [`BLOCK_TOKENS`] tokens.
    pub async fn start(blocks_max: usize) -> Self {
        let upstream = Upstream::start().await;
        let state = Arc::new(Mutex::new(State {
            cache: KvCache::new(blocks_max),
            tokenizer: Tokenizer::default(),
            served: vec![],
        }));
        Self {
            address: upstream.address(),
            running: Some(Running::start(upstream, &state)),
            state,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has answered.
    pub fn served(&self) -> Vec<Served> {
        lock(&self.state).served.clone()
    }

    /// The sum over what it has answered.
    pub fn tokens(&self) -> Tokens {
        lock(&self.state)
            .served
            .iter()
            .map(|served| served.tokens)
            .sum()
    }

    /// Ends it: from now on connections are refused.
    pub async fn kill(&mut self) {
        let Some(Running { stop, task }) = self.running.take() else {
            return;
        };
        drop(stop);
        task.await.unwrap_or_else(|e| panic!("{e}"));
    }

    /// Starts it again where it was, with nothing in its cache.
    pub async fn restart(&mut self, blocks_max: usize) {
        let upstream = Upstream::start_at(self.address).await;
        lock(&self.state).cache = KvCache::new(blocks_max);
        self.running = Some(Running::start(upstream, &self.state));
    }
}

impl Running {
    fn start(upstream: Upstream, state: &Arc<Mutex<State>>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(upstream, stopped, Arc::clone(state)));
        Self { stop, task }
    }
}

impl std::iter::Sum for Tokens {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            prompt: sum.prompt + one.prompt,
            cached: sum.cached + one.cached,
            answer: sum.answer + one.answer,
        })
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until `stopped` ends; a request that is being answered is answered.
async fn serve(
    mut upstream: Upstream,
    mut stopped: oneshot::Receiver<()>,
    state: Arc<Mutex<State>>,
) {
    loop {
        tokio::select! {
            _ = &mut stopped => return upstream.close().await,
            call = upstream.wait() => match call {
                Some(call) => answer_one(call, &state).await,
                None => return,
            },
        }
    }
}

async fn answer_one(call: Call, state: &Mutex<State>) {
    let Some(shape) = Shape::of(&call.request.target) else {
        // Its health, or what no engine knows.
        let found = call.request.target == "/health";
        return call
            .body(if found { 200 } else { 404 }, "text/plain", "")
            .await;
    };
    let Ok(request) = serde_json::from_slice::<Value>(&call.request.body) else {
        return call
            .json(400, r#"{"error":{"message":"the body is not JSON"}}"#)
            .await;
    };
    let (text, tokens) = {
        let mut state = lock(state);
        let State {
            cache,
            tokenizer,
            served,
        } = &mut *state;
        let prompt = tokenizer.prompt(shape, &request);
        let text = answer::text(digest(&prompt));
        let answer = tokenizer.answer(&text);
        let tokens = Tokens {
            prompt: prompt.len(),
            cached: cache.serve(&prompt, &answer, request["cache_salt"].as_str()),
            answer: answer.len(),
        };
        served.push(Served {
            request: call.request.clone(),
            tokens,
        });
        (text, tokens)
    };
    let model = &request["model"];
    if shape == Shape::Chat && request["stream"] == true {
        let events = answer::events(model, &text, tokens);
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        call.events(&events).await;
    } else {
        let whole = answer::whole(shape, model, &text, tokens);
        call.json(200, whole.to_string()).await;
    }
}

fn digest(tokens: &[u32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    tokens.hash(&mut hasher);
    hasher.finish()
}
