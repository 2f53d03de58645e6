//! Answers that no good upstream sends, in chunks of every size: what arrives is what the rewriter
//! makes of the whole body, and outside `usage` every byte.

use prompt_cache_core::response::BodyKind;
use prompt_cache_e2e::{
    backend::{Backend, Ending, Protocol, expected, whole},
    world::Options,
};

/// Streams and documents that are wrong in one way each. `U` stands for a usage object.
fn answers() -> Vec<(&'static str, BodyKind, Vec<u8>)> {
    const U: &str = r#""usage":{"prompt_tokens":5000,"completion_tokens":1}"#;
    let sse: Vec<(&str, String)> = vec![
        ("CR", format!("data: {{\"choices\":[],{U}}}\r\rdata: [DONE]\r\r")),
        ("CR, LF and CRLF", format!("data: {{\"choices\":[]\rdata: ,{U}}}\n\r\ndata: [DONE]\r\n\r")),
        ("a byte order mark", format!("\u{feff}data: {{{U}}}\n\n")),
        ("two byte order marks", format!("\u{feff}\u{feff}data: {{{U}}}\n\n")),
        ("one inside", format!("data: a\n\n\u{feff}data: {{{U}}}\n\n")),
        ("NULs", format!("\0\0data: {{{U}}}\n\ndata: \0\n\nid: \0\n\n")),
        ("no blank line", format!("data: {{{U}}}\ndata: [DONE]\n")),
        ("no end", format!("data: {{{U}}}")),
        ("blank lines only", "\n".repeat(100_000)),
        ("comments only", ":\n".repeat(50_000)),
        ("fields without a value", "data\nid\nevent\nretry\n\n".repeat(5_000)),
        ("an endless line", format!("data: {{\"a\":\"{}\"}}\n\ndata: {{{U}}}\n\n", "x".repeat(2 << 20))),
        ("an endless comment", format!(":{}\n\ndata: {{{U}}}\n\n", "x".repeat(2 << 20))),
        ("an endless name", format!("{}: x\n\ndata: {{{U}}}\n\n", "x".repeat(2 << 20))),
        ("a line for every byte", format!("data: {{\n{}data: {U}}}\n\n", "data: \n".repeat(30_000))),
        ("just under the limit", format!("data: {{\"a\":\"{}\",{U}}}\n\n", "x".repeat((1 << 20) - 100))),
        ("usage in an array", format!("data: [{{{U}}}]\n\n")),
        ("usage in a string", format!("data: {{\"a\":{}}}\n\n", serde_json::to_string(U).unwrap())),
        ("usage below", format!("data: {{\"a\":{{{U}}},\"choices\":[{{{U}}}]}}\n\n")),
        ("usage in usage", format!("data: {{\"usage\":{{{U}}}}}\n\n")),
        ("usage is none", "data: {\"usage\":null}\n\ndata: {\"usage\":[]}\n\ndata: {\"usage\":7}\n\n".to_owned()),
        ("usage twice", format!("data: {{{U},{U}}}\n\n")),
        ("usage three thousand times", format!("data: {{{}{U}}}\n\n", "\"usage\":{},".repeat(3_000))),
        ("an escaped key", format!("data: {{{}}}\n\n", U.replace("usage", "\\u0075s\\u0061ge"))),
        ("numbers beyond 64 bits", "data: {\"usage\":{\"prompt_tokens\":18446744073709551616}}\n\n".to_owned()),
        ("numbers below zero", "data: {\"usage\":{\"prompt_tokens\":-1,\"prompt_tokens_details\":{\"cached_tokens\":-5}}}\n\n".to_owned()),
        ("floats", "data: {\"usage\":{\"prompt_tokens\":5e3,\"total_tokens\":1.5}}\n\n".to_owned()),
        ("numbers in strings", "data: {\"usage\":{\"prompt_tokens\":\"5000\",\"prompt_tokens_details\":\"x\"}}\n\n".to_owned()),
        ("no numbers", "data: {\"usage\":{\"prompt_tokens\":NaN}}\n\n".to_owned()),
        ("a number of 100 KB", format!("data: {{\"usage\":{{\"prompt_tokens\":{}}}}}\n\n", "9".repeat(100_000))),
        ("deep", format!("data: {{\"a\":{}{},{U}}}\n\n", "[".repeat(120), "]".repeat(120))),
        ("too deep", format!("data: {{\"a\":{}{},{U}}}\n\n", "[".repeat(5000), "]".repeat(5000))),
        ("brackets only", format!("data: {{\"usage\":{}\n\n", "{\"usage\":".repeat(20_000))),
        ("many usage frames", format!("data: {{{U}}}\n\n").repeat(2_000)),
        ("[DONE] first", format!("data: [DONE]\n\ndata: {{{U}}}\n\n")),
        ("[DONE] many times", format!("data: {{{U}}}\n\n{}", "data: [DONE]\n\n".repeat(1_000))),
    ];
    let json: Vec<(&str, String)> = vec![
        (
            "a million members",
            format!("{{{}{U}}}", "\"a\":1,".repeat(150_000)),
        ),
        (
            "usage first, then much",
            format!("{{{U},\"a\":\"{}\"}}", "x".repeat(600_000)),
        ),
        (
            "usage ten thousand times",
            format!("{{{}{U}}}", "\"usage\":{},".repeat(10_000)),
        ),
        (
            "usage over the cap",
            format!("{{\"usage\":{{\"a\":\"{}\"}}}}", "x".repeat(600_000)),
        ),
        (
            "usage that never ends",
            format!("{{\"usage\":{}", "{\"usage\":".repeat(50_000)),
        ),
        ("garbage behind", format!("{{{U}}}{{{U}}}")),
        (
            "white space behind",
            format!("{{{U}}}{}", " \n".repeat(200_000)),
        ),
        ("not JSON", format!("<html>{U}</html>")),
        (
            "too deep",
            format!("{{\"a\":{}{},{U}}}", "[".repeat(5000), "]".repeat(5000)),
        ),
        ("a byte order mark", format!("\u{feff}{{{U}}}")),
    ];
    let sse = sse
        .into_iter()
        .map(|(name, text)| (name, BodyKind::Sse, text.into_bytes()));
    let json = json
        .into_iter()
        .map(|(name, text)| (name, BodyKind::Json, text.into_bytes()));
    let mut all: Vec<_> = sse.chain(json).collect();
    let mut broken = format!("data: {{\"a\":\"X\",{U}}}\n\n").into_bytes();
    broken[12] = 0xff;
    all.push(("not UTF-8", BodyKind::Sse, broken));
    all
}

/// Few enough for a test, of any size.
fn cut<'a>(body: &'a [u8], dice: &mut fastrand::Rng) -> Vec<&'a [u8]> {
    let mut rest = body;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let most = if pieces.len() < 60 {
            1 << dice.u32(..18)
        } else {
            rest.len()
        };
        let (piece, more) = rest.split_at(dice.usize(1..=most.max(1)).min(rest.len()));
        pieces.push(piece);
        rest = more;
    }
    pieces
}

async fn run(protocol: Protocol, seed: u64) {
    let mut backend = Backend::start(protocol, Options::default()).await;
    let mut dice = fastrand::Rng::with_seed(seed);
    for (name, kind, body) in answers() {
        let stream = kind == BodyKind::Sse;
        let classified = backend.classified().await;
        let sent = backend.world.client.send(&backend.request(stream)).await;
        let mut answering = backend.next().await;
        // What may wait depends on when the answer comes: here it is there.
        backend.await_classified(classified + 1).await;
        let content_type = if stream {
            "text/event-stream"
        } else {
            "application/json"
        };
        answering.head(200, &[("content-type", content_type)]).await;
        // The end of a body that may be changed comes when the client has its beginning.
        let mut pieces = cut(&body, &mut dice);
        let last = pieces.pop().unwrap_or_default();
        let incoming = tokio::spawn(async move { whole(sent.head().await).await });
        for piece in pieces {
            answering.chunk(piece).await;
        }
        answering.finish(last, Ending::WithLast).await;
        let found = incoming
            .await
            .unwrap()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let wanted = expected(&body, kind, false, backend.answer());
        let differ = found.iter().zip(&wanted).position(|(a, b)| a != b);
        assert!(
            found == wanted,
            "{name}: {} bytes for {}, differing at {differ:?}",
            found.len(),
            wanted.len()
        );
    }
    backend.world.await_idle().await;
    let (request, body) = (
        backend.request(false),
        prompt_cache_e2e::world::completion(1 << 30).to_string(),
    );
    let sent = backend.world.client.send(&request).await;
    let mut answering = backend.next().await;
    answering
        .head(200, &[("content-type", "application/json")])
        .await;
    answering.finish(&body, Ending::WithLast).await;
    let usage = sent.finish().await.usage();
    assert_eq!(prompt_cache_e2e::world::cache_of(&usage).read, backend.read);
    backend.world.assert_no_vm_lost().await;
}

#[tokio::test]
async fn over_http1() {
    run(Protocol::Http1, 13).await;
}

#[tokio::test]
async fn over_http2() {
    run(Protocol::Http2, 14).await;
}
