//! What the VM holds is bounded: however many requests passed, its memory is what the first
//! thousand needed.

#![allow(clippy::unwrap_used, clippy::panic)]

use prompt_cache_e2e::world::{
    Options, World, chat, completion, completion_events, long_prefix, marked, marked_stream, sized,
};
use serde_json::json;

const PAGES: &str = "promptcache_vm_memory_pages";
/// Requests after which the memory has its final size.
const FIRST: usize = 1_000;
/// Pages of 64 KiB by which the peak may be later than that: the largest body and a batch of
/// commits rarely meet. What leaks 30 bytes a request shows in 5,000 of them.
const LATE_PAGES: u64 = 2;

/// All requests: `MEMORY_REQUESTS` from the environment.
fn requests() -> usize {
    std::env::var("MEMORY_REQUESTS").map_or(5_000, |text| text.parse().unwrap())
}

#[tokio::test]
async fn the_vm_stays_as_large_as_after_a_thousand_requests() {
    // Leases have a bound of their own; it is reached within the first requests.
    let options = Options {
        trapping: true,
        plugin: json!({"lease_bytes_max": 8192}),
        concurrency: Some(1),
        ..Options::default()
    };
    let mut world = World::with(options).await;
    let events = completion_events(5000);
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let mut first = 0;
    for sent in 1..=requests() {
        match sent % 8 {
            0 => {
                let cold = chat("a", &marked(&long_prefix(&format!("topic {sent}"))));
                world.exchange(&cold, &completion(5000)).await;
            }
            1 => {
                let hot = chat("a", &marked_stream(&long_prefix("hot")));
                world.stream(&hot, &events).await;
            }
            2 => {
                let refused = chat(
                    "a",
                    &json!({"model": "demo", "cache_control": 1, "messages": []}),
                );
                let response = world.client.call(&refused).await;
                assert_eq!(response.status, 400);
            }
            n => {
                let plain = chat(
                    "a",
                    &serde_json::from_str(&sized(1_000 << n, false)).unwrap(),
                );
                world.exchange(&plain, &completion(5000)).await;
            }
        }
        if sent == FIRST {
            first = pages(&world).await;
        }
    }
    let last = pages(&world).await;
    println!(
        "{first} pages after {FIRST} requests, {last} after {}",
        requests()
    );
    assert!(last <= first + LATE_PAGES, "{first} pages became {last}");
    world.assert_no_vm_lost().await;
}

/// The gauge shows what the last stream left.
async fn pages(world: &World) -> u64 {
    world.await_idle().await.counter(PAGES, &[])
}
