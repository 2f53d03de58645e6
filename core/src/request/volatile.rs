//! Blocks that change with every request although the prompt does not: left out of the identity.
//!
//! A coding agent that is widely used puts a text into the first system block that names its
//! version and a checksum of the request. Every prefix would be new.

use super::{
    chat::{ChatRequest, Form},
    json::{Reader, Span},
};

/// A body without its volatile blocks.
#[derive(Debug, PartialEq, Eq)]
pub struct Steady {
    /// The body.
    pub body: Vec<u8>,
    /// How many blocks were left out.
    pub left_out: u32,
}

/// See [`ChatRequest::without_volatile`].
pub(super) fn without(request: &ChatRequest<'_>, prefixes: &[String]) -> Option<Steady> {
    let system = &request.system;
    let volatile: Vec<bool> = (0..)
        .zip(&system.blocks)
        .map(|(part, block)| {
            let text = block.value.of(request.body);
            let text = text.strip_prefix(b"\"").unwrap_or_default();
            let starts = |prefix: &String| text.starts_with(prefix.as_bytes());
            let place = super::chat::Place::System(part);
            matches!(block.form, Form::Text { .. })
                && prefixes.iter().any(starts)
                // At most four: a request with more was refused.
                && !system.markers.iter().any(|marker| marker.place == place)
        })
        .collect();
    let left_out = volatile.iter().filter(|volatile| **volatile).count();
    if left_out == 0 || left_out == volatile.len() {
        return None;
    }
    let elements = elements(request.body, system.value?)?;
    let (first, last) = (elements.first()?, elements.last()?);
    let mut body = Vec::with_capacity(request.body.len());
    body.extend_from_slice(request.body.get(..first.start as usize)?);
    let mut before: Option<u32> = None;
    for (element, _) in elements
        .iter()
        .zip(&volatile)
        .filter(|(_, volatile)| !**volatile)
    {
        // With the comma before it and the white space around that, if it is not the first to stay.
        let start = match before {
            Some(_) => between(&elements, element.start),
            None => element.start,
        };
        body.extend_from_slice(
            Span {
                start,
                end: element.end,
            }
            .of(request.body),
        );
        before = Some(element.end);
    }
    body.extend_from_slice(request.body.get(last.end as usize..)?);
    Some(Steady {
        body,
        left_out: u32::try_from(left_out).ok()?,
    })
}

/// The end of the element before the one that starts there.
fn between(elements: &[Span], start: u32) -> u32 {
    let at = elements.partition_point(|element| element.start < start);
    let before = at.checked_sub(1).and_then(|before| elements.get(before));
    before.map_or(start, |before| before.end)
}

/// The elements of an array that was read before.
fn elements(body: &[u8], array: Span) -> Option<Vec<Span>> {
    let mut reader = Reader::at(body, array.start as usize);
    if reader.peek() != Some(b'[') {
        return None;
    }
    reader.open().ok()?;
    let mut elements = Vec::new();
    while reader.element(elements.is_empty()).ok()? {
        elements.push(reader.skip().ok()?);
    }
    Some(elements)
}

#[cfg(test)]
mod tests {
    use crate::{api::Api, request::scan_as};

    const NONCE: &str = r#"{"type":"text","text":"x-nonce: 1"}"#;
    const STAYS: &str = r#"{"type":"text","text":"You are x-nonce: 1"}"#;
    const MARKED: &str =
        r#"{"type":"text","text":"x-nonce: 1","cache_control":{"type":"ephemeral"}}"#;

    fn without(api: Api, body: &str) -> Option<(String, u32)> {
        let steady = scan_as(api, body.as_bytes())
            .unwrap()
            .without_volatile(&["y-nonce:".to_owned(), "x-nonce:".to_owned()])?;
        Some((String::from_utf8(steady.body).unwrap(), steady.left_out))
    }

    #[test]
    fn every_place_in_the_array() {
        let table = [
            (format!("[{NONCE},{STAYS}]"), format!("[{STAYS}]"), 1),
            (format!("[{STAYS},{NONCE}]"), format!("[{STAYS}]"), 1),
            (format!("[ {NONCE} , {STAYS} ]"), format!("[ {STAYS} ]"), 1),
            (format!("[ {STAYS} , {NONCE} ]"), format!("[ {STAYS} ]"), 1),
            (
                format!("[{NONCE},{STAYS}, {NONCE} ,\n{STAYS},{NONCE}]"),
                format!("[{STAYS} ,\n{STAYS}]"),
                3,
            ),
            (format!("[{NONCE},{MARKED}]"), format!("[{MARKED}]"), 1),
        ];
        for (system, rest, left_out) in table {
            let body = |system: &str| format!(r#"{{"a":1,"system":{system} ,"messages":[]}}"#);
            let found = without(Api::Messages, &body(&system));
            assert_eq!(found, Some((body(&rest), left_out)), "{system}");
        }
    }

    #[test]
    fn what_stays() {
        for system in [
            "null".to_owned(),
            "\"x-nonce: 1\"".to_owned(),
            "[]".to_owned(),
            format!("[{NONCE}]"),
            format!("[{NONCE},{NONCE}]"),
            format!("[{STAYS}]"),
            format!("[{MARKED},{STAYS}]"),
            format!(r#"[{{"type":"text","text":"x-nonce: 1","citations":[]}},{STAYS}]"#),
            format!(r#"["x-nonce: 1",{STAYS}]"#),
        ] {
            let body = format!(r#"{{"system":{system}}}"#);
            assert_eq!(without(Api::Messages, &body), None, "{body}");
        }
        let of_another_api = format!(r#"{{"system":[{NONCE},{STAYS}]}}"#);
        assert_eq!(without(Api::Chat, &of_another_api), None);
    }
}
