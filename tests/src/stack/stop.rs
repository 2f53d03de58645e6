//! The signals that end a run.

use std::future::pending;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for SIGINT, SIGTERM and SIGHUP from its creation on: none is lost between two waits.
pub struct Stop([Signal; 3]);

impl Stop {
    /// Starts listening.
    pub fn listen() -> Result<Self, String> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        match kinds.map(signal) {
            [Ok(interrupt), Ok(terminate), Ok(hangup)] => Ok(Self([interrupt, terminate, hangup])),
            _ => Err("cannot listen for signals".to_owned()),
        }
    }

    /// Waits until one of them has come.
    pub async fn requested(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            Some(()) = interrupt.recv() => {}
            Some(()) = terminate.recv() => {}
            Some(()) = hangup.recv() => {}
            else => pending().await,
        }
    }
}
