//! What a data object of a stream is: usage, terminal, usage-only, error.

use std::ops::Range;

use crate::api::Api;
use crate::object::{Member, is_object, items, members, slice};

/// The parts of a data object that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Where the usage objects stand (one, unless the key is there twice).
    pub usage: Vec<Range<usize>>,
    /// No more content follows: no non-empty `choices`, or one with a finish reason.
    pub terminal: bool,
    /// No non-empty `choices` and no error: nothing in it for a client that wants no usage.
    pub usage_only: bool,
    /// `error` is present and not null, in the object that has the usage too; or an event of such
    /// a type.
    pub error: bool,
    /// The end of the stream by its API, beside `[DONE]`.
    pub stop: bool,
}

/// Reads a data object; `None` when the data is not a JSON object.
///
/// Of duplicate keys: every `usage` object counts, any `error` that is not null counts, and the
/// last `choices`.
pub(super) fn inspect(data: &[u8], api: Api) -> Option<Frame> {
    let all = members(data)?;
    let values = |name| {
        let matching = move |member: &&Member| member.is(data, name);
        all.iter()
            .filter(matching)
            .map(|member| member.value.clone())
    };
    let mut usage: Vec<Range<usize>> = values("usage")
        .filter(|range| is_object(slice(data, range.clone())))
        .collect();
    let error = values("error").any(|range| slice(data, range) != b"null");
    let nested = match api {
        Api::Chat | Api::Completions => None,
        Api::Messages => Some("message"),
        Api::Responses => Some("response"),
    };
    if let Some(nested) = nested {
        // What comes with the start of a message is early; what stands alone is cumulative. A
        // response has its usage when it is over.
        let mut terminal = !usage.is_empty();
        let mut failed = error;
        for outer in values(nested) {
            let object = slice(data, outer.clone());
            for member in members(object).unwrap_or_default() {
                let value = slice(object, member.value.clone());
                if member.is(object, "usage") && is_object(value) {
                    usage.push(outer.start + member.value.start..outer.start + member.value.end);
                    terminal |= api == Api::Responses;
                }
                failed |= api == Api::Responses && member.is(object, "error") && value != b"null";
            }
        }
        let kind = values("type").next_back();
        let kind = kind.map_or(&[][..], |range| slice(data, range));
        return Some(Frame {
            usage,
            terminal,
            usage_only: false,
            error: failed || kind == b"\"error\"" || kind == b"\"response.failed\"",
            stop: [
                &b"\"message_stop\""[..],
                b"\"response.completed\"",
                b"\"response.incomplete\"",
            ]
            .contains(&kind),
        });
    }
    let choices = values("choices")
        .next_back()
        .map_or(&[][..], |range| slice(data, range));
    let items = items(choices);
    let finished = items
        .iter()
        .any(|item| has_finish_reason(slice(choices, item.clone())));
    Some(Frame {
        usage,
        terminal: items.is_empty() || finished,
        usage_only: items.is_empty() && !error,
        error,
        stop: false,
    })
}

fn has_finish_reason(choice: &[u8]) -> bool {
    let all = members(choice).unwrap_or_default();
    let last = all
        .iter()
        .rev()
        .find(|member| member.is(choice, "finish_reason"));
    last.is_some_and(|member| slice(choice, member.value.clone()) != b"null")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_frames() {
        // data, usage objects, terminal, usage_only, error
        let cases = [
            (r#"{}"#, 0, true, true, false),
            (
                r#"{"choices":[{"delta":{}}],"usage":null}"#,
                0,
                false,
                false,
                false,
            ),
            (
                r#"{"choices":[{"finish_reason":null}],"usage":{}}"#,
                1,
                false,
                false,
                false,
            ),
            (
                r#"{"choices":[{"finish_reason":"stop"}],"usage":{}}"#,
                1,
                true,
                false,
                false,
            ),
            (
                r#"{"choices":[{},{"finish_reason":"length"}],"usage":{}}"#,
                1,
                true,
                false,
                false,
            ),
            (r#"{"choices":[],"usage":{"a":1}}"#, 1, true, true, false),
            (r#"{"choices":null,"usage":{"a":1}}"#, 1, true, true, false),
            (r#"{"usage":{"a":1}}"#, 1, true, true, false),
            (r#"{"\u0075sage":{"a":1}}"#, 1, true, true, false),
            (
                r#"{"usage":{},"usage":null,"usage":{}}"#,
                2,
                true,
                true,
                false,
            ),
            (r#"{"choices":[{"usage":{}}]}"#, 0, false, false, false),
            (r#"{"choices":[null],"usage":[1]}"#, 0, false, false, false),
            (
                r#"{"error":{"message":"x"},"usage":{}}"#,
                1,
                true,
                false,
                true,
            ),
            (r#"{"error":"x","error":null}"#, 0, true, false, true),
            (r#"{"error":null,"x":{"error":1}}"#, 0, true, true, false),
        ];
        for (data, usage, terminal, usage_only, error) in cases {
            let frame = inspect(data.as_bytes(), Api::Chat).unwrap();
            assert_eq!(
                (
                    frame.usage.len(),
                    frame.terminal,
                    frame.usage_only,
                    frame.error
                ),
                (usage, terminal, usage_only, error),
                "{data}"
            );
        }
        assert_eq!(inspect(b"[DONE]", Api::Chat), None);
        assert_eq!(inspect(br#"{"usage":{}}}"#, Api::Chat), None);
    }
}
