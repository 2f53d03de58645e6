//! Bodies that are made to take more memory than they have bytes.

use prompt_cache_e2e::{
    http::Request,
    world::{CHAT, Options, World, completion, long_prefix, marked},
};

const BODY_BYTES: usize = 8 << 20;
const PAGE_BYTES: u64 = 64 << 10;
/// Copies of a body that the VM may hold at once: as it came, as it goes, as it is told the service;
/// and half as much for what an allocator leaves between.
const BODIES_MAX: u64 = 6;

fn bodies() -> Vec<(&'static str, String)> {
    let mark = r#""cache_control":{"type":"ephemeral"}"#;
    let message = format!(r#"{{"role":"user","content":[{{"type":"text","text":"x",{mark}}}]}}"#);
    let body = |before: &str, item: &str, after: &str| {
        let items = item.repeat(BODY_BYTES / item.len());
        format!(r#"{{"model":"demo",{before}{items}{after}}}"#)
    };
    let messages = format!(r#""messages":[{message}]"#);
    vec![
        (
            "tools again and again",
            body("", r#""tools":1,"#, &messages),
        ),
        (
            "a parameter again and again",
            body("", r#""documents":1,"#, &messages),
        ),
        ("other members", body("", r#""a":1,"#, &messages)),
        (
            "a list of numbers",
            body(r#""documents":["#, "1,", &format!("1],{messages}")),
        ),
        (
            "escapes",
            body(r#""documents":""#, r"\n", &format!(r#"",{messages}"#)),
        ),
        (
            "messages",
            body(&format!(r#""messages":[{message}"#), ",{}", "]"),
        ),
        (
            "large parts",
            body(
                &format!(r#""messages":[{message}"#),
                &format!(r#",{{"content":[{{"text":"{}"}}]}}"#, "x".repeat(1000)),
                "]",
            ),
        ),
        (
            "messages again and again",
            body("", &format!("{messages},"), &messages),
        ),
    ]
}

#[tokio::test]
async fn a_body_takes_a_few_times_its_length() {
    let options = Options {
        trapping: true,
        concurrency: Some(1),
        ..Options::default()
    };
    let mut world = World::with(options).await;
    let pages = async |world: &World| {
        let stats = world.await_idle().await;
        stats.counter("promptcache_vm_memory_pages", &[])
    };
    let request = Request::post(CHAT, marked(&long_prefix("memory")).to_string());
    world
        .exchange(
            &request.header("authorization", "Bearer a"),
            &completion(5000),
        )
        .await;
    let first = pages(&world).await;
    assert!(first > 0);
    for (name, body) in bodies() {
        let request = Request::post(CHAT, body).header("authorization", "Bearer a");
        let sent = world.client.send_beside(&request).await;
        world
            .upstream
            .next()
            .await
            .json(200, completion(5000).to_string())
            .await;
        assert_eq!(sent.finish().await.status, 200, "{name}");
        let grown = (pages(&world).await - first) * PAGE_BYTES;
        assert!(
            grown < BODIES_MAX * BODY_BYTES as u64,
            "{name}: {} MiB",
            grown >> 20
        );
    }
    world.assert_no_vm_lost().await;
}
