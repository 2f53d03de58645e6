//! Child processes that never outlive us, whatever ends us.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// How long a child may take to end after SIGTERM before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// How long the kernel may take to end a child that was killed.
const KILL_DEADLINE: Duration = Duration::from_secs(2);

/// Where a child's output goes.
pub enum Output<'a> {
    /// Both streams into `NAME.log` in this folder; [`Process::log`] reads it back.
    LogIn(&'a Path),
    /// Both streams to our own stderr.
    Stderr,
    /// As the command has it.
    AsIs,
}

/// A running child. Dropping it kills it; [`Process::stop`] asks first.
pub struct Process {
    name: &'static str,
    child: Child,
    log: Option<PathBuf>,
}

impl Process {
    /// Starts `command` in a process group of its own (a Ctrl-C reaches us alone, we stop the
    /// children in order), with a death signal tied to the calling *thread*: spawn from the
    /// thread that lives longest.
    pub fn spawn(
        name: &'static str,
        mut command: Command,
        output: Output<'_>,
    ) -> Result<Self, String> {
        let failed = |e: io::Error| format!("{name}: {e}");
        let mut log = None;
        match output {
            Output::AsIs => {}
            Output::Stderr => {
                command.stdout(io::stderr()).stderr(io::stderr());
            }
            Output::LogIn(folder) => {
                let path = folder.join(format!("{name}.log"));
                let file = File::options()
                    .create(true)
                    .append(true)
                    .open(&path)
                    .map_err(failed)?;
                command
                    .stdout(file.try_clone().map_err(failed)?)
                    .stderr(file);
                log = Some(path);
            }
        }
        command
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        die_with_parent(&mut command, libc::SIGKILL);
        let program = command
            .as_std()
            .get_program()
            .to_string_lossy()
            .into_owned();
        let child = command
            .spawn()
            .map_err(|e| format!("{name}: cannot start {program}: {e}"))?;
        Ok(Self { name, child, log })
    }

    /// What the child is called in messages.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits until the child ends by itself.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// How the child ended, when it has.
    pub fn end(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends `signal` unless the child has ended.
    pub fn signal(&self, signal: libc::c_int) {
        if let Some(pid) = self
            .child
            .id()
            .and_then(|pid| libc::pid_t::try_from(pid).ok())
        {
            // SAFETY: kill takes no pointers. The child is not reaped yet (`id` would be None),
            // so the number cannot belong to another process.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// SIGTERM, then SIGKILL when the child does not end in time. Reaps it.
    pub async fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        if timeout(STOP_DEADLINE, self.child.wait()).await.is_err() {
            self.kill().await;
        }
    }

    /// SIGKILL, as a crash would look to others. Reaps it.
    pub async fn kill(&mut self) {
        // Fails only if the child has ended already.
        let _ = self.child.kill().await;
    }

    /// What the child has written, if it writes to a log.
    pub fn log(&self) -> String {
        let bytes = self.log.as_ref().and_then(|path| std::fs::read(path).ok());
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    }

    /// The last lines of [`Process::log`], for messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    /// Kills the child and waits for its end, so that nobody writes into folders that go next.
    fn drop(&mut self) {
        if self.child.start_kill().is_ok() {
            let end = Instant::now() + KILL_DEADLINE;
            while self.end().is_none() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        if std::thread::panicking() && self.log.is_some() {
            eprintln!("---- {} ----\n{}", self.name, self.log_tail());
        }
    }
}

/// Makes the kernel send `signal` to the command's process when the thread that spawns it ends.
fn die_with_parent(command: &mut Command, signal: libc::c_int) {
    // The kernel's `unsigned long`, which prctl reads from its variable arguments.
    #[allow(clippy::cast_sign_loss)]
    let signal = signal as libc::c_ulong;
    let parent = std::process::id();
    // SAFETY: between fork and exec the closure makes two system calls and touches no memory that
    // another thread could hold a lock on.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the call above.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
}

/// Makes the kernel send SIGTERM to us when our parent ends, and says whether it has ended already.
pub fn follow_parent() -> io::Result<()> {
    const SIGTERM: libc::c_ulong = libc::SIGTERM as libc::c_ulong;
    // SAFETY: prctl with PR_SET_PDEATHSIG takes a number and no pointer.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, SIGTERM) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
