//! A load of HTTP/1.1 requests over a few kept-alive connections, each on a thread of its own.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::service::Service;

/// Connections, each with one request at a time.
const CONNECTIONS: u32 = 8;

/// Requests that are sent in turn.
pub struct Load {
    addr: SocketAddr,
    requests: Vec<Vec<u8>>,
    next: AtomicUsize,
}

/// What a run took.
pub struct Measured {
    requests: usize,
    wall: Duration,
    service_cpu: Duration,
    latencies_us: Vec<u32>,
}

impl Measured {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.wall.as_secs_f64()
    }

    /// Requests per second of the service's processor time.
    pub fn per_core(&self) -> f64 {
        self.requests as f64 / self.service_cpu.as_secs_f64()
    }

    /// A quantile of the time from when a request was due to the end of its answer.
    pub fn latency_us(&self, quantile: f64) -> f64 {
        let last = self.latencies_us.len() - 1;
        self.latencies_us[(last as f64 * quantile) as usize].into()
    }
}

impl Load {
    pub fn new(addr: SocketAddr, requests: Vec<Vec<u8>>) -> Self {
        Self {
            addr,
            requests,
            next: AtomicUsize::new(0),
        }
    }

    /// Sends for `time`: as fast as answers come, or `rate` a second, due at even distances.
    pub fn run(&self, service: &Service, time: Duration, rate: Option<f64>) -> Measured {
        let gap = rate.map(|rate| Duration::from_secs_f64(f64::from(CONNECTIONS) / rate));
        let cpu = service.cpu();
        let start = Instant::now();
        let mut latencies_us: Vec<u32> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..CONNECTIONS)
                .map(|n| {
                    let first = gap.map_or(start, |gap| start + gap * n / CONNECTIONS);
                    scope.spawn(move || self.connection(first, start + time, gap))
                })
                .collect();
            let done = threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap());
            done.collect()
        });
        let wall = start.elapsed();
        latencies_us.sort_unstable();
        Measured {
            requests: latencies_us.len(),
            wall,
            service_cpu: service.cpu() - cpu,
            latencies_us,
        }
    }

    fn connection(&self, first: Instant, end: Instant, gap: Option<Duration>) -> Vec<u32> {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut latencies_us = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        let mut due = first;
        loop {
            let now = Instant::now();
            if now >= end {
                return latencies_us;
            }
            match gap {
                Some(gap) => {
                    std::thread::sleep(due.saturating_duration_since(now));
                    self.exchange(&mut stream, &mut buffer);
                    latencies_us.push(due.elapsed().as_micros() as u32);
                    due += gap;
                }
                None => {
                    self.exchange(&mut stream, &mut buffer);
                    latencies_us.push(now.elapsed().as_micros() as u32);
                }
            }
        }
    }

    fn exchange(&self, stream: &mut TcpStream, buffer: &mut [u8]) {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        stream
            .write_all(&self.requests[next % self.requests.len()])
            .unwrap();
        let mut filled = 0;
        loop {
            let read = stream.read(&mut buffer[filled..]).unwrap();
            assert!(read > 0, "closed");
            filled += read;
            if let Some(bytes) = whole(&buffer[..filled]) {
                let answer = &buffer[..filled];
                assert!(bytes == filled && answer.starts_with(b"HTTP/1.1 200"));
                // A classification that is not the pure read it should be would be too cheap.
                let head = String::from_utf8_lossy(answer);
                assert!(
                    !head.contains("text_needed") && !head.contains("\"dropped\":1"),
                    "{head}"
                );
                return;
            }
        }
    }
}

/// Length of the response, once its head is there.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap();
    let length = text
        .split("content-length: ")
        .nth(1)?
        .split("\r\n")
        .next()?;
    let all = head + length.parse::<usize>().unwrap();
    (bytes.len() >= all).then_some(all)
}

pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes()
}

pub fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
