//! Slow on purpose, on either side: nobody else waits, memory stays bounded, every hold ends.

use std::time::Duration;

use prompt_cache_e2e::{
    backend::{Backend, Ending, Protocol},
    faults::{Fault, Route},
    http::{Connection, Request},
    world::{Options, World, cache_of, chat, completion, completion_events, long_prefix, marked},
};
use serde_json::json;
use tokio::time::Instant;

/// So many at once.
const SLOW: usize = 150;
/// How long a hold may take here.
const DEADLINE: Duration = Duration::from_millis(1_000);

/// Heads and bodies that dribble do not keep a good request from being served, written and read;
/// and are answered when they are whole.
#[tokio::test]
async fn clients_that_dribble() {
    let mut world = World::start().await;
    let body = marked(&long_prefix("slow"));
    let bytes = chat("slow", &body).encode("llm");
    let head = bytes.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
    let mut slow: Vec<(Connection, usize)> = Vec::new();
    for n in 0..SLOW {
        let mut connection = world.client.connect().await;
        // In the request line, in the head, at its end, in the body, before its last byte.
        let stops = [10, head - 20, head + 3, head + 40, bytes.len() - 1];
        let stop = stops[n % stops.len()];
        connection.write(&bytes[..stop]).await.unwrap();
        slow.push((connection, stop));
    }
    let good = chat("good", &marked(&long_prefix("good")));
    for n in 0..3 {
        let (response, _) = world.exchange(&good, &completion(5000)).await;
        let cached = cache_of(&response.usage());
        assert_eq!(cached.read > 0, n > 0, "{cached:?}");
        world.await_commits(1).await;
        // The slow ones say a little more.
        for (connection, at) in &mut slow {
            let next = (*at + 1).min(bytes.len() - 1);
            connection.write(&bytes[*at..next]).await.unwrap();
            *at = next;
        }
    }
    world.upstream.assert_untouched();
    let some = slow.len() / 2;
    for (connection, _) in slow.drain(some..) {
        connection.reset();
    }
    for (mut connection, at) in slow {
        connection.write(&bytes[at..]).await.unwrap();
        world
            .upstream
            .next()
            .await
            .json(200, completion(5000).to_string())
            .await;
        let head = connection.read_head().await.unwrap().unwrap();
        connection.read_body().await.unwrap();
        assert_eq!(head.status, 200);
    }
    world.await_idle().await;
    world.assert_no_vm_lost().await;
}

/// A hold ends with its deadline, however the upstream dribbles on behind the held frame.
#[tokio::test]
async fn an_upstream_that_dribbles_behind_a_held_frame() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let options = Options {
            plugin: json!({"classify_deadline_ms": DEADLINE.as_millis() as u64}),
            ..Options::default()
        };
        let mut backend = Backend::start(protocol, options).await;
        backend.world.faults.set(Route::Classify, Fault::Hang);
        let start = Instant::now();
        let sent = backend.world.client.send(&backend.request(true)).await;
        let mut answering = backend.next().await;
        answering
            .head(200, &[("content-type", "text/event-stream")])
            .await;
        let events = completion_events(5000);
        let (done, events) = events.split_last().unwrap();
        let mut body = String::new();
        for event in events {
            let event = format!("data: {event}\n\n");
            answering.chunk(&event).await;
            body += &event;
        }
        let reader = async {
            let mut incoming = sent.head().await;
            incoming.read_until("\"usage\"").await;
            (start.elapsed(), incoming)
        };
        // A byte at a time, until what is held has come and longer.
        let writer = async {
            let mut dribbled = 0;
            while start.elapsed() < 3 * DEADLINE {
                answering.chunk(":").await;
                answering.chunk("\n").await;
                dribbled += 1;
                tokio::task::yield_now().await;
            }
            let last = format!("data: {done}\n\n");
            answering.finish(last, Ending::WithLast).await;
            dribbled
        };
        let ((held, incoming), dribbled) = tokio::join!(reader, writer);
        assert!(
            (DEADLINE * 9 / 10..3 * DEADLINE).contains(&held),
            "{held:?}"
        );
        let response = incoming.finish().await;
        body += &":\n".repeat(dribbled);
        body += &format!("data: {done}\n\n");
        assert!(
            response.text() == body,
            "{} bytes for {}",
            response.body.len(),
            body.len()
        );
        backend.world.assert_no_vm_lost().await;
    }
}

/// A document that comes byte by byte, and an event that never ends, cost the VM their caps and no
/// more, however many there are.
#[tokio::test]
async fn upstreams_that_dribble_do_not_gather_memory() {
    let options = Options {
        trapping: true,
        ..Options::default()
    };
    let mut world = World::with(options).await;
    let mut pages = Vec::new();
    for round in 0..3 {
        for n in 0..20 {
            let mut body = marked(&long_prefix("dribble"));
            body["stream"] = json!(n % 2 == 0);
            let sent = world.client.send(&chat("a", &body)).await;
            let mut call = world.upstream.next().await;
            if n % 2 == 0 {
                call.stream_head().await;
                for _ in 0..40 {
                    call.chunk("data: {\"a\":\"".to_owned() + &"x".repeat(50_000))
                        .await;
                }
            } else {
                call.head(200, &[("content-type", "application/json")])
                    .await;
                for byte in completion(5000).to_string().as_bytes().chunks(1) {
                    call.chunk(byte).await;
                }
            }
            call.end().await;
            assert_eq!(sent.finish().await.status, 200, "{round} {n}");
        }
        let stats = world.await_idle().await;
        pages.push(stats.counter("promptcache_vm_memory_pages", &[]));
    }
    assert_eq!(pages[1], pages[2], "{pages:?}");
    assert!(pages[0] > 0);
    world.assert_no_vm_lost().await;
}

/// Connections to the service that say nothing, more than it has room for, do not keep the filter
/// out.
#[tokio::test]
async fn silent_connections_to_the_service() {
    let options = Options {
        index_config: Some(
            "models: [{model: demo, encoding: o200k_base}]\nlimits: {connections_max: 16}\n".into(),
        ),
        ..Options::default()
    };
    let mut world = World::with(options).await;
    let service = prompt_cache_e2e::client::Client::new(world.index.address());
    let mut silent = Vec::new();
    for n in 0..64 {
        let mut connection = service.connect().await;
        // Fails where another one got its seat.
        let _ = connection
            .write(&b"POST /v1/classify HTTP/1.1\r\nhost: x\r\n"[..n % 30])
            .await;
        silent.push(connection);
    }
    let served = prompt_cache_e2e::deadline::poll(Duration::from_secs(20), async || {
        let answer = service.try_call(&Request::get("/readyz")).await.ok()?;
        (answer.status == 200).then_some(())
    });
    served.await.expect("the service serves others");
    // Nothing of what Envoy had open before may be left: the filter asks on a new connection.
    let served = prompt_cache_e2e::deadline::poll(Duration::from_secs(20), async || {
        let body = marked(&long_prefix("silence"));
        let (response, _) = world.exchange(&chat("a", &body), &completion(5000)).await;
        response
            .usage()
            .get("cache_read_input_tokens")
            .is_some()
            .then_some(())
    });
    served.await.expect("the filter gets through");
}
