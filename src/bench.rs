//! Measurements inside Envoy's VM, in place of the filter; compiled only with the feature `bench`.
//!
//! The plugin's configuration is the mode, a bare word: `core` times what `core` does and logs a
//! line of JSON per case; `noop`, `buffer` and `read` are filters that show what any filter costs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

// The very cases of the native benchmarks.
#[path = "../core/benches/corpus/mod.rs"]
mod corpus;

use std::{hint::black_box, time::Instant};

use proxy_wasm::{
    traits::{Context, HttpContext, RootContext},
    types::{Action, ContextType},
};

use crate::host;
use corpus::cases::{Planning, cases, time};

/// Begins the lines that the runner collects.
const PREFIX: &str = "bench:";
/// Pause between two cases, in milliseconds: Envoy's watchdog wants a sign of life.
const TICK_MS: u64 = 1;
/// Size of a page of linear memory.
const PAGE_BYTES: usize = 64 << 10;
/// Sizes of the requests whose memory is measured, each in what is a fresh memory for it.
const PLANNED_BYTES: [usize; 2] = [100_000, 1_000_000];

/// The root context of all modes.
#[derive(Default)]
pub struct Root {
    mode: Mode,
    /// The next thing to measure.
    next: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Noop,
    Buffer,
    Read,
    Core,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        self.mode = match host::plugin_configuration().unwrap_or_default().as_slice() {
            b"noop" => Mode::Noop,
            b"buffer" => Mode::Buffer,
            b"read" => Mode::Read,
            b"core" => Mode::Core,
            _ => return false,
        };
        if self.mode == Mode::Core {
            host_calls();
            return host::set_tick_period(TICK_MS).is_ok();
        }
        true
    }

    fn on_tick(&mut self) {
        let step = self.next;
        self.next += 1;
        if let Some(bytes) = PLANNED_BYTES.get(step) {
            return memory(*bytes);
        }
        let step = step - PLANNED_BYTES.len();
        let mut cases = cases();
        let Some(case) = cases.get_mut(step) else {
            if step == cases.len() {
                log::info!("{PREFIX} end");
            }
            return;
        };
        let [ours, plain] = case.time();
        log::info!(
            r#"{PREFIX} {{"case":"{}","bytes":{},"min_ns":{},"median_ns":{},"plain_min_ns":{},"plain_median_ns":{}}}"#,
            case.name,
            case.bytes,
            ours.min_ns,
            ours.median_ns,
            plain.min_ns,
            plain.median_ns
        );
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream(self.mode)))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// What a call out of the VM costs: one that brings nothing back, and one for whose few bytes Envoy
/// enters the VM again, to allocate. In `on_configure`, where Envoy has something to give.
fn host_calls() {
    let clock = time(&mut || {
        black_box(Instant::now());
    });
    let getter = time(&mut || {
        assert_eq!(
            host::plugin_configuration().ok().as_deref(),
            Some(&b"core"[..])
        );
    });
    for (call, took) in [("the clock", clock), ("a getter", getter)] {
        log::info!(
            r#"{PREFIX} {{"host_call":"{call}","min_ns":{},"median_ns":{}}}"#,
            took.min_ns,
            took.median_ns
        );
    }
}

/// What planning one request makes the linear memory grow by, beside its output.
fn memory(bytes: usize) {
    let planning = Planning::of(bytes);
    let spare = fill();
    let before = core::arch::wasm32::memory_size(0);
    let forward = planning.run();
    let grown_bytes = (core::arch::wasm32::memory_size(0) - before) * PAGE_BYTES;
    let output_bytes = forward.body.as_ref().map_or(0, Vec::len);
    log::info!(
        r#"{PREFIX} {{"memory":{},"grown_bytes":{grown_bytes},"output_bytes":{output_bytes}}}"#,
        planning.body.len()
    );
    drop(black_box(spare));
}

/// Takes all memory that is free below the current size, the large pieces first.
fn fill() -> Vec<Vec<u8>> {
    let mut spare = Vec::with_capacity(1 << 16);
    let mut piece_bytes = 1 << 20;
    while piece_bytes >= 64 {
        let before = core::arch::wasm32::memory_size(0);
        // The piece that made it grow leaves room behind it for the smaller ones.
        while core::arch::wasm32::memory_size(0) == before && spare.len() < spare.capacity() {
            spare.push(black_box(Vec::with_capacity(piece_bytes)));
        }
        piece_bytes /= 2;
    }
    // The last growth left a page of which one small piece is taken.
    spare.extend((0..PAGE_BYTES / 1024 - 2).map(|_| black_box(Vec::with_capacity(1000))));
    spare
}

/// A stream that passes, that waits for the whole request as the filter does, or that reads every
/// piece of the response and does nothing with it.
struct Stream(Mode);

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        self.held(end_of_stream)
    }

    fn on_http_request_body(&mut self, _: usize, end_of_stream: bool) -> Action {
        self.held(end_of_stream)
    }

    fn on_http_response_body(&mut self, size: usize, _: bool) -> Action {
        if self.0 == Mode::Read {
            black_box(host::response_body(0, size).ok());
        }
        Action::Continue
    }
}

impl Stream {
    fn held(&self, end_of_stream: bool) -> Action {
        if self.0 == Mode::Buffer && !end_of_stream {
            Action::Pause
        } else {
            Action::Continue
        }
    }
}
