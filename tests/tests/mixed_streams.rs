//! Thousands of streams of every kind at once, clients and LLMs that leave, an index service that
//! comes and goes: every delivered byte is right, nothing hangs, no VM is lost, memory is bounded.
//!
//! `STREAMS` is how many (1,000 without it), `SEED` another run of the same kind. Everything about
//! one stream follows from the seed and its number, so that a failure names what to look at.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use prompt_cache_core::{
    ledger::{Split, TierTokens},
    response::{Answer, BodyKind},
};
use prompt_cache_e2e::{
    backend::{expected, large_json},
    client::Client,
    deadline::{PATIENCE, poll},
    faults::{Fault, Gate, Route},
    http::{Headers, Request, encode_chunk, encode_head, find},
    upstream::{Call, Upstream},
    world::{Options, World, chat, completion_events, long_prefix, marked},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

/// Streams at the same time.
const IN_FLIGHT: usize = 64;
/// Envoy's worker threads.
const WORKERS: u32 = 2;
/// The longest that one stream may take: many times the classification's deadline.
const STREAM_DEADLINE: Duration = Duration::from_secs(30);
const CLASSIFY_DEADLINE_MS: u64 = 1_000;
/// What Envoy may grow by between the first third of the streams and the last.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
const PROMPT_TOKENS: u64 = 100_000;
const KEYS: usize = 8;
const TOPICS: usize = 6;
/// Carries a stream's number to the upstream.
const NUMBER: &str = "x-stream";

/// Everything about one stream.
#[derive(Clone, Debug)]
struct Script {
    number: usize,
    key: usize,
    topic: Option<usize>,
    known_model: bool,
    stream: bool,
    asked: bool,
    status: u16,
    /// Leaves after so many bytes.
    client_leaves_at: Option<usize>,
    /// Breaks off after so many chunks.
    upstream_breaks_at: Option<usize>,
    tokens: usize,
    token_bytes: usize,
    line_end: &'static str,
    done: bool,
    usage_first: bool,
    chunk_bytes_max: usize,
    delay_ms_max: u64,
    with_length: bool,
    end_with_last: bool,
    random: fastrand::Rng,
}

impl Script {
    fn of(seed: u64, number: usize) -> Self {
        let mut random =
            fastrand::Rng::with_seed(seed ^ (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let chance = |percent: u32, random: &mut fastrand::Rng| random.u32(..100) < percent;
        let one_of =
            |values: &[usize], random: &mut fastrand::Rng| values[random.usize(..values.len())];
        let stream = chance(75, &mut random);
        Self {
            number,
            key: random.usize(..KEYS),
            topic: chance(70, &mut random).then(|| random.usize(..TOPICS)),
            known_model: chance(90, &mut random),
            stream,
            asked: random.bool(),
            status: if chance(3, &mut random) { 500 } else { 200 },
            client_leaves_at: chance(12, &mut random).then(|| random.usize(..4_000)),
            upstream_breaks_at: chance(4, &mut random).then(|| random.usize(..20)),
            tokens: random.usize(1..30),
            token_bytes: one_of(&[3, 8, 40, 3_000, 20_000], &mut random),
            line_end: ["\n", "\r\n"][random.usize(..2)],
            done: chance(90, &mut random),
            usage_first: chance(20, &mut random),
            chunk_bytes_max: one_of(&[20, 200, 2_000, 20_000, 1 << 20], &mut random),
            delay_ms_max: [0, 0, 1, 5][random.usize(..4)],
            with_length: random.bool(),
            end_with_last: random.bool(),
            random,
        }
    }

    fn request(&self) -> Request {
        let mut body = match self.topic {
            Some(topic) => marked(&long_prefix(&format!("topic {topic}"))),
            None => json!({"model": "demo", "messages": [{"role": "user", "content": "hi"}]}),
        };
        if !self.known_model {
            body["model"] = json!("nobody's");
        }
        if self.stream {
            body["stream"] = json!(true);
            if self.asked {
                body["stream_options"] = json!({"include_usage": true});
            }
        }
        chat(&format!("key {}", self.key), &body).header(NUMBER, &self.number.to_string())
    }

    /// The LLM's answer: a usage frame only to those who ask for it.
    fn body(&self, with_usage: bool) -> Vec<u8> {
        let filler = "é~".repeat(self.token_bytes / 3 + 1);
        if !self.stream {
            return large_json(
                self.usage_first,
                self.tokens * self.token_bytes,
                PROMPT_TOKENS,
            )
            .into_bytes();
        }
        let events = completion_events(PROMPT_TOKENS);
        let mut all = vec![events[0].replace("Ye", &filler); self.tokens];
        all.push(events[2].clone());
        if with_usage {
            all.push(events[3].clone());
        }
        if self.done {
            all.push(events[4].clone());
        }
        let all = all.iter().map(|event| format!("data: {event}\n\n"));
        all.collect::<String>()
            .replace('\n', self.line_end)
            .into_bytes()
    }

    fn kind(&self) -> BodyKind {
        if self.stream {
            BodyKind::Sse
        } else {
            BodyKind::Json
        }
    }
}

/// What the upstream sent for a stream.
#[derive(Clone, Debug)]
struct Sent {
    body: Vec<u8>,
    /// It was asked for a usage that the client did not ask for.
    drop_usage_only: bool,
    broke: bool,
}

type AllSent = Arc<Mutex<HashMap<usize, Sent>>>;

/// The LLM: answers each request as its script says.
async fn serve(mut upstream: Upstream, seed: u64, sent: AllSent) {
    loop {
        let call = upstream.next().await;
        let sent = sent.clone();
        tokio::spawn(async move { answer(call, seed, &sent).await });
    }
}

async fn answer(mut call: Call, seed: u64, sent: &AllSent) {
    let number = call
        .request
        .headers
        .get(NUMBER)
        .and_then(|n| n.parse().ok());
    let mut script = Script::of(seed, number.expect("a number"));
    let seen = call.request.json();
    let include_usage = seen["stream_options"]["include_usage"] == true;
    assert!(
        seen.to_string().find("cache_control").is_none(),
        "a marker got through"
    );
    let body = script.body(include_usage);
    let mut chunks = vec![];
    let mut rest = &body[..];
    while !rest.is_empty() {
        let most = script.chunk_bytes_max.min(rest.len());
        // A few hundred chunks are enough.
        let size = script.random.usize(1..=most).max(body.len() / 300);
        let (chunk, tail) = rest.split_at(size.min(rest.len()));
        chunks.push(chunk);
        rest = tail;
    }
    let breaks = script.upstream_breaks_at.filter(|at| *at < chunks.len());
    sent.lock().unwrap().insert(
        script.number,
        Sent {
            body: body.clone(),
            drop_usage_only: include_usage && !script.asked,
            broke: breaks.is_some(),
        },
    );
    let content_type = if script.stream {
        "text/event-stream"
    } else {
        "application/json"
    };
    let length = body.len().to_string();
    let framing = if script.with_length {
        ("content-length", &*length)
    } else {
        ("transfer-encoding", "chunked")
    };
    let headers = Headers::of(&[
        ("content-type", content_type),
        framing,
        ("connection", "close"),
    ]);
    call.raw(encode_head(script.status, &headers)).await;
    let count = chunks.len();
    for (index, chunk) in chunks.into_iter().enumerate() {
        if breaks == Some(index) {
            return call.reset();
        }
        let mut bytes = if script.with_length {
            chunk.to_vec()
        } else {
            encode_chunk(chunk)
        };
        if index + 1 == count && script.end_with_last && !script.with_length {
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        call.raw(bytes).await;
        if script.delay_ms_max > 0 && script.random.u8(..4) == 0 {
            sleep(Duration::from_millis(
                script.random.u64(..=script.delay_ms_max),
            ))
            .await;
        }
    }
    if !script.with_length && !script.end_with_last {
        call.raw("0\r\n\r\n").await;
    }
}

/// How a stream went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ended {
    Cached,
    Zeros,
    Uncached,
    ClientLeft,
    UpstreamBroke,
    Failed,
}

/// What the client got.
struct Got {
    status: u16,
    body: Vec<u8>,
    complete: bool,
}

async fn run(client: Client, script: &Script) -> std::io::Result<Got> {
    let mut connection = client.connect().await;
    let bytes = script.request().encode("llm");
    connection.write(&bytes).await?;
    let Some(head) = connection.read_head().await? else {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    };
    let mut got = Got {
        status: head.status,
        body: vec![],
        complete: false,
    };
    loop {
        if script
            .client_leaves_at
            .is_some_and(|at| got.body.len() >= at)
        {
            return Ok(got);
        }
        match connection.read_piece().await {
            Ok(Some(piece)) => got.body.extend_from_slice(&piece),
            Ok(None) => {
                got.complete = true;
                return Ok(got);
            }
            Err(_) => return Ok(got),
        }
    }
}

/// The split that a response shows, read from its last usage.
fn shown(body: &[u8], stream: bool) -> Option<Split> {
    let text = String::from_utf8_lossy(body);
    let at = text.rfind("\"usage\":{")?;
    let json = if stream {
        text[..]
            .rsplit("data: ")
            .find(|event| event.contains("\"usage\":{"))?
            .trim_end()
    } else {
        &text
    };
    let Ok(value) = serde_json::from_str::<Value>(json) else {
        panic!("broken usage: {}", &text[at..]);
    };
    let usage = &value["usage"];
    let number = |path: &str| usage.pointer(path).and_then(Value::as_u64);
    Some(Split {
        read: number("/cache_read_input_tokens")?,
        creation: TierTokens {
            five_minutes: number("/cache_creation/ephemeral_5m_input_tokens").unwrap(),
            one_hour: number("/cache_creation/ephemeral_1h_input_tokens").unwrap(),
            day: number("/cache_creation/ephemeral_24h_input_tokens").unwrap(),
        },
    })
}

/// The same of a body that broke off, as far as its numbers are there.
fn split_so_far(body: &[u8]) -> Option<Split> {
    let number = |name: &str| {
        let at = find(body, name.as_bytes())? + name.len();
        let digits = body[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        body.get(at + digits)?;
        String::from_utf8_lossy(&body[at..at + digits]).parse().ok()
    };
    Some(Split {
        read: number("\"cache_read_input_tokens\":")?,
        creation: TierTokens {
            five_minutes: number("\"ephemeral_5m_input_tokens\":")?,
            ..TierTokens::default()
        },
    })
}

fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Judges one stream; `Err` says what is wrong.
fn judge(
    script: &Script,
    got: &Got,
    sent: Option<&Sent>,
    totals: &Mutex<HashMap<usize, u64>>,
) -> Result<Ended, String> {
    let Some(sent) = sent else {
        return if script.client_leaves_at.is_some() {
            Ok(Ended::ClientLeft)
        } else {
            Err(format!(
                "never reached the upstream: {} {}",
                got.status,
                String::from_utf8_lossy(&got.body)
            ))
        };
    };
    let broken = !got.complete;
    if broken && script.client_leaves_at.is_none() && !sent.broke {
        return Err(format!("broke off after {} bytes", got.body.len()));
    }
    if sent.broke && got.status == 503 && got.body.starts_with(b"upstream connect error") {
        // Broken before Envoy had read the head.
        return Ok(Ended::UpstreamBroke);
    }
    if got.status != script.status {
        return Err(format!("status {}", got.status));
    }
    let may_be = |answer| {
        if script.known_model {
            expected(&sent.body, script.kind(), sent.drop_usage_only, answer)
        } else {
            sent.body.clone()
        }
    };
    let split = if broken || sent.drop_usage_only {
        None
    } else {
        shown(&got.body, script.stream)
    };
    let uncached = may_be(Answer::Inactive);
    if broken {
        let wanted = split_so_far(&got.body).map_or(uncached, |split| may_be(Answer::Split(split)));
        let same = common(&got.body, &wanted);
        // The usage object itself may be cut before its numbers.
        let usage_at = find(&got.body, b"\"usage\":{").unwrap_or(got.body.len());
        let in_usage = same >= usage_at && got.body.len() - usage_at < 600;
        if same < got.body.len() && !in_usage {
            return Err(format!("differs at {same} of {}", got.body.len()));
        }
        return Ok(if sent.broke {
            Ended::UpstreamBroke
        } else {
            Ended::ClientLeft
        });
    }
    let wanted = split.map_or(uncached, |split| may_be(Answer::Split(split)));
    if got.body != wanted {
        let same = common(&got.body, &wanted);
        return Err(format!(
            "differs at {same}: {} of {} bytes, {:?} instead of {:?}",
            got.body.len(),
            wanted.len(),
            String::from_utf8_lossy(
                &got.body[same.saturating_sub(20)..(same + 80).min(got.body.len())]
            ),
            String::from_utf8_lossy(
                &wanted[same.saturating_sub(20)..(same + 80).min(wanted.len())]
            ),
        ));
    }
    let Some(split) = split else {
        return Ok(if got.status == 200 {
            Ended::Uncached
        } else {
            Ended::Failed
        });
    };
    let total = split.read + split.creation.five_minutes;
    match script.topic {
        None if total == 0 => Ok(Ended::Zeros),
        None => Err(format!("unmarked, and {split:?}")),
        Some(topic) => {
            let known = *totals.lock().unwrap().entry(topic).or_insert(total);
            if total == known && (split.read == 0 || split.creation.five_minutes == 0) {
                Ok(Ended::Cached)
            } else {
                Err(format!("{split:?}, but the prefix has {known} tokens"))
            }
        }
    }
}

/// Lets the index service come and go.
async fn misbehave(world: &World, seed: u64, faults: &AtomicUsize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let garbage = b"{\"status\":\"ok\",\"split\":[]}".to_vec();
    let mut gates: Vec<Gate> = vec![];
    loop {
        for route in [Route::Classify, Route::Commit, Route::Policy] {
            let gate = Gate::default();
            let fault = match random.u32(..20) {
                0 => {
                    gates.push(gate.clone());
                    Fault::Hold(gate)
                }
                1 => Fault::Answer(200, garbage.clone()),
                2 => Fault::Answer(503, vec![]),
                3 => Fault::Close,
                4 => Fault::Truncate,
                5 => Fault::Hang,
                _ => Fault::None,
            };
            if !matches!(fault, Fault::None) {
                faults.fetch_add(1, Ordering::Relaxed);
            }
            world.faults.set(route, fault);
        }
        sleep(Duration::from_millis(random.u64(20..200))).await;
        // What was slow is answered now.
        for gate in gates.drain(..) {
            gate.open();
        }
    }
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

fn from_env<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[tokio::test]
async fn mixed_streams() {
    let streams: usize = from_env("STREAMS", 1_000);
    let seed: u64 = from_env("SEED", 7);
    let options = Options {
        concurrency: Some(WORKERS),
        plugin: json!({
            "classify_deadline_ms": CLASSIFY_DEADLINE_MS,
            "breaker_open_ms": 100,
            "policy_refresh_ms": 200,
            "commit_flush_ms": 50,
        }),
        ..Options::default()
    };
    let mut world = World::with(options).await;
    let upstream = std::mem::replace(&mut world.upstream, Upstream::start().await);
    let sent = AllSent::default();
    let server = tokio::spawn(serve(upstream, seed, sent.clone()));
    let pid = world.envoy.process().child().id().expect("runs");

    let next = Arc::new(AtomicUsize::new(0));
    let wrong = Arc::new(Mutex::new(vec![]));
    let counts = Arc::new(Mutex::new(HashMap::<Ended, usize>::new()));
    let totals = Arc::new(Mutex::new(HashMap::new()));
    let slowest = Arc::new(Mutex::new((Duration::ZERO, 0)));
    let settled_at = Arc::new(Mutex::new(None));
    let begin = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (next, wrong, counts, totals) =
            (next.clone(), wrong.clone(), counts.clone(), totals.clone());
        let (sent, slowest, settled_at) = (sent.clone(), slowest.clone(), settled_at.clone());
        let client = world.client;
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= streams {
                    return;
                }
                if number == streams / 3 {
                    *settled_at.lock().unwrap() = Some(resident_bytes(pid));
                }
                let script = Script::of(seed, number);
                let begin = Instant::now();
                let result = match timeout(STREAM_DEADLINE, run(client, &script)).await {
                    Err(_) => Err("hangs".to_owned()),
                    Ok(Err(e)) => Err(e.to_string()),
                    Ok(Ok(got)) => {
                        let sent = sent.lock().unwrap().remove(&number);
                        judge(&script, &got, sent.as_ref(), &totals)
                    }
                };
                let took = begin.elapsed();
                let mut slowest = slowest.lock().unwrap();
                *slowest = (took, number).max(*slowest);
                match result {
                    Ok(ended) => *counts.lock().unwrap().entry(ended).or_default() += 1,
                    Err(message) => wrong.lock().unwrap().push(format!("{script:?}: {message}")),
                }
            }
        });
    }
    let faults = AtomicUsize::new(0);
    tokio::select! {
        () = misbehave(&world, seed, &faults) => {}
        () = async { while let Some(done) = workers.join_next().await { done.unwrap(); } } => {}
    }
    let elapsed = begin.elapsed();
    for route in [Route::Classify, Route::Commit, Route::Policy] {
        world.faults.set(route, Fault::None);
    }
    let grown = resident_bytes(pid).saturating_sub(settled_at.lock().unwrap().unwrap());

    // Everything has ended, on Envoy's side too.
    let idle = poll(PATIENCE, async || {
        let stats = world.envoy.stats().await?;
        let active = stats.counter(
            "envoy_http_downstream_rq_active",
            &[("envoy_http_conn_manager_prefix", "llm")],
        ) + stats.counter(
            "envoy_cluster_upstream_rq_active",
            &[("envoy_cluster_name", "upstream")],
        );
        (active == 0).then_some(())
    });
    assert!(idle.await.is_some(), "streams are left over");
    let stats = world.stats().await;
    let slowest = *slowest.lock().unwrap();
    let mut report = format!(
        "{streams} streams, {IN_FLIGHT} in flight, {WORKERS} workers, seed {seed}: {:.1} s, slowest {:.2} s (stream {}), \
         {} faults, Envoy {} MiB, grown by {} MiB\n{:?}\n",
        elapsed.as_secs_f64(),
        slowest.0.as_secs_f64(),
        slowest.1,
        faults.load(Ordering::Relaxed),
        resident_bytes(pid) >> 20,
        grown >> 20,
        counts.lock().unwrap(),
    );
    for line in stats
        .lines("promptcache_")
        .iter()
        .filter(|line| line.contains("_total"))
    {
        writeln!(report, "{line}").unwrap();
    }
    // Usually one of many chunks with pauses: whatever else runs here delays each of them.
    writeln!(report, "slowest: {:?}", Script::of(seed, slowest.1)).unwrap();
    eprintln!("{report}");
    let wrong = std::mem::take(&mut *wrong.lock().unwrap());
    let first: Vec<_> = wrong.iter().take(10).cloned().collect();
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}\n{report}",
        wrong.len(),
        first.join("\n")
    );
    let handled = stats.counter("promptcache_requests_total", &[]);
    assert!(
        handled as usize <= streams && handled as usize >= streams * 9 / 10,
        "{handled} accounted"
    );
    world.assert_no_vm_lost().await;
    assert!(grown < GROWTH_BYTES_MAX, "grown by {grown} bytes");

    // And the service is used again: what was committed meanwhile is read.
    let number = (0..).find(|n| {
        let script = Script::of(seed, *n);
        script.topic.is_some()
            && script.known_model
            && !script.stream
            && script.status == 200
            && script.client_leaves_at.is_none()
            && script.upstream_breaks_at.is_none()
            && script.tokens * script.token_bytes < 100_000
    });
    let script = Script::of(seed, number.unwrap());
    let reads = poll(PATIENCE, async || {
        let got = run(world.client, &script).await.ok()?;
        (shown(&got.body, false)?.read > 1024).then_some(())
    });
    assert!(reads.await.is_some(), "the ledger is not used any more");
    server.abort();
}
