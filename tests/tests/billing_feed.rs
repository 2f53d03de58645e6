//! The access log is a billing feed: its lines add up to what the clients were told. No log and no
//! file of either program holds a prompt or a key.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use prompt_cache_e2e::world::{
    Cached, Options, World, cache_of, chat, completion, completion_events, long_prefix, marked,
    marked_stream, sized,
};
use serde_json::{Value, json};

const KEY: &str = "sk-planted-key";
const WORDS: &str = "planted-words";
const MODEL: &str = "planted-model";

#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    read: u64,
    five_minutes: u64,
    one_hour: u64,
}

impl Sum {
    fn add(&mut self, cached: Cached) {
        self.read += cached.read;
        self.five_minutes += cached.five_minutes;
        self.one_hour += cached.one_hour;
    }
}

#[tokio::test]
async fn the_access_log_adds_up_to_the_usage_and_holds_no_secret() {
    let mut world = World::with(Options {
        concurrency: Some(2),
        ..Options::default()
    })
    .await;
    let events = completion_events(20_000);
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let mut told = Sum::default();
    let (mut handled, mut commits) = (0, 0);

    for tenant in ["a", "b"] {
        let key = format!("{KEY}-{tenant}");
        let prefix = long_prefix(WORDS);
        let mut hour = marked(&prefix);
        hour["messages"][1]["content"] = json!([{
            "type": "text", "text": long_prefix("another part"),
            "cache_control": {"type": "ephemeral", "ttl": "5m"},
        }]);
        hour["messages"][0]["content"][0]["cache_control"]["ttl"] = json!("1h");
        let unmarked: Value = serde_json::from_str(&sized(2_000, false)).unwrap();
        for body in [marked(WORDS), hour.clone(), marked(&prefix), hour, unmarked] {
            let (response, _) = world
                .exchange(&chat(&key, &body), &completion(20_000))
                .await;
            let cached = cache_of(&response.usage());
            told.add(cached);
            handled += 1;
            // The next one reads what this one wrote.
            commits += u64::from(cached.creation() > 0);
            world.await_commits(commits).await;
        }
        let stream = chat(&key, &marked_stream(&prefix));
        let (response, _) = world.stream(&stream, &events).await;
        told.add(cache_of(&response.usage()));
        // Nothing of these is billed: a prompt of fewer tokens than we count, a refusal, a model
        // nobody knows.
        let capped = chat(&key, &marked(&long_prefix("capped")));
        let (response, _) = world.exchange(&capped, &completion(100)).await;
        told.add(cache_of(&response.usage()));
        let refused = chat(
            &key,
            &json!({"model": "demo", "cache_control": 1, "messages": []}),
        );
        assert_eq!(world.client.call(&refused).await.status, 400);
        let mut unknown = marked(&prefix);
        unknown["model"] = json!(MODEL);
        world
            .exchange(&chat(&key, &unknown), &completion(5000))
            .await;
        handled += 3;
        // What the client was not shown for its size is committed all the same.
        commits += 1;
    }
    assert!(
        told.read > 4096 && told.five_minutes > 2048 && told.one_hour > 2048,
        "{told:?}"
    );

    let lines = world.access_log_lines(handled as usize).await;
    let mut billed = Sum::default();
    for line in &lines {
        let number = |name: &str| line["prompt_cache"][name].as_u64().unwrap();
        billed.read += number("read");
        billed.five_minutes += number("5m");
        billed.one_hour += number("1h");
        assert_eq!(number("24h"), 0);
        assert!(line["request_id"].is_string(), "{line}");
    }
    assert_eq!(billed, told);

    // What a client invents is no label.
    for stats in [world.stats().await, world.index.stats().await.unwrap()] {
        for (name, labels) in stats.samples() {
            assert!(
                labels.iter().all(|(_, value)| !value.contains("planted")),
                "{name} {labels:?}"
            );
        }
    }

    let mut files = 0;
    search(world.folder(), &mut files);
    assert!(
        files >= 4,
        "logs of both programs, the access log, the ledger: {files}"
    );
}

/// Panics where a file holds a planted text.
fn search(folder: &Path, files: &mut usize) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search(&path, files);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for planted in [KEY, WORDS] {
            let found = memchr::memmem::find(&bytes, planted.as_bytes());
            assert_eq!(found, None, "{planted} in {}", path.display());
        }
        *files += 1;
    }
}
