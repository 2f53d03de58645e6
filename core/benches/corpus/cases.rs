//! The cases that are timed by one and the same loop natively and inside Envoy's VM.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use prompt_cache_core::{
    api::Api,
    config::FilterConfig,
    edge::{Forward, Leases, Plan, PlanContext, PolicyView, QueryBreakpoint, plan},
    ledger::Fingerprint,
    response::BodyKind,
};

use super::{
    Kind, all, all_plain, body, deltas, edit, edit_plain, hash, hash_plain, read_events_plain,
    rewriter,
};

/// Run before anything is timed: V8 may still be compiling.
const WARM_UP: Duration = Duration::from_millis(150);
/// A sample takes at least this long, so that the clock does not matter.
const SAMPLE: Duration = Duration::from_millis(2);
/// Samples of one case.
const SAMPLES: usize = 60;

/// One thing to time.
pub struct Case {
    /// Unique.
    pub name: &'static str,
    /// Bytes of one pass.
    pub bytes: usize,
    ours: Box<dyn FnMut()>,
    plain: Box<dyn FnMut()>,
}

/// What one pass takes, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The fastest sample: the work without the neighbours.
    pub min_ns: u64,
    /// The middle one.
    pub median_ns: u64,
}

impl Case {
    fn request<A: 'static, B: 'static>(
        name: &'static str,
        (kind, bytes): (Kind, usize),
        ours: fn(&[u8]) -> A,
        plain: fn(&[u8]) -> B,
    ) -> Self {
        let body = body(kind, bytes);
        let same = body.clone();
        Self {
            name,
            bytes: body.len(),
            ours: Box::new(move || drop(black_box(ours(black_box(&body))))),
            plain: Box::new(move || drop(black_box(plain(black_box(&same))))),
        }
    }

    /// A stream in chunks of `chunk_bytes`, of which `body_bytes` are one pass.
    fn response(name: &'static str, chunk_bytes: usize, body_bytes: usize) -> Self {
        let body = deltas(body_bytes, "");
        let same = body.clone();
        Self {
            name,
            bytes: body.len(),
            ours: Box::new(move || {
                let mut rewriter = rewriter(BodyKind::Sse);
                for chunk in body.chunks(chunk_bytes) {
                    black_box(rewriter.push(black_box(chunk)));
                }
            }),
            plain: Box::new(move || {
                black_box(read_events_plain(black_box(&same)));
            }),
        }
    }

    /// A stream in chunks of whole events, about 1 KiB each.
    fn response_whole(name: &'static str) -> Self {
        let chunk = deltas(1024, "");
        let same = chunk.clone();
        let mut rewriter = rewriter(BodyKind::Sse);
        Self {
            name,
            bytes: chunk.len(),
            ours: Box::new(move || drop(black_box(rewriter.push(black_box(&chunk))))),
            plain: Box::new(move || {
                black_box(read_events_plain(black_box(&same)));
            }),
        }
    }

    /// Times our way, then the plain way.
    pub fn time(&mut self) -> [Timing; 2] {
        [time(&mut self.ours), time(&mut self.plain)]
    }
}

/// Every case.
pub fn cases() -> Vec<Case> {
    use Kind::{Chat, Code, Tools};
    vec![
        Case::request("edit, chat 10 KB", (Chat, 10_000), edit, edit_plain),
        Case::request("edit, chat 100 KB", (Chat, 100_000), edit, edit_plain),
        Case::request("edit, code 100 KB", (Code, 100_000), edit, edit_plain),
        Case::request("edit, tools 100 KB", (Tools, 100_000), edit, edit_plain),
        Case::request("scan + hash, chat 10 KB", (Chat, 10_000), hash, hash_plain),
        Case::request(
            "scan + hash, chat 100 KB",
            (Chat, 100_000),
            hash,
            hash_plain,
        ),
        Case::request(
            "scan + hash, code 100 KB",
            (Code, 100_000),
            hash,
            hash_plain,
        ),
        Case::request(
            "scan + hash, tools 100 KB",
            (Tools, 100_000),
            hash,
            hash_plain,
        ),
        Case::request("all, chat 10 KB", (Chat, 10_000), all, all_plain),
        Case::request("all, chat 100 KB", (Chat, 100_000), all, all_plain),
        Case::request("all, chat 1 MB", (Chat, 1_000_000), all, all_plain),
        Case::response_whole("response, 1 KiB of whole events"),
        Case::response("response, chunks of 1 KiB", 1024, 64 << 10),
        Case::response("response, chunks of 16 KiB", 16384, 256 << 10),
    ]
}

/// Times any work, a batch at a time.
pub fn time(work: &mut dyn FnMut()) -> Timing {
    let start = Instant::now();
    let mut runs = 0_u32;
    while start.elapsed() < WARM_UP {
        work();
        runs += 1;
    }
    let per_run = (start.elapsed() / runs).max(Duration::from_nanos(1));
    let batch = (SAMPLE.as_nanos() / per_run.as_nanos()).clamp(1, 1_000_000) as u64;
    let mut samples: Vec<u64> = (0..SAMPLES)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..batch {
                work();
            }
            (start.elapsed().as_nanos() / u128::from(batch)) as u64
        })
        .collect();
    samples.sort_unstable();
    Timing {
        min_ns: samples[0],
        median_ns: samples[samples.len() / 2],
    }
}

/// Plans one marked request of about `bytes` as the filter does: cold, with all its hashes.
pub struct Planning {
    config: FilterConfig,
    policy: PolicyView,
    principal: Option<Fingerprint>,
    /// The request.
    pub body: Vec<u8>,
}

impl Planning {
    pub fn of(bytes: usize) -> Self {
        let policy = br#"{"v":1,"models":[{"model":"m","tiers":["5m","1h"],"default_tier":"5m","min_prefix_tokens":1024,"tokenizer_version":"t"}]}"#;
        let policy = PolicyView::parse(policy).unwrap();
        assert!(policy.model("m").is_some());
        Self {
            config: FilterConfig::default(),
            policy,
            principal: Fingerprint::of(b"key", b"credential"),
            body: body(Kind::Chat, bytes),
        }
    }

    /// The plan; its `body` is the output.
    pub fn run(&self) -> Forward {
        let context = PlanContext {
            api: Api::Chat,
            query: QueryBreakpoint::Absent,
            config: &self.config,
            policy: &self.policy,
            principal: self.principal,
            callouts_allowed: true,
            now_ms: 0,
        };
        // Nothing is leased: every plan goes all the way to a classification.
        match plan(&self.body, &context, &mut Leases::new(0, 0)) {
            Plan::Forward(forward) => forward,
            Plan::Refuse(refusal) => panic!("{refusal:?}"),
        }
    }
}
