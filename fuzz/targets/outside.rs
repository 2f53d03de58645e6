//! What comes from outside beside bodies: the head of a request (its lines are the start of the input)
//! and, after it, JSON of the other program or of whoever pretends to be it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prompt_cache_core::{
    api::Api,
    config::FilterConfig,
    edge::{PolicyView, QueryBreakpoint, bearer_token, query_breakpoint},
    response::BodyKind,
    wire::{ClassifyAnswer, ClassifyRequest, CommitAnswer, CommitBatch},
};
use prompt_cache_fuzz::input::INPUT_BYTES_MAX;
use serde::{Serialize, de::DeserializeOwned};

const NAME: &[u8] = b"cacheBreakpoint=";

/// Cuts one parameter after the other out of the text.
fn query(path: &[u8]) -> (QueryBreakpoint, Option<Vec<u8>>) {
    let mut path = path.to_vec();
    let mut found = QueryBreakpoint::Absent;
    let mut cuts = false;
    loop {
        let end = path.iter().position(|it| *it == b'#').unwrap_or(path.len());
        let query = path[..end].iter().position(|it| *it == b'?').unwrap_or(end);
        let starts = |at: &usize| {
            path[*at + 1..end].starts_with(NAME) && (*at == query || path[*at] == b'&')
        };
        let Some(at) = (query..end).find(starts) else {
            return (found, cuts.then_some(path));
        };
        let value = at + 1 + NAME.len();
        let next = path[value..end]
            .iter()
            .position(|it| *it == b'&')
            .map(|it| value + it);
        let known = path[value..next.unwrap_or(end)] == *b"lastUserMessage";
        found = match (known, found) {
            (true, QueryBreakpoint::Absent | QueryBreakpoint::LastUserMessage) => {
                QueryBreakpoint::LastUserMessage
            }
            _ => QueryBreakpoint::Unknown,
        };
        cuts = true;
        // The first pair's mark stays where another one follows.
        match next {
            Some(next) if at == query => path.drain(at + 1..=next),
            _ => path.drain(at..next.unwrap_or(end)),
        };
    }
}

fn api(method: &[u8], path: &[u8]) -> Option<Api> {
    let text = String::from_utf8_lossy(path);
    let path = text.split(['?', '#']).next().unwrap_or_default();
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut segments = path.rsplit('/');
    let (last, before) = (segments.next(), segments.next());
    let found = match (before?, last?) {
        ("chat", "completions") if path.len() > "chat/completions".len() => Api::Chat,
        (_, "completions") => Api::Completions,
        (_, "messages") => Api::Messages,
        (_, "responses") => Api::Responses,
        _ => return None,
    };
    (method == b"POST").then_some(found)
}

fn kind(value: &[u8]) -> Option<BodyKind> {
    let text: String = value.iter().map(|byte| char::from(*byte)).collect();
    let base = text
        .split(';')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    match base.trim_matches([' ', '\t', '\n', '\r', '\x0c']) {
        "text/event-stream" => Some(BodyKind::Sse),
        "" | "application/json" => Some(BodyKind::Json),
        _ => None,
    }
}

/// What is read can be written, and is the same then.
fn round_trip<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(json: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(json) {
        let again = serde_json::to_vec(&value).unwrap();
        assert_eq!(serde_json::from_slice::<T>(&again).unwrap(), value);
    }
}

fuzz_target!(|input: &[u8]| {
    if input.len() > INPUT_BYTES_MAX {
        return;
    }
    let mut lines = input.splitn(4, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (path, authorization, content_type, json) = (line(), line(), line(), line());

    assert_eq!(query_breakpoint(path), query(path));
    assert_eq!(Api::of(b"POST", path), api(b"POST", path));
    assert_eq!(Api::of(b"GET", path), None);
    assert_eq!(
        BodyKind::from_content_type(Some(content_type)),
        kind(content_type)
    );
    if let Some(token) = bearer_token(authorization) {
        assert!(!token.is_empty() && token == token.trim_ascii());
        assert!(authorization.trim_ascii().ends_with(token));
        let scheme = &authorization.trim_ascii()[..b"bearer ".len()];
        assert!(scheme.to_ascii_lowercase().starts_with(b"bearer"));
    }

    if let Ok(answer) = ClassifyAnswer::parse(json) {
        let again = serde_json::to_vec(&answer).unwrap();
        assert_eq!(ClassifyAnswer::parse(&again).unwrap(), answer);
        // The derived one also reads the strings that it has no use for.
        if let Ok(derived) = serde_json::from_slice::<ClassifyAnswer>(json) {
            assert_eq!(derived, answer);
        }
    }
    if let Some(PolicyView::Known { models, .. }) = PolicyView::parse(json) {
        assert!(
            models
                .iter()
                .all(|(name, it)| *name == it.model && !it.tiers.is_empty())
        );
    }
    round_trip::<ClassifyRequest>(json);
    round_trip::<CommitBatch>(json);
    round_trip::<CommitAnswer>(json);
    if let Err(error) = FilterConfig::parse(json) {
        assert!(!error.reason.is_empty());
    }
});
