//! The whole stack in the foreground: index service, Envoy with the filter and, when no upstream
//! is given, the stand-in LLM.

pub mod demo;
mod settings;
mod stop;

use std::{
    io::Write,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

pub use settings::Settings;
use stop::Stop;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::{
    envoy::{self, Address, Envoy},
    index::{self, Index},
    layout::Layout,
    process::{Output, Process},
};

/// How long the stand-in LLM may take to say where it listens.
const STAND_IN_DEADLINE: Duration = Duration::from_secs(10);

/// A running stack.
pub struct Stack {
    // Declared, and so dropped, from the edge inwards.
    envoy: Envoy,
    index: Index,
    stand_in: Option<Process>,
    upstream: Address,
}

/// Where the children's output goes.
#[derive(Clone, Copy, Debug)]
pub enum Logs {
    /// To our stderr, the access log included.
    Stderr,
    /// Into files beside the rendered config.
    Files,
}

/// Runs the stack until a signal comes (`Ok`), or Envoy or the stand-in LLM ends (`Err`), printing
/// `ready` once. The index service may go away: that requests go on without it is the point, and
/// another one may be started on its port.
pub async fn up(layout: &Layout, settings: &Settings) -> Result<(), String> {
    let mut stop = Stop::listen()?;
    let run_dir = run_dir()?;
    let mut stack = tokio::select! {
        stack = Stack::start(layout, settings, run_dir.path(), Logs::Stderr) => stack?,
        // What has started so far is dropped, which kills it.
        () = stop.requested() => return Ok(()),
    };
    eprintln!("stack: Envoy on http://{}", stack.envoy.listener());
    eprintln!(
        "stack: its admin interface on http://{}",
        stack.envoy.admin().address()
    );
    eprintln!(
        "stack: the index service on http://{}",
        stack.index.address()
    );
    let what = if stack.stand_in.is_some() {
        "the stand-in LLM"
    } else {
        "the upstream"
    };
    eprintln!("stack: {what} on http://{}", stack.upstream);
    say_ready();
    let result = tokio::select! {
        () = stop.requested() => Ok(()),
        message = stack.child_ended() => Err(message),
    };
    stack.stop().await;
    result
}

fn say_ready() {
    let mut out = std::io::stdout();
    // Nobody has to listen.
    let _ = writeln!(out, "ready").and_then(|()| out.flush());
}

/// A fresh folder for everything one run writes.
fn run_dir() -> Result<TempDir, String> {
    let made = tempfile::Builder::new()
        .prefix("prompt-cache-stack.")
        .tempdir();
    made.map_err(|e| format!("no temporary folder: {e}"))
}

impl Stack {
    /// Starts everything and waits until all of it answers. Files go to `run_dir`.
    pub async fn start(
        layout: &Layout,
        settings: &Settings,
        run_dir: &Path,
        logs: Logs,
    ) -> Result<Self, String> {
        layout.require(&[
            layout.envoy(),
            layout.filter(),
            layout.index(),
            layout.stand_in(),
        ])?;
        settings
            .ports()
            .iter()
            .try_for_each(|(name, port)| require_free(name, *port))?;
        let output = || match logs {
            Logs::Stderr => Output::Stderr,
            Logs::Files => Output::LogIn(run_dir),
        };
        let (stand_in, upstream) = match &settings.upstream {
            Some(address) => (None, address.clone()),
            None => {
                let (process, address) = start_stand_in(layout).await?;
                (Some(process), address.into())
            }
        };
        let index_config = index::Config {
            port: settings.index_port,
            file: settings.index_config.clone(),
            data_dir: data_dir(settings, run_dir)?,
        };
        let index = Index::start(layout, &index_config, output()).await?;
        let mut config =
            envoy::Config::new(layout.filter(), upstream.clone(), index.address().into());
        config.port = settings.envoy_port;
        config.admin_port = settings.envoy_admin_port;
        config.concurrency = settings.concurrency;
        config.log_level = "warning";
        let envoy = Envoy::start(layout, &config, run_dir, output()).await?;
        envoy.await_policy().await?;
        Ok(Self {
            envoy,
            index,
            stand_in,
            upstream,
        })
    }

    /// Waits until a child ends by itself that the stack cannot do without.
    async fn child_ended(&mut self) -> String {
        let Self {
            envoy,
            index,
            stand_in,
            ..
        } = self;
        let stand_in = async {
            match stand_in {
                Some(process) => ended(process).await,
                None => std::future::pending().await,
            }
        };
        let index_ended = async {
            let message = ended(index.process()).await;
            eprintln!("stack: {message}\nstack: going on without the index service");
            std::future::pending().await
        };
        tokio::select! {
            message = ended(envoy.process()) => message,
            message = index_ended => message,
            message = stand_in => message,
        }
    }

    /// Stops everything, the edge first.
    pub async fn stop(&mut self) {
        self.envoy.process().stop().await;
        self.index.process().stop().await;
        if let Some(process) = &mut self.stand_in {
            process.stop().await;
        }
    }
}

async fn ended(process: &mut Process) -> String {
    let how = process
        .ended()
        .await
        .map_or_else(|e| e.to_string(), |status| status.to_string());
    format!(
        "{} ended unexpectedly ({how})\n{}",
        process.name(),
        process.log_tail()
    )
}

async fn start_stand_in(layout: &Layout) -> Result<(Process, SocketAddr), String> {
    let mut command = Command::new(layout.stand_in());
    command.arg("127.0.0.1:0").stdout(Stdio::piped());
    let mut process = Process::spawn("stand-in-llm", command, Output::AsIs)?;
    let pipe = process
        .child()
        .stdout
        .take()
        .ok_or("stand-in-llm: no pipe")?;
    let mut lines = BufReader::new(pipe).lines();
    match timeout(STAND_IN_DEADLINE, lines.next_line()).await {
        Ok(Ok(Some(line))) => {
            let address = line
                .parse()
                .map_err(|e| format!("stand-in-llm said {line:?}: {e}"))?;
            Ok((process, address))
        }
        _ => Err("stand-in-llm did not say where it listens".to_owned()),
    }
}

fn data_dir(settings: &Settings, run_dir: &Path) -> Result<PathBuf, String> {
    let dir = settings
        .data_dir
        .clone()
        .unwrap_or_else(|| run_dir.join("data"));
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(dir)
}

/// Envoy shares its port with other listeners of the same user: a second stack would take half of
/// the first one's connections instead of failing.
fn require_free(name: &str, port: u16) -> Result<(), String> {
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Ok(()),
        Err(e) => Err(format!("{name}={port}: {e}")),
    }
}
