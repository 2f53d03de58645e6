//! `health`: asks a running service whether it is ready, for containers without curl.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use prompt_cache_core::wire::READY_PATH;

use super::Failed;

/// Longest wait for the whole answer: below the two seconds that probes commonly allow.
const DEADLINE: Duration = Duration::from_millis(1_500);

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// Where the service listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8088")]
    address: SocketAddr,
}

impl HealthArgs {
    /// `Err` when the service cannot be reached in time or says that it is not ready.
    pub(super) fn run(&self) -> Result<(), Failed> {
        // No proxy of the environment, which the agent would read otherwise.
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(DEADLINE))
            .proxy(None)
            .build();
        let url = format!("http://{}{READY_PATH}", self.address);
        let answer = ureq::Agent::new_with_config(config).get(&url).call();
        answer
            .map(|_| ())
            .map_err(|error| Failed::other(format!("{url}: {error}")))
    }
}
