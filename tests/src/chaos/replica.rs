//! One replica of the index service, behind the proxy that the filter reaches it through.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use prompt_cache_e2e::{
    client::Client,
    deadline::poll,
    faults::{Fault, Faults, Route},
    http::Request,
    layout::Layout,
    process::{Output, Process},
};
use prompt_cache_test_servers::port;
use serde_json::Value;
use tokio::process::Command;

use crate::weather::ServiceFault;

const NAMES: [&str; 2] = ["index-0", "index-1"];
const ROUTES: [Route; 4] = [Route::Classify, Route::Commit, Route::Policy, Route::Ready];
/// How long it may take to be ready when nothing is wrong any more.
const READY_MAX: Duration = Duration::from_secs(30);
/// The library that moves a process's clock, in a folder of the machine's kind.
const FAKETIME: &str = "faketime/libfaketimeMT.so.1";

/// A replica.
pub struct Replica {
    layout: Layout,
    folder: PathBuf,
    number: usize,
    address: SocketAddr,
    process: Option<Process>,
    faults: Faults,
}

/// Debian's library that moves a process's clock, where it is installed.
fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?;
    let mut files = folders.filter_map(|folder| Some(folder.ok()?.path().join(FAKETIME)));
    files.find(|file| file.exists())
}

/// Whether the clocks of the service can be moved here.
pub fn clocks_move() -> bool {
    faketime().is_some()
}

impl Replica {
    /// Starts it with a configuration, which goes to `folder`.
    pub async fn start(
        layout: &Layout,
        folder: &Path,
        number: usize,
        config: &Value,
    ) -> Result<Self, String> {
        layout.require(&[layout.index()])?;
        let loopback = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let address = loopback(port::free());
        // Ports that no outgoing connection takes while nobody listens on them.
        let faults = Faults::start_at(loopback(port::free()), address).await;
        faults.forget();
        let mut replica = Self {
            layout: layout.clone(),
            folder: folder.to_owned(),
            number,
            address,
            process: None,
            faults,
        };
        fs::write(replica.config_file(), config.to_string()).map_err(|e| e.to_string())?;
        replica.set_clock(0)?;
        replica.spawn()?;
        replica.ready().await?;
        Ok(replica)
    }

    fn config_file(&self) -> PathBuf {
        self.folder.join(format!("index-{}.yaml", self.number))
    }

    fn clock_file(&self) -> PathBuf {
        self.folder.join(format!("clock-{}", self.number))
    }

    fn spawn(&mut self) -> Result<(), String> {
        let mut command = Command::new("sh");
        // A file that may not grow then fails like one on a full disk, instead of killing.
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
        command.arg(self.layout.index()).arg("serve");
        command.arg("--config").arg(self.config_file());
        command.args(["--listen", &self.address.to_string()]);
        if let Some(library) = faketime() {
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", self.clock_file())
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let name = NAMES[self.number];
        self.process = Some(Process::spawn(name, command, Output::LogIn(&self.folder))?);
        Ok(())
    }

    /// Sets how far its clock is ahead.
    pub fn set_clock(&self, ahead_ms: i64) -> Result<(), String> {
        let file = self.clock_file();
        let new = file.with_extension("new");
        let (sign, ms) = (
            if ahead_ms < 0 { '-' } else { '+' },
            ahead_ms.unsigned_abs(),
        );
        let text = format!("{sign}{}.{:03}\n", ms / 1000, ms % 1000);
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &file))
            .map_err(|e| e.to_string())
    }

    /// Where the filter finds it.
    pub fn proxy(&self) -> &Faults {
        &self.faults
    }

    /// A fault begins.
    pub async fn strike(&mut self, fault: ServiceFault) {
        let fault = match fault {
            ServiceFault::Kill => {
                if let Some(process) = &mut self.process {
                    process.kill().await;
                }
                return;
            }
            ServiceFault::Pause => return self.signal(libc::SIGSTOP),
            ServiceFault::Refuses => return self.faults.down().await,
            ServiceFault::Silent => Fault::Hang,
            ServiceFault::Slow { ms } => Fault::Delay(Duration::from_millis(ms)),
            ServiceFault::Errors => Fault::Answer(503, b"{}".to_vec()),
            ServiceFault::WrongJson => {
                Fault::Answer(200, br#"{"status":"ok","split":[],"models":7}"#.to_vec())
            }
            ServiceFault::NotHttp => Fault::Raw(b"\x00\xff220 mail ready\r\n\r\n".to_vec()),
            ServiceFault::Cut { bytes } => Fault::Cut(bytes),
            ServiceFault::AnswersLost => Fault::Cut(0),
        };
        for route in ROUTES {
            self.faults.set(route, fault.clone());
        }
    }

    /// It ends.
    pub async fn heal(&mut self, fault: ServiceFault) -> Result<(), String> {
        match fault {
            ServiceFault::Kill => return self.spawn(),
            ServiceFault::Pause => self.signal(libc::SIGCONT),
            ServiceFault::Refuses => self.faults.up().await,
            _ => {
                for route in ROUTES {
                    self.faults.set(route, Fault::None);
                }
            }
        }
        Ok(())
    }

    fn signal(&self, signal: libc::c_int) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// Its process, for `/proc` and limits.
    pub fn pid(&mut self) -> Option<u32> {
        self.process
            .as_mut()
            .and_then(|process| process.child().id())
    }

    /// Waits until it is ready.
    pub async fn ready(&mut self) -> Result<(), String> {
        let client = Client::new(self.address);
        let ready = poll(READY_MAX, async || {
            let answer = client.try_call(&Request::get("/readyz")).await.ok()?;
            (answer.status == 200).then_some(())
        });
        if ready.await.is_some() {
            return Ok(());
        }
        Err(format!(
            "index service {} is not ready: {:?}\n{}",
            self.number,
            self.process.as_mut().and_then(Process::end),
            process_tail(self.process.as_ref())
        ))
    }
}

fn process_tail(process: Option<&Process>) -> String {
    process.map(Process::log_tail).unwrap_or_default()
}
