//! The real index service, as a child process.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::process::Command;

use crate::{
    client::Client,
    deadline::poll,
    envoy::Stats,
    http::Request,
    layout::Layout,
    process::{Output, Process},
};

/// How long the service may take to open its store and load its tokenizers.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How to run the service.
#[derive(Clone, Debug)]
pub struct Config {
    /// Port, 0 for any.
    pub port: u16,
    /// The service's own config file; without one it serves the model `demo`.
    pub file: Option<PathBuf>,
    /// Where its embedded store is; empty where `file` names another store.
    pub data_dir: PathBuf,
}

/// A running index service.
pub struct Index {
    process: Process,
    client: Client,
}

impl Index {
    /// Starts the service and waits until it is ready. `Err` has the log's last lines.
    pub async fn start(
        layout: &Layout,
        config: &Config,
        output: Output<'_>,
    ) -> Result<Self, String> {
        layout.require(&[layout.index()])?;
        let port = match config.port {
            0 => free_port().map_err(|e| format!("no free port: {e}"))?,
            port => port,
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut command = Command::new(layout.index());
        command.arg("serve");
        if let Some(file) = &config.file {
            command.arg("--config").arg(file);
        }
        command.args(["--listen", &address.to_string()]);
        if !config.data_dir.as_os_str().is_empty() {
            command.arg("--data-dir").arg(&config.data_dir);
        }
        let mut process = Process::spawn("prompt-cache-index", command, output)?;
        let client = Client::new(address);
        let ready = poll(START_DEADLINE, async || {
            if let Some(status) = process.end() {
                return Some(Err(status));
            }
            let answer = client.try_call(&Request::get("/readyz")).await.ok()?;
            (answer.status == 200).then_some(Ok(()))
        });
        match ready.await {
            Some(Ok(())) => Ok(Self { process, client }),
            Some(Err(status)) => Err(format!(
                "the index service ended with {status}\n{}",
                process.log_tail()
            )),
            None => Err(format!(
                "the index service is not ready\n{}",
                process.log_tail()
            )),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.client.address()
    }

    /// The child.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its own metrics.
    pub async fn stats(&self) -> Option<Stats> {
        let answer = self.client.try_call(&Request::get("/metrics")).await.ok()?;
        (answer.status == 200).then(|| Stats::parse(&String::from_utf8_lossy(&answer.body)))
    }

    /// The same service again, on the same port and the same store.
    pub async fn restart(
        &mut self,
        layout: &Layout,
        data_dir: &Path,
        output: Output<'_>,
    ) -> Result<(), String> {
        self.process.stop().await;
        let port = self.address().port();
        let config = Config {
            port,
            file: None,
            data_dir: data_dir.to_owned(),
        };
        *self = Self::start(layout, &config, output).await?;
        Ok(())
    }
}

/// A port that was free a moment ago: for programs that cannot say which one they got.
pub fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
