//! A PostgreSQL server with a database cluster of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::{Process, User, command, find};
use crate::{port, until};

/// The password of its one user, `ledger`.
pub const PASSWORD: &str = "a-secret-of-the-tests";

/// A server. Its data outlives [`Postgres::kill`], not the value.
pub struct Postgres {
    process: Option<Process>,
    port: u16,
    dir: TempDir,
    user: Option<User>,
    programs: PathBuf,
}

impl Postgres {
    /// Whether the server's programs are installed.
    pub fn is_installed() -> bool {
        programs().is_some()
    }

    /// Creates a cluster and starts its server. It speaks TLS with a certificate for 127.0.0.1
    /// that [`Postgres::ca_file`] verifies.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Self {
        let programs = programs().unwrap_or_else(|| panic!("PostgreSQL is not installed"));
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let user = User::for_servers();
        let mut server = Self {
            process: None,
            port: 0,
            dir,
            user,
            programs,
        };
        server.create();
        until("PostgreSQL", || {
            server.port = port::free();
            server.try_start()
        });
        server
    }

    fn create(&self) {
        let password = self.dir.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap_or_else(|error| panic!("{error}"));
        self.own(self.dir.path());
        let mut initdb = command(self.user.as_ref(), &self.programs.join("initdb"));
        initdb
            .args([
                "--username=ledger",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
            ])
            .args(["--locale=C", "--no-sync"])
            .arg(format!("--pwfile={}", password.display()))
            .arg(self.data());
        run(initdb);
        let mut openssl = command(self.user.as_ref(), Path::new("openssl"));
        openssl
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(self.data().join("server.key"))
            .arg("-out")
            .arg(self.ca_file());
        run(openssl);
    }

    /// Gives a file or folder to the user that the server runs as.
    fn own(&self, path: &Path) {
        if let Some(user) = &self.user {
            std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The certificate to trust, PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.data().join("server.crt")
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How to connect, without TLS.
    pub fn url(&self) -> String {
        self.url_through(self.port)
    }

    /// The same by way of another port of 127.0.0.1.
    pub fn url_through(&self, port: u16) -> String {
        format!("postgresql://ledger:{PASSWORD}@127.0.0.1:{port}/postgres?sslmode=disable")
    }

    /// One try to start: an error when it ends at once (its port is taken, or the last one's
    /// processes are not gone yet) or does not answer yet.
    fn try_start(&mut self) -> Result<(), String> {
        let mut postgres = command(self.user.as_ref(), &self.programs.join("postgres"));
        postgres
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(["-c", "max_connections=300"])
            .args(["-c", "ssl=on"])
            .args(["-c", "log_min_messages=fatal"]);
        let mut process = Process::spawn(postgres, &self.dir.path().join("log"));
        let answers = until("PostgreSQL", || {
            if let Err(ended) = process.check() {
                return Ok(Err(ended));
            }
            let mut probe = Command::new(self.programs.join("pg_isready"));
            probe.args(["--quiet", "--host=127.0.0.1", "--timeout=5"]);
            probe.arg(format!("--port={}", self.port));
            match probe.status() {
                Ok(status) if status.success() => Ok(Ok(())),
                Ok(_) => Err("does not answer".to_owned()),
                Err(error) => Ok(Err(error.to_string())),
            }
        });
        answers.map(|()| self.process = Some(process))
    }

    /// See [`Process::limit_files`]. The server's own log files of 16 MiB each must fit.
    pub fn limit_files(&self, bytes: &str) {
        if let Some(process) = &self.process {
            process.limit_files(self.user.as_ref(), bytes);
        }
    }

    /// `kill -9` of the server's first process; the others follow it by themselves.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Stops (`true`) or continues everything that it runs.
    pub fn pause(&self, stop: bool) {
        if let Some(process) = &self.process {
            process.signal_all(if stop { "STOP" } else { "CONT" });
        }
    }

    /// Starts it again on the same port with the same data.
    pub fn start_again(&mut self) {
        until("PostgreSQL", || self.try_start());
    }
}

impl Drop for Postgres {
    /// A killed server would leave a segment of shared memory behind.
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop("QUIT");
        }
    }
}

fn programs() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .collect();
    // The newest first; versions have two digits.
    folders.sort();
    folders.reverse();
    let postgres = find(&["postgres"], &folders)?;
    Some(postgres.parent()?.to_owned())
}

fn run(mut command: Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}
