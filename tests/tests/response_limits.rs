//! Large responses: nothing is buffered whole, nothing is lost at a limit, and Envoy's own buffer
//! limits, also its defaults, are never reached by what the filter keeps.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use prompt_cache_core::response::BodyKind;
use prompt_cache_e2e::{
    backend::{Answering, Backend, Ending, Protocol, expected, large_json, whole},
    faults::Route,
    world::{Options, completion_events},
};
use serde_json::{Value, json};

const LIMIT: &str = "/static_resources/listeners/0/per_connection_buffer_limit_bytes";
const MIB: usize = 1 << 20;
/// What the VM may take for a response of 20 MiB: what Envoy reads at once, a few times.
const VM_PAGES_MAX: u64 = (8 * MIB / PAGE_BYTES) as u64;
/// A page of the VM's linear memory.
const PAGE_BYTES: usize = 64 << 10;

fn with_envoys_default_limit(plugin: Value) -> Options {
    Options {
        plugin,
        members: vec![(LIMIT, Value::Null)],
        ..Options::default()
    }
}

#[tokio::test]
async fn a_json_body_of_20_mib_with_envoys_default_limits() {
    for protocol in Protocol::ALL {
        let options = Options {
            // It tells its size.
            trapping: true,
            ..with_envoys_default_limit(json!({}))
        };
        let mut backend = Backend::start(protocol, options).await;
        for usage_first in [false, true] {
            let body = large_json(usage_first, 20 * MIB, 5000);
            let expected = expected(body.as_bytes(), BodyKind::Json, false, backend.answer());
            for early in [true, false] {
                let before = backend.classified().await;
                let gate = backend.world.faults.hold(Route::Classify);
                let sent = backend.world.client.send(&backend.request(false)).await;
                let mut answering = backend.next().await;
                if early {
                    gate.open();
                    backend.await_classified(before + 1).await;
                }
                answering
                    .head(200, &[("content-type", "application/json")])
                    .await;
                let upload = async {
                    for chunk in body.as_bytes().chunks(MIB) {
                        answering.chunk(chunk).await;
                    }
                    answering.finish("", Ending::Alone).await;
                    gate.open();
                };
                let download = async { whole(sent.head().await).await };
                let ((), found) = tokio::join!(upload, download);
                let found = found.unwrap_or_else(|e| {
                    panic!("{protocol:?}, first {usage_first}, early {early}: {e}")
                });
                // Without the answer a usage in front is further away from the end than may be held.
                let expected = if early || !usage_first {
                    &*expected
                } else {
                    body.as_bytes()
                };
                assert!(
                    found == expected,
                    "{protocol:?}, first {usage_first}, early {early}: {} of {} bytes",
                    found.len(),
                    expected.len()
                );
            }
        }
        backend.world.assert_no_vm_lost().await;
        let stats = backend.world.await_idle().await;
        let pages = stats.counter("promptcache_vm_memory_pages", &[]);
        assert!(
            (1..VM_PAGES_MAX).contains(&pages),
            "{protocol:?}: {pages} pages"
        );
    }
}

/// The same in one burst behind a piece that the filter keeps: Envoy reads up to a mebibyte at once,
/// which must fit beside what waits.
#[tokio::test]
async fn bursts_behind_a_kept_piece() {
    for protocol in [Protocol::Http1, Protocol::Http1Trailers] {
        let mut backend = Backend::start(protocol, with_envoys_default_limit(json!({}))).await;
        for (kind, stream, content_type, body) in [
            (
                BodyKind::Json,
                false,
                "application/json",
                large_json(true, 3 * MIB, 5000),
            ),
            (
                BodyKind::Sse,
                true,
                "text/event-stream",
                format!(
                    "data: {{\"choices\":[{{\"delta\":{{\"image\":\"{}\"}}}}]}}\n\n{}",
                    "0123456789abcdef".repeat(3 * MIB / 16),
                    completion_events(5000)
                        .iter()
                        .map(|e| format!("data: {e}\n\n"))
                        .collect::<String>()
                ),
            ),
        ] {
            for kept in [100, 10_000, 400_000] {
                let before = backend.classified().await;
                let sent = backend.world.client.send(&backend.request(stream)).await;
                let mut answering = backend.next().await;
                backend.await_classified(before + 1).await;
                answering.head(200, &[("content-type", content_type)]).await;
                let (head, tail) = body.split_at(kept);
                answering.chunk(head).await;
                // The head of the response is there: the kept piece follows at once.
                let incoming = sent.head().await;
                answering.finish(tail, Ending::Alone).await;
                let found = whole(incoming).await;
                let found = found
                    .unwrap_or_else(|e| panic!("{protocol:?}, {content_type}, kept {kept}: {e}"));
                let expected = expected(body.as_bytes(), kind, false, backend.answer());
                assert!(
                    found == expected,
                    "{protocol:?}, {content_type}, kept {kept}: {} bytes",
                    found.len()
                );
            }
        }
        backend.world.assert_no_vm_lost().await;
    }
}

/// The same from a server that says nothing of the body's length and closes at its end. Were it
/// taken for HTTP/2, the kept piece would wait under a pause, and the next read would not fit.
#[tokio::test]
async fn bursts_behind_a_kept_piece_until_the_connection_closes() {
    let options = with_envoys_default_limit(json!({}));
    let mut backend = Backend::start(Protocol::Http1, options).await;
    let events: String = completion_events(5000)
        .iter()
        .map(|e| format!("data: {e}\n\n"))
        .collect();
    let image = "0123456789abcdef".repeat(3 * MIB / 16);
    let body =
        format!("data: {{\"choices\":[{{\"delta\":{{\"image\":\"{image}\"}}}}]}}\n\n{events}");
    let expected = expected(body.as_bytes(), BodyKind::Sse, false, backend.answer());
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        for kept in [100, 10_000, 16_000] {
            let before = backend.classified().await;
            let sent = backend.world.client.send(&backend.request(true)).await;
            let Answering::H1(mut call) = backend.next().await else {
                unreachable!("HTTP/1.1 here")
            };
            backend.await_classified(before + 1).await;
            let (head, tail) = body.split_at(kept);
            call.raw(format!(
                "{version} 200 X\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{head}"
            ))
            .await;
            let incoming = sent.head().await;
            call.raw(tail).await;
            drop(call);
            let found = whole(incoming).await;
            let found = found.unwrap_or_else(|e| panic!("{version}, kept {kept}: {e}"));
            assert!(
                found == expected,
                "{version}, kept {kept}: {} of {} bytes",
                found.len(),
                expected.len()
            );
        }
    }
    backend.world.assert_no_vm_lost().await;
}

#[tokio::test]
async fn an_event_over_the_limit_passes_and_the_next_ones_are_read() {
    for protocol in Protocol::ALL {
        let plugin = json!({"max_event_bytes": 65536});
        let mut backend = Backend::start(protocol, with_envoys_default_limit(plugin)).await;
        let events: Vec<_> = completion_events(5000)
            .iter()
            .map(|e| format!("data: {e}\n\n"))
            .collect();
        for (count, size) in (1..).zip([65_536, 200_000, 3 * MIB]) {
            // It names usage, so that only its size keeps it from being read.
            let huge = format!(
                "data: {{\"usage\":{{\"prompt_tokens\":1}},\"x\":\"{}\"}}\n\n",
                "y".repeat(size)
            );
            let body = format!("{}{huge}{}", events[0], events[1..].concat());
            let sent = backend.world.client.send(&backend.request(true)).await;
            let mut answering = backend.next().await;
            answering
                .head(200, &[("content-type", "text/event-stream")])
                .await;
            let upload = async {
                for chunk in body.as_bytes().chunks(50_000) {
                    answering.chunk(chunk).await;
                }
                answering.finish("", Ending::Alone).await;
            };
            let ((), found) = tokio::join!(upload, async { whole(sent.head().await).await });
            let found = found.unwrap_or_else(|e| panic!("{protocol:?}, {size}: {e}"));
            let rest = expected(
                events[1..].concat().as_bytes(),
                BodyKind::Sse,
                false,
                backend.answer(),
            );
            let expected = [format!("{}{huge}", events[0]).into_bytes(), rest].concat();
            assert!(
                found == expected,
                "{protocol:?}, {size}: {} of {} bytes",
                found.len(),
                expected.len()
            );
            backend
                .world
                .await_counter(
                    "promptcache_bypass_total",
                    &[("reason", "oversize_event")],
                    count,
                )
                .await;
        }
        backend.world.assert_no_vm_lost().await;
    }
}

#[tokio::test]
async fn what_waits_leaves_unedited_at_the_cap() {
    for protocol in Protocol::ALL {
        let plugin = json!({"max_held_bytes": 4096});
        let mut backend = Backend::start(protocol, with_envoys_default_limit(plugin)).await;
        let gate = backend.world.faults.hold(Route::Classify);
        let events: Vec<_> = completion_events(5000)
            .iter()
            .map(|e| format!("data: {e}\n\n"))
            .collect();
        let more = format!(
            "data: {{\"choices\":[],\"x\":\"{}\"}}\n\n",
            "y".repeat(5000)
        );
        let sent = backend.world.client.send(&backend.request(true)).await;
        let mut answering = backend.next().await;
        answering
            .head(200, &[("content-type", "text/event-stream")])
            .await;
        answering.chunk(events[..4].concat()).await;
        answering.chunk(&more).await;
        let mut incoming = sent.head().await;
        // It comes although the answer never does.
        incoming.read_until("yyyy\"}").await;
        gate.open();
        answering.finish(&events[4], Ending::WithLast).await;
        let body = format!("{}{more}{}", events[..4].concat(), events[4]);
        assert_eq!(
            String::from_utf8(whole(incoming).await.unwrap()).unwrap(),
            body,
            "{protocol:?}"
        );
        backend
            .world
            .await_counter(
                "promptcache_bypass_total",
                &[("reason", "held_overflow")],
                1,
            )
            .await;

        // JSON: more than the cap between its usage and its end.
        let gate = backend.world.faults.hold(Route::Classify);
        let body = large_json(true, 8192, 5000);
        let sent = backend.world.client.send(&backend.request(false)).await;
        let mut answering = backend.next().await;
        answering
            .head(200, &[("content-type", "application/json")])
            .await;
        answering.chunk(&body).await;
        answering.finish("", Ending::Alone).await;
        let found = whole(sent.head().await).await.unwrap();
        assert_eq!(String::from_utf8(found).unwrap(), body, "{protocol:?}");
        gate.open();
        backend
            .world
            .await_counter(
                "promptcache_bypass_total",
                &[("reason", "held_overflow")],
                2,
            )
            .await;
        backend.world.assert_no_vm_lost().await;
    }
}
