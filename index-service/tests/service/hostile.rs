//! Who connects and is no filter: silence, slowness, junk. Whatever they do, the next good request
//! is answered.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use prompt_cache_core::api::Api;
use prompt_cache_core::request::scan_as;
use prompt_cache_core::wire::{ClassifyAnswer, TEXT_CONTENT_TYPE};
use prompt_cache_index::tokens::PromptBody;

use crate::harness::{M5, Running, chat, request, request_as, start, text};

/// Longer than anything here may take, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the service gives a connection for its first head, and some more.
const FIRST_REQUEST: std::ops::Range<Duration> = Duration::from_secs(8)..PATIENCE;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";

fn connect(running: &Running, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(running.url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(first).unwrap();
    stream
}

/// All that comes until the service closes; what it had already closed or reset is empty.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("no answer, no end: {:?}", String::from_utf8_lossy(&bytes))
        }
        Ok(_) | Err(_) => bytes,
    }
}

/// Whether one more connection is served.
fn is_served(running: &Running) -> bool {
    let mut stream = connect(running, &[]);
    let head = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(head).is_ok() && rest(&mut stream).starts_with(b"HTTP/1.1 200")
}

/// Tries until one more connection is served.
fn await_served(running: &Running) {
    let start = Instant::now();
    while !is_served(running) {
        assert!(start.elapsed() < PATIENCE, "nobody gives way");
        std::thread::yield_now();
    }
}

#[test]
fn quiet_connections_give_way() {
    let running = start("limits: {connections_max: 8}");
    let firsts = [
        &b""[..],
        b"P",
        b"POST /v1/classify HTTP/1.1\r\nhost: x\r\nx-slow: ",
        &PREFACE[..10],
        &[PREFACE, SETTINGS].concat(),
    ];
    let mut taken: Vec<TcpStream> = firsts.iter().map(|it| connect(&running, it)).collect();
    // These brought a request, and are quiet since.
    for _ in 0..3 {
        let mut stream = connect(&running, HEALTH);
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        taken.push(stream);
    }
    await_served(&running);
    for _ in 0..20 {
        await_served(&running);
    }
    assert!(running.metric("prompt_cache_index_shed_total{reason=\"connections\"}") >= 1.0);
    // One of those that never said anything went first.
    let used = taken.split_off(firsts.len());
    for mut stream in used {
        stream.write_all(HEALTH).unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
    }
}

#[test]
fn who_is_being_answered_keeps_the_seat() {
    let running = start("limits: {connections_max: 2}");
    let body = br#"{"v":1,"commits":[]}"#;
    let head = format!(
        "POST /v1/commit HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let mut busy = connect(&running, head.as_bytes());
    let mut go_on = [0; 25];
    busy.read_exact(&mut go_on).unwrap();
    let _silent = connect(&running, b"");
    for _ in 0..5 {
        await_served(&running);
    }
    busy.write_all(body).unwrap();
    let answer = rest(&mut busy);
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        answer.escape_ascii()
    );
}

#[test]
fn a_connection_without_a_request_is_closed() {
    let running = start("");
    let firsts = [
        &b""[..],
        b"GET /healthz HTTP/1.1\r\nhost: ",
        &PREFACE[..3],
        &[PREFACE, SETTINGS].concat(),
    ];
    let begin = Instant::now();
    let streams: Vec<TcpStream> = firsts.iter().map(|it| connect(&running, it)).collect();
    let mut used = connect(&running, HEALTH);
    for (mut stream, first) in streams.into_iter().zip(firsts) {
        rest(&mut stream);
        let taken = begin.elapsed();
        assert!(
            FIRST_REQUEST.contains(&taken),
            "{} after {taken:?}",
            first.escape_ascii()
        );
    }
    // Who has brought one may think about the next.
    used.write_all(HEALTH).unwrap();
    used.shutdown(Shutdown::Write).unwrap();
    let answers = rest(&mut used);
    let count = answers
        .windows(4)
        .filter(|it| it == b"\r\nok" || it == b"ok\nH")
        .count();
    assert!(
        count >= 1 && answers.ends_with(b"ok\n"),
        "{}",
        answers.escape_ascii()
    );
}

#[test]
fn slow_bodies_end_with_their_deadline() {
    let running = start("limits: {concurrency_max: 2, request_timeout_ms: 500}");
    let slow = |path: &str| {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 4000\r\n\r\n{{");
        connect(&running, head.as_bytes())
    };
    let mut streams = [
        slow("/v1/classify"),
        slow("/v1/commit"),
        slow("/v1/classify"),
    ];
    for stream in &mut streams {
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        // The third one found no room.
        assert!(
            matches!(&status, b"HTTP/1.1 504" | b"HTTP/1.1 503"),
            "{}",
            status.escape_ascii()
        );
        let _ = stream.write_all(b" ");
    }
    assert_eq!(running.get("/v1/policy", &[]).status, 200);
}

#[test]
fn many_requests_in_one_write_are_answered_in_order() {
    let running = start("");
    let policy = b"GET /v1/policy HTTP/1.1\r\nhost: x\r\n\r\n";
    let nowhere = b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n";
    let last = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let bytes = [&[&policy[..], nowhere].concat().repeat(50)[..], last].concat();
    let mut stream = connect(&running, &bytes);
    let answers = String::from_utf8(rest(&mut stream)).unwrap();
    let statuses: Vec<&str> = answers
        .match_indices("HTTP/1.1 ")
        .filter_map(|(at, mark)| answers.get(at + mark.len()..at + mark.len() + 3))
        .collect();
    assert_eq!(
        statuses,
        [&["200", "404"].repeat(50)[..], &["200"]].concat()
    );
}

/// A good classification with its prompt, which brings a miss.
fn good() -> Vec<u8> {
    let body = chat(&[&text(20)]);
    let mut bytes = serde_json::to_vec(&request(1, &body, &[(0, M5)])).unwrap();
    bytes.push(b'\n');
    bytes.extend_from_slice(&body);
    let head = format!(
        "POST /v1/classify HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: {TEXT_CONTENT_TYPE}\r\ncontent-length: {}\r\n\r\n",
        bytes.len()
    );
    [head.as_bytes(), &bytes].concat()
}

/// Whether [`good`] is answered.
fn is_well(running: &Running) -> bool {
    rest(&mut connect(running, &good())).starts_with(b"HTTP/1.1 200")
}

/// Who has not answered for so long waits for more.
const WAITS: Duration = Duration::from_millis(500);

/// Sends `bytes` and no more, and returns the status of the first answer, if there is one.
fn status_of(running: &Running, bytes: &[u8]) -> Option<u16> {
    let mut stream = connect(running, &[]);
    // It may be answered, and closed, before all of it is there.
    let _ = stream.write_all(bytes);
    stream.set_read_timeout(Some(WAITS)).unwrap();
    let mut answer = Vec::new();
    let mut status = stream.take("HTTP/1.1 200".len() as u64);
    if status.read_to_end(&mut answer).is_err() && answer.is_empty() {
        // There is no more.
        let stream = status.get_mut();
        let _ = stream.shutdown(Shutdown::Write);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        answer = rest(stream);
    }
    let status = answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(status).ok()?.parse().ok()
}

#[test]
fn junk_is_refused() {
    let running = start("");
    let with = |head: &str, body: &[u8]| [head.as_bytes(), b"\r\n\r\n", body].concat();
    let post = "POST /v1/classify HTTP/1.1\r\nhost: x\r\n";
    let deep = "[".repeat(60_000);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "no HTTP",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
        ),
        ("NULs", vec![0; 100_000]),
        ("line ends", b"\r\n".repeat(50_000)),
        ("no version", b"GET /healthz\r\n\r\n".to_vec()),
        ("HTTP/3.0", b"GET / HTTP/3.0\r\n\r\n".to_vec()),
        ("a long line", [&b"GET /"[..], &[b'a'; 1 << 20]].concat()),
        (
            "a long name",
            with(
                &format!("GET / HTTP/1.1\r\n{}: 1", "a".repeat(1 << 20)),
                b"",
            ),
        ),
        (
            "a long value",
            with(
                &format!("GET / HTTP/1.1\r\na: {}", "b".repeat(1 << 20)),
                b"",
            ),
        ),
        (
            "many headers",
            with(&format!("GET / HTTP/1.1{}", "\r\na: b".repeat(10_000)), b""),
        ),
        ("no colon", with("GET / HTTP/1.1\r\nhost", b"")),
        ("NUL in a value", with("GET / HTTP/1.1\r\nhost: a\0b", b"")),
        (
            "two lengths",
            with(
                &format!("{post}content-length: 1\r\ncontent-length: 2"),
                b"{}",
            ),
        ),
        (
            "a negative length",
            with(&format!("{post}content-length: -1"), b"{}"),
        ),
        (
            "a length over 64 bits",
            with(
                &format!("{post}content-length: 99999999999999999999"),
                b"{}",
            ),
        ),
        (
            "a length of 63 bits",
            with(&format!("{post}content-length: 9223372036854775807"), b"{}"),
        ),
        (
            "an unknown coding",
            with(&format!("{post}transfer-encoding: gzip"), b"{}"),
        ),
        (
            "a chunk over 64 bits",
            with(
                &format!("{post}transfer-encoding: chunked"),
                b"fffffffffffffffff\r\n",
            ),
        ),
        (
            "no chunk size",
            with(
                &format!("{post}transfer-encoding: chunked"),
                b"xyz\r\n{}\r\n0\r\n\r\n",
            ),
        ),
        (
            "a long extension",
            with(
                &format!("{post}transfer-encoding: chunked"),
                &[b"2;".as_slice(), &[b'x'; 1 << 20]].concat(),
            ),
        ),
        (
            "long trailers",
            with(
                &format!("{post}transfer-encoding: chunked"),
                &[b"0\r\nx: ".as_slice(), &[b'x'; 1 << 20]].concat(),
            ),
        ),
        (
            "a body that ends early",
            with(&format!("{post}content-length: 60000"), b"{"),
        ),
        (
            "deep JSON",
            with(
                &format!("{post}content-length: {}", deep.len()),
                deep.as_bytes(),
            ),
        ),
        ("HTTP/2 and junk", [PREFACE, &[0xff; 4096]].concat()),
        (
            "a frame of 16 MiB",
            [PREFACE, b"\xff\xff\xff\0\0\0\0\0\x01"].concat(),
        ),
    ];
    for (name, bytes) in &cases {
        let status = status_of(&running, bytes);
        assert!(
            status.is_none_or(|it| (400..500).contains(&it)),
            "{name}: {status:?}"
        );
    }
    assert!(is_well(&running));
}

#[test]
fn a_good_request_gone_wrong_is_never_an_error_of_ours() {
    let running = start("");
    let good = good();
    let mut dice = fastrand::Rng::with_seed(10);
    let mut answered = 0;
    for round in 0..120 {
        let mut bytes = good.clone();
        for _ in 0..dice.usize(1..5) {
            let at = dice.usize(..bytes.len());
            match dice.u8(..5) {
                0 => bytes[at] = dice.u8(..),
                1 => bytes[at] ^= 1 << dice.u8(..8),
                2 => bytes.truncate(at.max(1)),
                3 => bytes
                    .splice(
                        at..at,
                        good[at.min(good.len() - 1)..].iter().copied().take(40),
                    )
                    .for_each(drop),
                _ => drop(bytes.drain(at..(at + 3).min(bytes.len()))),
            }
        }
        let status = status_of(&running, &bytes);
        answered += u32::from(status.is_some());
        assert!(
            status.is_none_or(|it| it < 500),
            "round {round}: {status:?}\n{}",
            bytes.escape_ascii()
        );
    }
    assert!(answered > 40, "{answered}");
    assert!(is_well(&running));
    assert!(running.get("/readyz", &[]).status == 200);
}

/// Nested as deep as a request may be, which its chat form cannot be: it is around the same value.
#[test]
fn a_prompt_that_cannot_be_counted_is_nobodys_mistake() {
    let running = start("");
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let call = |input: String| {
        format!(
            r#"{{"messages":[{{"role":"assistant","content":[{{"type":"tool_use","id":"t","name":"n","input":{input}}}]}}]}}"#
        )
    };
    let body = call(deep(122)).into_bytes();
    let asked = request_as(Api::Messages, 1, &body, &[(0, M5)]);
    let answer = running.ask_with_text(&asked, &body);
    assert!(
        matches!(&answer, ClassifyAnswer::Ok(it) if it.writes.is_empty()),
        "{answer:?}"
    );
}

/// What the filter takes for a request the service takes for one, too, in the same blocks: else a
/// client could have its classifications refused at will.
#[test]
fn filter_and_service_agree_on_what_a_request_is() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/apis");
    let mut seeds: Vec<Vec<u8>> = std::fs::read_dir(corpus)
        .unwrap()
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    seeds.sort();
    let mut dice = fastrand::Rng::with_seed(11);
    let mut requests = 0;
    for seed in &seeds {
        let seed = seed.split(|byte| *byte == 0).next().unwrap_or_default();
        for round in 0..60 {
            let mut body = seed.to_vec();
            for _ in 0..(round % 4) {
                let other = &seeds[dice.usize(..seeds.len())];
                let (at, from) = (dice.usize(..=body.len()), dice.usize(..other.len()));
                let piece = &other[from..(from + dice.usize(1..12)).min(other.len())];
                let end = (at + dice.usize(..12)).min(body.len());
                body.splice(at..end, piece.iter().copied());
            }
            for api in [Api::Chat, Api::Messages, Api::Responses, Api::Completions] {
                let Ok(request) = scan_as(api, &body) else {
                    continue;
                };
                requests += 1;
                let form = PromptBody::of(api, &body);
                let prompt = form.as_ref().map(PromptBody::prompt);
                let Ok(Ok(prompt)) = prompt else {
                    panic!("{api:?} {}", body.escape_ascii())
                };
                assert_eq!(prompt.block_count(), request.block_count());
            }
        }
    }
    assert!(requests > 10_000, "{requests}");
}
