//! `stand-in-llm [ADDRESS]`: the stand-in LLM on its own (127.0.0.1:9000 unless said otherwise;
//! port 0 takes a free one). Prints the address it listens on. `STAND_IN_DELAY_MS` is the pause
//! before each streamed chunk.

use std::{process::ExitCode, time::Duration};

use prompt_cache_e2e::stand_in;
use tokio::net::TcpListener;

const ADDRESS: &str = "127.0.0.1:9000";
const DELAY_MS: u64 = 30;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("stand-in-llm: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| ADDRESS.to_owned());
    let delay_ms = match std::env::var("STAND_IN_DELAY_MS") {
        Ok(text) => text
            .parse()
            .map_err(|_| format!("STAND_IN_DELAY_MS: {text:?} is no number"))?,
        Err(_) => DELAY_MS,
    };
    let listener = TcpListener::bind(&address)
        .await
        .map_err(|e| format!("{address}: {e}"))?;
    println!("{}", listener.local_addr().map_err(|e| e.to_string())?);
    stand_in::serve(listener, Duration::from_millis(delay_ms))
        .await
        .map_err(|e| e.to_string())
}
