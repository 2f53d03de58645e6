//! An open loop: requests leave by a schedule, however late the answers are, and a latency begins
//! at the moment the schedule had, not at the one the request left.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use tokio::{
    task::{JoinSet, yield_now},
    time::{Instant, sleep_until, timeout_at},
};

use super::wire::{Connection, greatest};

/// How to load.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Arrivals per second, on average; their gaps are exponential.
    pub per_second: f64,
    /// How long they arrive.
    pub time: Duration,
    /// Requests in flight at most: an arrival that finds no connection is lost.
    pub connections_max: usize,
    /// When a request without its whole answer is given up.
    pub patience: Duration,
    /// Decides gaps and requests.
    pub seed: u64,
}

/// One request.
pub struct Shot {
    /// Under which it is counted.
    pub kind: &'static str,
    /// On the wire.
    pub bytes: Vec<u8>,
}

/// What became of the requests of one kind.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many the schedule had.
    pub scheduled: u64,
    /// Of each whole 200, milliseconds from its scheduled moment to its last byte.
    pub ok_ms: Vec<f64>,
    /// Of each whole 503.
    pub shed_ms: Vec<f64>,
    /// Whole answers with other statuses.
    pub others: u64,
    /// 200s that say that something was read.
    pub read: u64,
    /// 200s that say that something was written.
    pub created: u64,
    /// Connections that broke.
    pub broken: u64,
    /// Arrivals that found no connection.
    pub lost: u64,
    /// Given up.
    pub overdue: u64,
    /// Greatest distance between a scheduled moment and the request's departure: more than a few
    /// milliseconds, and it is the client that was overloaded.
    pub departed_late_ms: f64,
}

/// By kind.
pub type Tallies = BTreeMap<&'static str, Tally>;

impl Tally {
    /// 200s that were whole within `limit_ms` of their scheduled moment.
    pub fn in_time(&self, limit_ms: f64) -> u64 {
        self.ok_ms.iter().filter(|ms| **ms <= limit_ms).count() as u64
    }
}

/// The value that `parts` in a hundred of `values` do not exceed; 0 without any.
pub fn percentile(values: &[f64], parts: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let index = (values.len() as f64 * parts / 100.0).ceil() as usize;
    let last = values.len().saturating_sub(1);
    values
        .get(index.saturating_sub(1).min(last))
        .copied()
        .unwrap_or_default()
}

/// The connections of a client.
struct Pool {
    address: SocketAddr,
    idle: RefCell<Vec<Connection>>,
    open: Cell<usize>,
    max: usize,
}

/// Sends what `next` says until the schedule ends, and waits for what is in flight.
pub async fn run(
    address: SocketAddr,
    plan: Plan,
    mut next: impl FnMut(&mut fastrand::Rng) -> Shot,
) -> Tallies {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let pool = Rc::new(Pool {
        address,
        idle: RefCell::default(),
        open: Cell::new(0),
        max: plan.connections_max,
    });
    let tallies = Rc::new(RefCell::new(Tallies::new()));
    let mut tasks = JoinSet::new();
    let begin = Instant::now();
    let mut due = Duration::ZERO;
    loop {
        due += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / plan.per_second);
        if due >= plan.time {
            break;
        }
        let scheduled = begin + due;
        if scheduled > Instant::now() {
            sleep_until(scheduled).await;
        } else {
            yield_now().await;
        }
        let Shot { kind, bytes } = next(&mut random);
        let free = pool.take();
        let late_ms = ms_since(scheduled);
        {
            let mut tallies = tallies.borrow_mut();
            let tally = tallies.entry(kind).or_default();
            tally.scheduled += 1;
            tally.lost += u64::from(free.is_none());
            tally.departed_late_ms = tally.departed_late_ms.max(late_ms);
        }
        let Some(connection) = free else { continue };
        let (pool, tallies) = (Rc::clone(&pool), Rc::clone(&tallies));
        tasks.spawn_local(async move {
            let patience = scheduled + plan.patience;
            let exchange = exchange(&pool, connection, &bytes);
            let done = timeout_at(patience, exchange).await;
            let mut tallies = tallies.borrow_mut();
            let tally = tallies.entry(kind).or_default();
            let ms = ms_since(scheduled);
            match done {
                Ok(Ok(Seen {
                    status: 200,
                    read,
                    created,
                })) => {
                    tally.ok_ms.push(ms);
                    tally.read += u64::from(read);
                    tally.created += u64::from(created);
                }
                Ok(Ok(Seen { status: 503, .. })) => tally.shed_ms.push(ms),
                Ok(Ok(_)) => tally.others += 1,
                Ok(Err(_)) => tally.broken += 1,
                Err(_) => tally.overdue += 1,
            }
            if !matches!(done, Ok(Ok(_))) {
                pool.open.set(pool.open.get() - 1);
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    tallies.take()
}

/// Sends it `connections` at a time as fast as answers come, for `time`: whole 200s per second.
pub async fn closed(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    next: impl FnMut() -> Vec<u8> + 'static,
) -> Result<f64, String> {
    let next = Rc::new(RefCell::new(next));
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let next = Rc::clone(&next);
        tasks.spawn_local(async move {
            let mut connection = Connection::open(address).await?;
            let mut count = 0_u64;
            while Instant::now() < end {
                let bytes = (next.borrow_mut())();
                let reply = connection.exchange(&bytes).await?;
                if reply.status != 200 {
                    return Err(io::Error::other(format!("status {}", reply.status)));
                }
                count += 1;
            }
            Ok::<_, io::Error>(count)
        });
    }
    let mut count = 0;
    while let Some(done) = tasks.join_next().await {
        count += done
            .map_err(|e| e.to_string())?
            .map_err(|e| format!("{address}: {e}"))?;
    }
    Ok(count as f64 / time.as_secs_f64())
}

/// What an answer says.
struct Seen {
    status: u16,
    read: bool,
    created: bool,
}

/// A connection, or the room for one.
enum Free {
    Idle(Box<Connection>),
    Room,
}

impl Pool {
    fn take(&self) -> Option<Free> {
        if let Some(connection) = self.idle.borrow_mut().pop() {
            return Some(Free::Idle(Box::new(connection)));
        }
        (self.open.get() < self.max).then(|| {
            self.open.set(self.open.get() + 1);
            Free::Room
        })
    }
}

async fn exchange(pool: &Pool, free: Free, request: &[u8]) -> io::Result<Seen> {
    let mut connection = match free {
        Free::Idle(connection) => *connection,
        Free::Room => Connection::open(pool.address).await?,
    };
    let reply = connection.exchange(request).await?;
    let some = |name: &str| greatest(reply.body, name).is_some_and(|tokens| tokens > 0);
    let seen = Seen {
        status: reply.status,
        read: some("cache_read_input_tokens"),
        created: some("cache_creation_input_tokens"),
    };
    if reply.closes {
        pool.open.set(pool.open.get() - 1);
    } else {
        pool.idle.borrow_mut().push(connection);
    }
    Ok(seen)
}

fn ms_since(moment: Instant) -> f64 {
    moment.elapsed().as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::{LocalSet, spawn_local},
    };

    use super::*;

    #[test]
    fn percentiles() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&values, 50.0), 100.0);
        assert_eq!(percentile(&values, 99.0), 198.0);
        assert_eq!(percentile(&values, 100.0), 200.0);
        assert_eq!(percentile(&[], 99.0), 0.0);
    }

    /// A server that answers only its first connection: the schedule goes on all the same, and
    /// what is lost, overdue or in time adds up.
    #[tokio::test]
    async fn late_answers_do_not_slow_the_schedule() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async move {
            let mut held = vec![];
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                if held.is_empty() {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    let mut request = [0; 100];
                    let _ = stream.read(&mut request).await.unwrap();
                    stream.write_all(answer).await.unwrap();
                }
                held.push(stream);
            }
        };
        let plan = Plan {
            per_second: 500.0,
            time: Duration::from_millis(400),
            connections_max: 3,
            patience: Duration::from_millis(100),
            seed: 1,
        };
        let local = LocalSet::new();
        let tallies = local.run_until(async move {
            spawn_local(serve);
            let shot = |_: &mut fastrand::Rng| Shot {
                kind: "x",
                bytes: b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            };
            run(address, plan, shot).await
        });
        let tallies = tallies.await;
        let tally = &tallies["x"];
        assert!((120..280).contains(&tally.scheduled), "{tally:?}");
        assert_eq!(tally.in_time(1e9), 1);
        let sum = tally.lost + tally.overdue + tally.broken + 1;
        assert_eq!(sum, tally.scheduled, "{tally:?}");
        assert!(tally.lost > 0 && tally.overdue > 0, "{tally:?}");
    }
}
