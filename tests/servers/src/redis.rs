//! Redis (or Valkey) servers: single ones, and a cluster.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Process, command, find};
use crate::{port, until};

/// The password of every server.
pub const PASSWORD: &str = "a-secret-of-the-tests";
/// How long a node of a cluster may be silent before the others replace it.
const NODE_TIMEOUT_MS: u64 = 1000;
/// Slots of a cluster.
const SLOTS: u32 = 16_384;

/// A server. Its data outlives [`Redis::kill`], not the value.
pub struct Redis {
    process: Option<Process>,
    port: u16,
    dir: TempDir,
    program: PathBuf,
    options: Vec<String>,
    is_cluster_node: bool,
}

impl Redis {
    /// Whether a server is installed. `REDIS_SERVER` names another program than the usual.
    pub fn is_installed() -> bool {
        program().is_some()
    }

    /// Starts a server that has synced every write before it answers (`appendfsync always`) and
    /// never evicts.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with options like `["--maxmemory", "8mb"]`.
    pub fn start_with(options: &[&str]) -> Self {
        Self::new(options, false)
    }

    fn new(options: &[&str], is_cluster_node: bool) -> Self {
        let mut server = Self {
            process: None,
            port: 0,
            dir: tempfile::tempdir().unwrap_or_else(|error| panic!("{error}")),
            program: program().unwrap_or_else(|| panic!("Redis is not installed")),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            is_cluster_node,
        };
        until("Redis", || {
            server.port = port::free();
            server.try_start()
        });
        server
    }

    fn try_start(&mut self) -> Result<(), String> {
        let mut redis = command(None, &self.program);
        redis
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .arg("--dir")
            .arg(self.dir.path())
            .args([
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
            ])
            .args(["--maxmemory-policy", "noeviction"])
            .args(["--requirepass", PASSWORD, "--masterauth", PASSWORD]);
        if self.is_cluster_node {
            redis
                .args(["--cluster-enabled", "yes"])
                .args(["--cluster-port", &port::free().to_string()])
                .args(["--cluster-node-timeout", &NODE_TIMEOUT_MS.to_string()])
                // A missing part makes that part fail, not the others.
                .args(["--cluster-require-full-coverage", "no"])
                .args(["--repl-diskless-sync-delay", "0"]);
        }
        redis.args(&self.options);
        let mut process = Process::spawn(redis, &self.dir.path().join("log"));
        let port = self.port;
        let answers = until("Redis", || match process.check() {
            Err(ended) => Ok(Err(ended)),
            Ok(()) => ask(port, &["PING"]).map(|_| Ok(())),
        });
        answers.map(|()| self.process = Some(process))
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How to connect.
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// `kill -9`.
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
        until("Redis", || self.try_start());
    }

    /// The answer to a command: a simple string, a number or a bulk string.
    ///
    /// # Panics
    /// With the server's error.
    pub fn command(&self, words: &[&str]) -> String {
        ask(self.port, words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }
}

/// A cluster of primaries, each with `replicas` copies.
pub struct Cluster {
    nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts three primaries, `replicas` replicas of each, and waits until every node serves.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(replicas: usize) -> Self {
        const PRIMARIES: usize = 3;
        let nodes: Vec<Redis> = (0..PRIMARIES * (1 + replicas))
            .map(|_| Redis::new(&[], true))
            .collect();
        let cluster = Self { nodes };
        cluster.introduce();
        for (i, primary) in cluster.nodes.iter().take(PRIMARIES).enumerate() {
            let share = |i: usize| i as u32 * SLOTS / PRIMARIES as u32;
            let (first, last) = (share(i).to_string(), (share(i + 1) - 1).to_string());
            primary.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
        }
        for (i, replica) in cluster.nodes.iter().enumerate().skip(PRIMARIES) {
            let id = cluster.nodes[i % PRIMARIES].command(&["CLUSTER", "MYID"]);
            until("replica", || {
                ask(replica.port, &["CLUSTER", "REPLICATE", &id])
            });
        }
        cluster.await_ready();
        cluster
    }

    /// Everybody meets everybody: gossip alone takes longer.
    fn introduce(&self) {
        for node in &self.nodes {
            for other in &self.nodes {
                let bus = other.command(&["CONFIG", "GET", "cluster-port"]);
                let port = other.port.to_string();
                node.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
            }
        }
        for (i, node) in self.nodes.iter().enumerate() {
            // Each must have an epoch of its own, or two primaries could claim one slot.
            let epoch = (i + 1).to_string();
            let _ = ask(node.port, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
        }
        let all = format!("cluster_known_nodes:{}", self.nodes.len());
        for node in &self.nodes {
            until("cluster", || expect(node, &["CLUSTER", "INFO"], &all));
        }
    }

    /// Waits until every living node serves, and every replica follows its primary.
    pub fn await_ready(&self) {
        for node in self.nodes.iter().filter(|node| node.process.is_some()) {
            until("cluster", || {
                expect(node, &["CLUSTER", "INFO"], "cluster_state:ok")?;
                let slots = format!("cluster_slots_ok:{SLOTS}");
                expect(node, &["CLUSTER", "INFO"], &slots)
            });
            until("replica", || {
                let role = ask(node.port, &["INFO", "replication"])?;
                let follows =
                    role.contains("role:master") || role.contains("master_link_status:up");
                follows.then_some(()).ok_or(role)
            });
        }
    }

    /// How to connect: a URL of each node.
    pub fn urls(&self) -> String {
        let urls: Vec<String> = self.nodes.iter().map(Redis::url).collect();
        urls.join(" ")
    }

    /// The nodes: primaries first, then their replicas in the same order.
    pub fn nodes(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }
}

fn expect(node: &Redis, words: &[&str], part: &str) -> Result<(), String> {
    let answer = ask(node.port, words)?;
    let holds = answer.lines().any(|line| line == part);
    holds.then_some(()).ok_or(answer)
}

fn url(port: u16) -> String {
    format!("redis://:{PASSWORD}@127.0.0.1:{port}")
}

fn program() -> Option<PathBuf> {
    match std::env::var("REDIS_SERVER") {
        Ok(program) => find(&[&program], &[]),
        Err(_) => find(&["redis-server", "valkey-server"], &[]),
    }
}

/// Asks a server, with its password. Of an array, the last member is the answer.
fn ask(port: u16, words: &[&str]) -> Result<String, String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    let timeout = Some(Duration::from_secs(10));
    stream
        .set_read_timeout(timeout)
        .map_err(|error| error.to_string())?;
    let mut reader = BufReader::new(stream.try_clone().map_err(|error| error.to_string())?);
    let mut answer = String::new();
    for words in [&["AUTH", PASSWORD], words] {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream
            .write_all(request.as_bytes())
            .map_err(|error| error.to_string())?;
        answer = read_reply(&mut reader)?;
    }
    Ok(answer)
}

fn read_reply(reader: &mut BufReader<TcpStream>) -> Result<String, String> {
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .map_err(|error| error.to_string())?;
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).ok_or("no answer")?;
    let size = || rest.parse::<i64>().map_err(|error| error.to_string());
    match kind {
        "-" => Err(rest.to_owned()),
        "$" => {
            let Ok(size) = usize::try_from(size()?) else {
                return Ok(String::new());
            };
            let mut bulk = vec![0; size + 2];
            reader
                .read_exact(&mut bulk)
                .map_err(|error| error.to_string())?;
            bulk.truncate(size);
            Ok(String::from_utf8_lossy(&bulk).into_owned())
        }
        "*" => (0..size()?).try_fold(String::new(), |_, _| read_reply(reader)),
        _ => Ok(rest.to_owned()),
    }
}
