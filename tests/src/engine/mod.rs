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
use tokio::{
    sync::{Barrier, oneshot},
    task::{JoinHandle, JoinSet},
};

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
    together: Arc<Barrier>,
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
    arrived: usize,
    served: Vec<Served>,
}

impl Engine {
    /// Starts one with room for `blocks_max` blocks of [`BLOCK_TOKENS`] tokens. It answers a request
    /// once as many are under way as `together` waits for, on all engines that share it: how a test
    /// has a load of its choice.
    pub async fn start(blocks_max: usize, together: Arc<Barrier>) -> Self {
        let upstream = Upstream::start().await;
        let state = Arc::new(Mutex::new(State {
            cache: KvCache::new(blocks_max),
            tokenizer: Tokenizer::default(),
            arrived: 0,
            served: vec![],
        }));
        Self {
            address: upstream.address(),
            running: Some(Running::start(upstream, &together, &state)),
            together,
            state,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests have arrived, answered or not.
    pub fn arrived(&self) -> usize {
        lock(&self.state).arrived
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
        self.running = Some(Running::start(upstream, &self.together, &self.state));
    }
}

impl Running {
    fn start(upstream: Upstream, together: &Arc<Barrier>, state: &Arc<Mutex<State>>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (together, state) = (Arc::clone(together), Arc::clone(state));
        let task = tokio::spawn(serve(upstream, stopped, together, state));
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

/// Serves until `stopped` ends; what is not answered then never is.
async fn serve(
    mut upstream: Upstream,
    mut stopped: oneshot::Receiver<()>,
    together: Arc<Barrier>,
    state: Arc<Mutex<State>>,
) {
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => return upstream.close().await,
            Some(_) = calls.join_next() => {}
            call = upstream.wait() => match call {
                Some(call) => {
                    let (together, state) = (Arc::clone(&together), Arc::clone(&state));
                    calls.spawn(async move { answer_one(call, &together, &state).await });
                }
                None => return,
            },
        }
    }
}

async fn answer_one(call: Call, together: &Barrier, state: &Mutex<State>) {
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
    lock(state).arrived += 1;
    together.wait().await;
    let (text, tokens) = {
        let mut state = lock(state);
        let State {
            cache,
            tokenizer,
            served,
            ..
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
