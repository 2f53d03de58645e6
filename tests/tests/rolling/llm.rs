//! An upstream that answers everything: at once, or half of it, and the rest when the test says so.

use std::net::SocketAddr;

use prompt_cache_e2e::{
    deadline::within,
    http::Request,
    upstream::{Call, Upstream},
    world::{completion, completion_events},
};
use tokio::{sync::mpsc, task::JoinHandle};

/// What it says it counted.
pub const PROMPT_TOKENS: u64 = 5000;
/// Requests with this header get the beginning of a stream.
const HELD: &str = "x-held";
/// Events of that beginning.
const BEGINNING: usize = 2;

pub struct Llm {
    address: SocketAddr,
    task: JoinHandle<()>,
    held: mpsc::UnboundedReceiver<Call>,
}

impl Llm {
    pub async fn start() -> Self {
        let upstream = Upstream::start().await;
        let (sender, held) = mpsc::unbounded_channel();
        Self {
            address: upstream.address(),
            task: tokio::spawn(serve(upstream, sender)),
            held,
        }
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has the answer to a streamed request stop in its middle.
    pub fn hold(request: Request) -> Request {
        request.header(HELD, "yes")
    }

    /// Sends the rest of so many answers that were held.
    pub async fn finish(&mut self, count: usize) {
        for _ in 0..count {
            let mut call = within("a held answer", self.held.recv()).await.unwrap();
            for event in &completion_events(PROMPT_TOKENS)[BEGINNING..] {
                call.chunk(format!("data: {event}\n\n")).await;
            }
            call.end().await;
        }
    }
}

impl Drop for Llm {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut upstream: Upstream, held: mpsc::UnboundedSender<Call>) {
    while let Some(call) = upstream.wait().await {
        tokio::spawn(answer(call, held.clone()));
    }
}

async fn answer(mut call: Call, held: mpsc::UnboundedSender<Call>) {
    let events = completion_events(PROMPT_TOKENS);
    if call.request.headers.get(HELD).is_some() {
        call.stream_head().await;
        for event in &events[..BEGINNING] {
            call.chunk(format!("data: {event}\n\n")).await;
        }
        // Fails only when the test is over.
        let _ = held.send(call);
    } else if call.request.json()["stream"] == true {
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        call.events(&events).await;
    } else {
        call.json(200, completion(PROMPT_TOKENS).to_string()).await;
    }
}
