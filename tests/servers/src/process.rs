//! A server's process: its user, its log, its end.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to end by itself.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// Last bytes of a log that a failure shows.
const LOG_TAIL_BYTES: usize = 4000;

/// A running server; killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command whose output is appended to `log`. The kernel ends it with the thread
    /// that calls this, should that die first.
    pub fn spawn(mut command: Command, log: &Path) -> Self {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let errors = file.try_clone().unwrap_or_else(|error| panic!("{error}"));
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            child,
            log: log.to_owned(),
        }
    }

    /// Whether it has ended, with the end of its log.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("ended with {status}: {}", self.log_tail())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Limits the size of the files that it and its children write, as a full disk would: bytes,
    /// or `unlimited`. `user` is the one that it runs as.
    ///
    /// # Panics
    /// When `prlimit` is not installed, or not allowed.
    pub fn limit_files(&self, user: Option<&User>, bytes: &str) {
        for pid in self.family() {
            // A child may have ended by itself.
            let _ = command(user, Path::new("prlimit"))
                .args(["--pid", &pid, &format!("--fsize={bytes}:")])
                .status()
                .unwrap_or_else(|error| panic!("prlimit: {error}"));
        }
    }

    /// Its number and those of its children.
    fn family(&self) -> Vec<String> {
        let own = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.unwrap_or_else(|error| panic!("{error}"));
        let all = std::iter::once(own.to_string()).chain(children.split(' ').map(str::to_owned));
        all.filter(|pid| !pid.is_empty()).collect()
    }

    /// [`Process::signal`] for it and its children.
    pub fn signal_all(&self, name: &str) {
        // A child may have ended by itself.
        let _ = Command::new("kill")
            .arg(format!("-{name}"))
            .args(self.family())
            .stderr(Stdio::null())
            .status();
    }

    /// Sends a signal by its name (`STOP`, `CONT`, `TERM`, …).
    pub fn signal(&self, name: &str) {
        let _ = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status();
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.wait();
    }

    /// Asks it to end with a signal, and kills it when it does not.
    pub fn stop(&mut self, signal: &str) {
        self.signal(signal);
        let end = Instant::now() + STOP_DEADLINE;
        while Instant::now() < end && self.check().is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.child
            .wait()
            .unwrap_or_else(|_| ExitStatus::from_raw(0))
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES)..];
        String::from_utf8_lossy(tail).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command that ends with its parent, run by `user` where one is given.
pub fn command(user: Option<&User>, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(user) = user {
        command.args([
            &format!("--reuid={}", user.uid),
            &format!("--regid={}", user.gid),
            "--clear-groups",
        ]);
    }
    command.arg("--pdeathsig=KILL").arg("--").arg(program);
    command
}

/// A user of this machine.
#[derive(Clone, Debug)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// Whom a server may run as that refuses root: nobody else where we are not root ourselves.
    pub fn for_servers() -> Option<Self> {
        let we_are_root = std::fs::metadata("/proc/self")
            .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        we_are_root.then(|| {
            let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
            Self::find(&users, "postgres")
                .or_else(|| Self::find(&users, "nobody"))
                .unwrap_or_else(|| panic!("neither of the users postgres and nobody exists"))
        })
    }

    fn find(users: &str, name: &str) -> Option<Self> {
        let fields: Vec<&str> = users
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&name))?;
        Some(Self {
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
        })
    }
}

/// The first of `programs` that is on PATH or in one of `folders`.
pub fn find(programs: &[&str], folders: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    programs
        .iter()
        .flat_map(|program| {
            folders
                .iter()
                .chain(&on_path)
                .map(move |dir| dir.join(program))
        })
        .find(|candidate| candidate.is_file())
}
