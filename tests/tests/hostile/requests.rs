//! Requests that nobody should send: bad methods, paths, headers, framing, bodies; a table, and a
//! generator that puts them together.

use crate::pair::{Outcome, Pair};

/// A request whose length is right.
fn post(target: &[u8], headers: &[&[u8]], body: &[u8]) -> Vec<u8> {
    request(b"POST", target, headers, body)
}

fn request(method: &[u8], target: &[u8], headers: &[&[u8]], body: &[u8]) -> Vec<u8> {
    let length = format!("content-length: {}\r\n\r\n", body.len());
    let mut bytes = [method, b" ", target, b" HTTP/1.1\r\nhost: llm\r\n"].concat();
    for header in headers {
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(length.as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

const CHAT: &[u8] = b"/v1/chat/completions";
const KEY: &[u8] = b"authorization: Bearer k";
const JSON: &[u8] = b"content-type: application/json";
/// Of a model that is not cached: the body arrives as it was sent.
const BODY: &[u8] = br#"{"model":"other","messages":[{"role":"user","content":"Hi"}]}"#;

fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    let deep = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"model":"other","messages":{open}{close}}}"#).into_bytes()
    };
    let utf16: Vec<u8> = String::from_utf8_lossy(BODY)
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    vec![
        ("good", BODY.to_vec()),
        ("empty", vec![]),
        ("one byte", b"{".to_vec()),
        ("truncated", BODY[..BODY.len() - 1].to_vec()),
        ("trailing garbage", [BODY, b"}"].concat()),
        ("two objects", [BODY, BODY].concat()),
        (
            "byte order mark",
            [b"\xef\xbb\xbf".as_slice(), BODY].concat(),
        ),
        ("UTF-16", [b"\xff\xfe".as_slice(), &utf16].concat()),
        (
            "not UTF-8",
            br#"{"model":"demo","messages":[{"role":"user","content":"X"}]}"#
                .map(|b| if b == b'X' { 0xff } else { b })
                .to_vec(),
        ),
        (
            "overlong",
            b"{\"model\":\"\xc0\xae\",\"messages\":[]}".to_vec(),
        ),
        (
            "lone surrogate",
            br#"{"model":"demo","messages":[{"role":"user","content":"\ud83d"}]}"#.to_vec(),
        ),
        (
            "NaN",
            br#"{"model":"demo","temperature":NaN,"messages":[]}"#.to_vec(),
        ),
        (
            "infinity",
            br#"{"model":"demo","temperature":1e999,"messages":[]}"#.to_vec(),
        ),
        (
            "a number of 100 KB",
            [
                br#"{"model":"other","seed":"#.as_slice(),
                &[b'7'; 100_000],
                b"}",
            ]
            .concat(),
        ),
        ("NULs", vec![0; 5000]),
        (
            "a NUL in a string",
            b"{\"model\":\"de\0mo\",\"messages\":[]}".to_vec(),
        ),
        (
            "gzip",
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xabV\xcaOIU\xb2R\0\0".to_vec(),
        ),
        (
            "multipart",
            b"--x\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n".to_vec(),
        ),
        ("form", b"model=demo&messages=%5B%5D".to_vec()),
        ("deep", deep(126)),
        ("too deep", deep(127)),
        ("far too deep", deep(100_000)),
        ("only brackets", vec![b'['; 200_000]),
        ("only quotes", vec![b'"'; 200_001]),
        (
            "only backslashes",
            [b"\"".as_slice(), &[b'\\'; 200_000]].concat(),
        ),
        ("an array", b"[1,2]".to_vec()),
        ("a string", b"\"demo\"".to_vec()),
        ("null", b"null".to_vec()),
        (
            "keys twice",
            br#"{"model":"demo","model":"other","messages":1,"messages":[]}"#.to_vec(),
        ),
        (
            "members of other types",
            br#"{"model":["demo"],"messages":{"role":"user"},"tools":7,"stream":"true"}"#.to_vec(),
        ),
        (
            "an escaped marker of another kind",
            br#"{"model":"other","messages":[],"x":{"cache_contro\u006c":{}}}"#.to_vec(),
        ),
        (
            "many empty messages",
            format!(
                r#"{{"model":"other","messages":[{}{{}}]}}"#,
                "{},".repeat(70_000)
            )
            .into_bytes(),
        ),
        (
            "many members",
            format!(r#"{{"model":"other",{}"a":1}}"#, r#""a":1,"#.repeat(50_000)).into_bytes(),
        ),
    ]
}

fn targets() -> Vec<&'static [u8]> {
    vec![
        CHAT,
        b"/v1/chat/completions/",
        b"/v1/chat/completions//",
        b"//v1//chat/completions",
        b"/v1/../v1/chat/completions",
        b"/v1/chat%2Fcompletions",
        b"/v1/chat/completions%00",
        b"/v1/chat/completions?a=%ff&b",
        b"/v1/chat/completions?cachebreakpoint=lastUserMessage",
        b"/v1/chat/completions?/v1/messages",
        b"/V1/CHAT/COMPLETIONS",
        b"/v1/messages",
        b"/v1/responses?stream=true",
        b"/completions",
        b"/",
        b"*",
        b"http://llm/v1/chat/completions",
        b"https://llm:443/v1/chat/completions?x=y",
        b"/v1/chat/completions#fragment",
        b"/v1/chat/completions;a=b",
        b"/v1/chat/completions\xff",
        b"/v1/chat/completions\x7f",
        b"v1/chat/completions",
    ]
}

fn headers() -> Vec<Vec<&'static [u8]>> {
    vec![
        vec![KEY, JSON],
        vec![],
        vec![b"authorization: Bearer \xff\xfe\x80", JSON],
        vec![b"authorization:", JSON],
        vec![b"authorization: Bearer", JSON],
        vec![b"authorization: Bearer a", b"authorization: Bearer b", JSON],
        vec![b"Authorization: bearer \t a b \t", JSON],
        vec![KEY, JSON, b"x-binary: \x80\x81\xff"],
        vec![
            KEY,
            b"content-type: \xff",
            b"content-type: application/json",
        ],
        vec![KEY, b"content-type: text/plain; charset=\xe9"],
        vec![KEY, JSON, b"content-encoding: gzip"],
        vec![KEY, JSON, b"content-encoding: br, \xff"],
        vec![KEY, JSON, b"expect: 100-continue"],
        vec![KEY, JSON, b"cookie: a=\xff", b"cookie: b=c"],
        vec![KEY, JSON, b"x-empty:", b"x_under: 1"],
        vec![KEY, JSON, b"accept-encoding: gzip, \xff"],
        vec![KEY, JSON, b"te: trailers", b"x-forwarded-for: \xff"],
        vec![KEY, JSON, b"x-request-id: \xff\xff"],
        vec![KEY, JSON, b"traceparent: \xff", b"tracestate: \xff"],
        vec![KEY, JSON, b"x-envoy-original-path: /v1/messages"],
        vec![KEY, JSON, b"host: other"],
        vec![KEY, JSON, b"no colon"],
        vec![KEY, JSON, b": no name"],
        vec![KEY, JSON, b"x-nul: a\0b"],
        vec![KEY, JSON, b"x-cr: a\rb"],
        vec![KEY, JSON, b" x-folded: a"],
    ]
}

#[tokio::test]
async fn every_body() {
    let pair = Pair::start().await;
    for (name, body) in bodies() {
        for target in [CHAT, b"/v1/messages", b"/v1/responses", b"/v1/completions"] {
            let outcome = pair.same(name, &post(target, &[KEY, JSON], &body)).await;
            // Without a marker nothing is refused, whatever it is.
            assert!(
                matches!(outcome, Outcome::Answer(200, ..)),
                "{name}: {outcome:?}"
            );
        }
    }
    pair.assert_well("bodies").await;
}

#[tokio::test]
async fn every_target_method_and_header() {
    let pair = Pair::start().await;
    for target in targets() {
        pair.same(
            &target.escape_ascii().to_string(),
            &post(target, &[KEY, JSON], BODY),
        )
        .await;
    }
    for method in [
        "GET", "PUT", "HEAD", "OPTIONS", "DELETE", "post", "PO ST", "P\u{7f}", "", "QUERY", "PRI",
    ] {
        pair.same(
            method,
            &request(method.as_bytes(), CHAT, &[KEY, JSON], BODY),
        )
        .await;
    }
    for headers in headers() {
        let name = headers.concat().escape_ascii().to_string();
        pair.same(&name, &post(CHAT, &headers, BODY)).await;
    }
    pair.assert_well("heads").await;
}

#[tokio::test]
async fn everything_too_long_or_too_many() {
    let pair = Pair::start().await;
    let long = |byte: u8, count: usize| vec![byte; count];
    let value = |count| [b"x-long: ".as_slice(), &long(b'v', count)].concat();
    let many: Vec<Vec<u8>> = (0..120)
        .map(|n| format!("x-{n}: {n}").into_bytes())
        .collect();
    let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    for (name, bytes) in [
        (
            "a path of 50 KB",
            post(
                &[b"/".as_slice(), long(b'p', 50_000).as_slice(), CHAT].concat(),
                &[KEY],
                BODY,
            ),
        ),
        (
            "a path of 1 MB",
            post(
                &[b"/".as_slice(), long(b'p', 1_000_000).as_slice(), CHAT].concat(),
                &[KEY],
                BODY,
            ),
        ),
        (
            "a query of 50 KB",
            post(
                &[CHAT, b"?", long(b'&', 50_000).as_slice()].concat(),
                &[KEY],
                BODY,
            ),
        ),
        ("a value of 50 KB", post(CHAT, &[KEY, &value(50_000)], BODY)),
        (
            "a value of 1 MB",
            post(CHAT, &[KEY, &value(1_000_000)], BODY),
        ),
        (
            "a key of 50 KB",
            post(
                CHAT,
                &[&[
                    b"authorization: Bearer ".as_slice(),
                    long(b'k', 50_000).as_slice(),
                ]
                .concat()],
                BODY,
            ),
        ),
        (
            "a name of 50 KB",
            post(
                CHAT,
                &[KEY, &[long(b'n', 50_000).as_slice(), b": 1"].concat()],
                BODY,
            ),
        ),
        ("120 headers", post(CHAT, &many, BODY)),
    ] {
        pair.same(name, &bytes).await;
    }
    pair.assert_well("sizes").await;
}

/// Framing that is wrong. What waits for more is let wait, and closed.
#[tokio::test]
async fn every_framing() {
    let pair = Pair::start().await;
    let head = |framing: &str| {
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: llm\r\nauthorization: Bearer k\r\n{framing}\r\n\r\n").into_bytes()
    };
    let framed = |framing: &str, rest: &[u8]| [head(framing).as_slice(), rest].concat();
    let chunked = "transfer-encoding: chunked";
    for (name, bytes) in [
        (
            "two lengths",
            framed("content-length: 2\r\ncontent-length: 3", b"{} "),
        ),
        (
            "the same twice",
            framed("content-length: 2\r\ncontent-length: 2", b"{}"),
        ),
        ("a list of lengths", framed("content-length: 2, 2", b"{}")),
        ("a negative length", framed("content-length: -2", b"{}")),
        ("a signed length", framed("content-length: +2", b"{}")),
        ("a hexadecimal length", framed("content-length: 0x2", b"{}")),
        ("no digits", framed("content-length: two", b"{}")),
        ("an empty length", framed("content-length:", b"{}")),
        (
            "a length over 64 bits",
            framed("content-length: 99999999999999999999", b"{}"),
        ),
        (
            "length and chunks",
            framed(
                "content-length: 2\r\ntransfer-encoding: chunked",
                b"2\r\n{}\r\n0\r\n\r\n",
            ),
        ),
        (
            "chunks twice",
            framed(
                "transfer-encoding: chunked, chunked",
                b"2\r\n{}\r\n0\r\n\r\n",
            ),
        ),
        (
            "another coding",
            framed("transfer-encoding: gzip, chunked", b"2\r\n{}\r\n0\r\n\r\n"),
        ),
        ("identity", framed("transfer-encoding: identity", b"{}")),
        (
            "a capital coding",
            framed("Transfer-Encoding: CHUNKED", b"2\r\n{}\r\n0\r\n\r\n"),
        ),
        ("no chunk size", framed(chunked, b"\r\n{}\r\n0\r\n\r\n")),
        ("a bad chunk size", framed(chunked, b"g\r\n{}\r\n0\r\n\r\n")),
        (
            "a chunk over 64 bits",
            framed(chunked, b"fffffffffffffffff\r\n{}"),
        ),
        (
            "a chunk that is longer",
            framed(chunked, b"1\r\n{}\r\n0\r\n\r\n"),
        ),
        (
            "an extension",
            framed(chunked, b"2;a=\"b\"\r\n{}\r\n0\r\n\r\n"),
        ),
        ("bare line feeds", framed(chunked, b"2\n{}\n0\n\n")),
        (
            "trailers",
            framed(chunked, b"2\r\n{}\r\n0\r\nx-t: \xff\r\n\r\n"),
        ),
        (
            "bytes that are a chunk each",
            framed(
                chunked,
                &[b"1\r\n{\r\n1\r\n}\r\n".as_slice(), b"0\r\n\r\n"].concat(),
            ),
        ),
        (
            "HTTP/1.0",
            b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}".to_vec(),
        ),
        ("HTTP/0.9", b"POST /v1/chat/completions\r\n\r\n".to_vec()),
        (
            "HTTP/2.0",
            b"POST /v1/chat/completions HTTP/2.0\r\nhost: llm\r\n\r\n".to_vec(),
        ),
        (
            "TLS",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\0\0\0\0\r\n\r\n".to_vec(),
        ),
        ("NULs", vec![0; 1000]),
    ] {
        pair.same(name, &bytes).await;
    }
    for unfinished in [
        framed("content-length: 100", BODY),
        framed(chunked, b"ffff\r\n{"),
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: ".to_vec(),
    ] {
        let mut connection = pair.world.client.connect().await;
        connection.write(&unfinished).await.unwrap();
        connection.reset();
    }
    pair.world.await_idle().await;
    pair.assert_well("framing").await;
}

/// The bytes of one request may end where the next one begins.
#[tokio::test]
async fn several_requests_in_one_write() {
    let pair = Pair::start().await;
    let all = [
        post(CHAT, &[KEY, JSON], BODY),
        post(b"/v1/messages", &[KEY], b"junk"),
        post(CHAT, &[KEY, JSON], BODY),
    ];
    let mut connection = pair.world.client.connect().await;
    connection.write(&all.concat()).await.unwrap();
    for _ in &all {
        let head = connection.read_head().await.unwrap().unwrap();
        let body = connection.read_body().await.unwrap();
        assert!(head.status == 200 && body.starts_with(b"{"));
    }
    pair.assert_well("pipelining").await;
}

/// Put together from the tables above, with a piece of the body changed.
#[tokio::test]
async fn generated_requests() {
    let pair = Pair::start().await;
    let (bodies, targets, headers) = (bodies(), targets(), headers());
    let small: Vec<_> = bodies
        .iter()
        .filter(|(_, body)| body.len() < 10_000)
        .collect();
    let mut dice = fastrand::Rng::with_seed(12);
    for round in 0..250 {
        let (name, body) = small[dice.usize(..small.len())];
        let mut body = body.clone();
        for _ in 0..dice.usize(..3) {
            let at = dice.usize(..=body.len());
            let end = (at + dice.usize(..4)).min(body.len());
            let piece: Vec<u8> = (0..dice.usize(..4))
                .map(|_| *dice.choice(b"{}[]\",:\\0e-\xff n").unwrap())
                .collect();
            body.splice(at..end, piece);
        }
        let target = targets[dice.usize(..targets.len())];
        let headers = &headers[dice.usize(..headers.len())];
        pair.same(
            &format!("round {round}, {name}"),
            &post(target, headers, &body),
        )
        .await;
    }
    pair.assert_well("generated").await;
}
