//! Throughput of the response side, per chunk as the host delivers it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod corpus;

use std::hint::black_box;

use corpus::{deltas, rewriter};
use divan::{Bencher, counter::BytesCount};
use prompt_cache_core::response::BodyKind;

fn main() {
    divan::main();
}

const BODIES: [(&str, &str); 2] = [("no_usage", ""), ("usage_null", ",\"usage\":null")];

/// One chunk of about `bytes` that ends where an event ends.
#[divan::bench(args = [200, 1024, 16384], consts = [0, 1])]
fn sse_whole_events<const BODY: usize>(bencher: Bencher, bytes: usize) {
    let chunk = deltas(bytes, BODIES[BODY].1);
    let mut rewriter = rewriter(BodyKind::Sse);
    bencher
        .counter(BytesCount::from(chunk.len()))
        .bench_local(move || black_box(rewriter.push(black_box(&chunk))));
}

/// Chunks of exactly `bytes`, so that events straddle them.
#[divan::bench(args = [1024, 16384], consts = [0, 1])]
fn sse_straddling_events<const BODY: usize>(bencher: Bencher, bytes: usize) {
    let body = deltas(bytes * 64, BODIES[BODY].1);
    bencher
        .counter(BytesCount::from(body.len()))
        .bench_local(move || {
            let mut rewriter = rewriter(BodyKind::Sse);
            for chunk in body.chunks(bytes) {
                black_box(rewriter.push(black_box(chunk)));
            }
        });
}

/// Text that makes the search stop and look: escapes, and the words it looks for.
#[divan::bench]
fn sse_look_alikes(bencher: Bencher) {
    let mut chunk = Vec::new();
    while chunk.len() < 1024 {
        chunk.extend_from_slice(
            b"data: {\"choices\":[{\"delta\":{\"content\":\"\\u00e9 error \\\"usage\\\": error\"}}]}\n\n",
        );
    }
    let mut rewriter = rewriter(BodyKind::Sse);
    bencher
        .counter(BytesCount::from(chunk.len()))
        .bench_local(move || black_box(rewriter.push(black_box(&chunk))));
}

/// The terminal usage frame, from push to edited bytes.
#[divan::bench]
fn sse_usage_frame(bencher: Bencher) {
    let frame = b"data: {\"id\":\"chatcmpl-8f1c\",\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":2006,\"completion_tokens\":300,\"total_tokens\":2306,\"prompt_tokens_details\":{\"cached_tokens\":1920,\"audio_tokens\":0}}}\n\ndata: [DONE]\n\n";
    let mut rewriter = rewriter(BodyKind::Sse);
    bencher.bench_local(move || black_box(rewriter.push(black_box(frame))));
}

/// A JSON body of mostly text in chunks of 16 KiB.
#[divan::bench(args = [16384, 1 << 20])]
fn json_text(bencher: Bencher, bytes: usize) {
    let mut body = String::from("{\"choices\":[{\"message\":{\"content\":\"");
    while body.len() < bytes {
        body += "A line of an answer with a \\\"quote\\\" and an end.\\n";
    }
    body += "\"}}],\"usage\":{\"prompt_tokens\":2006}}";
    bencher
        .counter(BytesCount::from(body.len()))
        .bench_local(move || {
            let mut rewriter = rewriter(BodyKind::Json);
            for chunk in body.as_bytes().chunks(16384) {
                black_box(rewriter.push(black_box(chunk)));
            }
            black_box(rewriter.end())
        });
}

/// A JSON body of mostly structure and numbers (log probabilities).
#[divan::bench]
fn json_logprobs(bencher: Bencher) {
    let mut body = String::from("{\"choices\":[{\"logprobs\":{\"content\":[{}");
    while body.len() < 1 << 18 {
        body += ",{\"token\":\"a\",\"logprob\":-0.123456,\"bytes\":[97],\"top_logprobs\":[]}";
    }
    body += "]}}],\"usage\":{\"prompt_tokens\":2006}}";
    bencher
        .counter(BytesCount::from(body.len()))
        .bench_local(move || {
            let mut rewriter = rewriter(BodyKind::Json);
            for chunk in body.as_bytes().chunks(16384) {
                black_box(rewriter.push(black_box(chunk)));
            }
            black_box(rewriter.end())
        });
}
