//! When a response counts as complete, and that it is committed once, whatever Envoy does to get it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use prompt_cache_e2e::{
    backend::{Backend, Ending, Protocol},
    faults::Route,
    world::{
        Options, World, cache_of, chat, completion, completion_events, long_prefix, marked,
        marked_stream,
    },
};
use serde_json::{Value, json};

const ROUTE: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes/0/route";

fn events() -> Vec<String> {
    completion_events(5000)
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect()
}

fn with_route(changes: &[(&str, Value)]) -> Options {
    let mut route = json!({"cluster": "upstream", "timeout": "0s", "idle_timeout": "900s"});
    for (key, value) in changes {
        route[key] = value.clone();
    }
    Options {
        members: vec![(ROUTE, route)],
        ..Options::default()
    }
}

/// The number of entries that all commits so far wrote.
fn committed(world: &World) -> usize {
    let calls = world.faults.seen(Route::Commit);
    let commits = calls.iter().map(|call| {
        let body = call.json();
        body["commits"].as_array().map_or(0, Vec::len)
    });
    commits.sum()
}

/// Some exchange after the one in question: what the filter decided on that one has then been sent.
async fn committed_after_another(world: &mut World, commits: u64) -> usize {
    let request = chat("probe", &marked(&long_prefix("the probe")));
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    assert!(cache_of(&response.usage()).five_minutes > 1024);
    world.await_commits(commits + 1).await;
    committed(world) - 1
}

/// Many clients close as soon as they have read `[DONE]`, before the response's end.
#[tokio::test]
async fn a_client_that_closes_at_done_is_committed() {
    for asked in [true, false] {
        let mut world = World::start().await;
        let mut body = marked_stream(&long_prefix("done"));
        if !asked {
            body.as_object_mut().unwrap().remove("stream_options");
        }
        let sent = world.client.send(&chat("a", &body)).await;
        let mut call = world.upstream.next().await;
        // An answer that comes later lets `[DONE]` go with the end only.
        world
            .await_counter("promptcache_classify_total", &[], 1)
            .await;
        call.stream_head().await;
        call.chunk(events().concat()).await;
        let mut incoming = sent.head().await;
        incoming.read_until("[DONE]\n\n").await;
        drop(incoming);
        call.gone().await;
        world.await_commits(1).await;
        assert_eq!(
            world
                .stats()
                .await
                .counter("promptcache_commit_vetoed_total", &[]),
            0
        );
        // And the next one reads.
        let (response, _) = world.exchange(&chat("a", &body), &completion(5000)).await;
        assert!(cache_of(&response.usage()).read > 1024);
    }
}

/// `[DONE]` waits behind the usage: a client that leaves before it has not had the answer.
#[tokio::test]
async fn a_client_that_closes_before_done_is_not_committed() {
    for protocol in Protocol::ALL {
        let mut backend = Backend::start(protocol, Options::default()).await;
        let gate = backend.world.faults.hold(Route::Classify);
        let request = chat("b", &marked_stream(&long_prefix("before done")));
        let sent = backend.world.client.send(&request).await;
        let mut answering = backend.next().await;
        answering
            .head(200, &[("content-type", "text/event-stream")])
            .await;
        let e = events();
        answering.chunk(&e[0]).await;
        let mut incoming = sent.head().await;
        incoming.read_until("\"Ye\"").await;
        answering.chunk(e[1..].concat()).await;
        drop(incoming);
        let vetoed = [("reason", "disconnect")];
        backend
            .world
            .await_counter("promptcache_commit_vetoed_total", &vetoed, 1)
            .await;
        gate.open();
        backend
            .world
            .await_counter("promptcache_requests_total", &[("outcome", "aborted")], 1)
            .await;
        drop(answering);
        assert_eq!(
            committed(&backend.world),
            1,
            "the one that started the world"
        );
    }
}

#[tokio::test]
async fn an_upstream_that_resets_in_the_middle_is_not_committed() {
    for protocol in Protocol::ALL {
        let mut backend = Backend::start(protocol, Options::default()).await;
        let e = events();
        // Before the usage; behind it, before `[DONE]`; in the middle of the usage frame.
        for (count, sent_bytes) in (1..).zip([
            e[..2].concat(),
            e[..4].concat(),
            format!("{}{}", e[..3].concat(), &e[3][..60]),
        ]) {
            let request = chat("r", &marked_stream(&long_prefix(&format!("reset {count}"))));
            let before = backend.classified().await;
            let sent = backend.world.client.send(&request).await;
            let mut answering = backend.next().await;
            backend.await_classified(before + 1).await;
            answering
                .head(200, &[("content-type", "text/event-stream")])
                .await;
            answering.chunk(&sent_bytes).await;
            let mut incoming = sent.head().await;
            incoming.read_until("\"s.\"").await;
            answering.reset();
            let (_, seen) = incoming
                .try_finish()
                .await
                .expect_err("the break must show");
            assert!(
                sent_bytes.starts_with(&seen) || seen.contains("cache_read_input_tokens"),
                "{seen}"
            );
            backend
                .world
                .await_counter(
                    "promptcache_requests_total",
                    &[("outcome", "aborted")],
                    count,
                )
                .await;
        }
        // Commits leave in order: one that is earned now is only the second.
        let sent = backend
            .world
            .client
            .send(&chat("r", &marked_stream(&long_prefix("whole"))))
            .await;
        let mut answering = backend.next().await;
        answering
            .head(200, &[("content-type", "text/event-stream")])
            .await;
        answering.finish(e.concat(), Ending::Alone).await;
        sent.finish().await;
        backend.world.await_commits(2).await;
        assert_eq!(committed(&backend.world), 2, "{protocol:?}");
    }
}

/// `[DONE]` has been delivered: what happens to the connection afterwards changes nothing.
#[tokio::test]
async fn an_upstream_that_resets_behind_done_is_committed() {
    for protocol in Protocol::ALL {
        let mut backend = Backend::start(protocol, Options::default()).await;
        let request = chat("r", &marked_stream(&long_prefix("reset behind done")));
        let before = backend.classified().await;
        let sent = backend.world.client.send(&request).await;
        let mut answering = backend.next().await;
        backend.await_classified(before + 1).await;
        answering
            .head(200, &[("content-type", "text/event-stream")])
            .await;
        answering.chunk(events().concat()).await;
        let mut incoming = sent.head().await;
        incoming.read_until("[DONE]\n\n").await;
        answering.reset();
        let _ = incoming.try_finish().await;
        backend.world.await_commits(2).await;
    }
}

#[tokio::test]
async fn silence_until_the_idle_timeout_is_not_committed() {
    let mut world = World::with(with_route(&[("idle_timeout", json!("0.2s"))])).await;
    let e = events();
    // With a usage frame that is out, and with one that waits for its answer.
    for (count, hold) in [(1, false), (2, true)] {
        let gate = hold.then(|| world.faults.hold(Route::Classify));
        let request = chat("a", &marked_stream(&long_prefix(&format!("idle {count}"))));
        let sent = world.client.send(&request).await;
        let mut call = world.upstream.next().await;
        call.stream_head().await;
        call.chunk(e[..2].concat()).await;
        let mut incoming = sent.head().await;
        incoming.read_until("\"s.\"").await;
        call.chunk(e[2..4].concat()).await;
        assert!(incoming.try_finish().await.is_err(), "Envoy gives up");
        world
            .await_counter(
                "promptcache_requests_total",
                &[("outcome", "aborted")],
                count,
            )
            .await;
        if let Some(gate) = gate {
            gate.open();
        }
        drop(call);
    }
    world
        .faults
        .set(Route::Classify, prompt_cache_e2e::faults::Fault::None);
    assert_eq!(committed_after_another(&mut world, 0).await, 0);
}

#[tokio::test]
async fn a_retried_request_is_committed_once() {
    let retry =
        json!({"retry_on": "5xx", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}});
    for stream in [true, false] {
        let mut world = World::with(with_route(&[("retry_policy", retry.clone())])).await;
        let prefix = long_prefix("retried");
        let body = if stream {
            marked_stream(&prefix)
        } else {
            marked(&prefix)
        };
        let sent = world.client.send(&chat("a", &body)).await;
        let first = world.upstream.next().await;
        let asked = first.request.clone();
        // Even a failure that speaks of usage.
        first.json(503, completion(5000).to_string()).await;
        let second = world.upstream.next().await;
        assert_eq!(second.request.body, asked.body);
        if stream {
            let e = completion_events(5000);
            let e: Vec<_> = e.iter().map(String::as_str).collect();
            second.events(&e).await;
        } else {
            second.json(200, completion(5000).to_string()).await;
        }
        let response = sent.finish().await;
        assert_eq!(response.status, 200);
        let written = cache_of(&response.usage());
        assert!(written.five_minutes > 1024 && written.read == 0);
        world.await_commits(1).await;
        assert_eq!(
            world.faults.seen(Route::Classify).len(),
            1,
            "one callout, however often the upstream is tried"
        );
        assert_eq!(committed_after_another(&mut world, 1).await, 1);
        assert_eq!(
            world
                .stats()
                .await
                .counter("promptcache_commit_vetoed_total", &[]),
            0
        );
    }
}

/// The first try is slow, Envoy asks a second time, and both answer: one answer counts.
#[tokio::test]
async fn a_hedged_request_is_committed_once() {
    let mut world = World::with(with_route(&[
        (
            "retry_policy",
            json!({"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.2s"}),
        ),
        ("hedge_policy", json!({"hedge_on_per_try_timeout": true})),
    ]))
    .await;
    for (commits, winner) in [(1, 0), (2, 1)] {
        let body = marked_stream(&long_prefix(&format!("hedged {commits}")));
        let sent = world.client.send(&chat("a", &body)).await;
        let mut calls = vec![world.upstream.next().await, world.upstream.next().await];
        assert_eq!(calls[0].request.body, calls[1].request.body);
        let mut first = calls.remove(winner);
        first.stream_head().await;
        first.chunk(events()[0].clone()).await;
        let mut incoming = sent.head().await;
        incoming.read_until("\"Ye\"").await;
        // The other one is told to stop; it answers in full all the same.
        let mut other = calls.remove(0);
        other.stream_head().await;
        other.chunk(events().concat()).await;
        other.end().await;
        first.chunk(events()[1..].concat()).await;
        first.end().await;
        let response = incoming.finish().await;
        assert!(cache_of(&response.usage()).five_minutes > 1024);
        assert_eq!(response.text().matches("\"Ye\"").count(), 1);
        world.await_commits(commits).await;
    }
    assert_eq!(committed_after_another(&mut world, 2).await, 2);
    assert_eq!(
        world
            .stats()
            .await
            .counter("promptcache_commit_vetoed_total", &[]),
        0
    );
}

#[tokio::test]
async fn both_forms_of_end_are_complete_without_done() {
    for protocol in Protocol::ALL {
        let mut backend = Backend::start(protocol, Options::default()).await;
        let e = events();
        for (commits, ending) in (2..).zip([Ending::WithLast, Ending::Alone, Ending::Trailers]) {
            let request = chat("e", &marked_stream(&long_prefix(&format!("{ending:?}"))));
            let before = backend.classified().await;
            let sent = backend.world.client.send(&request).await;
            let mut answering = backend.next().await;
            backend.await_classified(before + 1).await;
            answering
                .head(200, &[("content-type", "text/event-stream")])
                .await;
            answering.chunk(e[..3].concat()).await;
            answering.finish(&e[3], ending).await;
            let response = sent.finish().await;
            assert!(
                cache_of(&response.usage()).five_minutes > 1024,
                "{protocol:?} {ending:?}"
            );
            backend.world.await_commits(commits).await;
        }
    }
}
