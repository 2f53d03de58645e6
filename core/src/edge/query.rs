//! `?cacheBreakpoint=lastUserMessage`: a breakpoint for those who cannot edit bodies.

use std::ops::Range;

const NAME: &[u8] = b"cacheBreakpoint=";
const LAST_USER_MESSAGE: &[u8] = b"lastUserMessage";

/// What a path's query asks to mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryBreakpoint {
    /// Nothing.
    Absent,
    /// The end of the last message of the user.
    LastUserMessage,
    /// Something that there is not.
    Unknown,
}

/// Reads the query of a `:path`. The parameter is the filter's: the path to forward has it no
/// more (`None`: the path stays as it is).
pub fn query_breakpoint(path: &[u8]) -> (QueryBreakpoint, Option<Vec<u8>>) {
    let Some(range) = parameter(path) else {
        return (QueryBreakpoint::Absent, None);
    };
    let value = path.get(range.start + NAME.len()..range.end);
    let found = if value == Some(LAST_USER_MESSAGE) {
        QueryBreakpoint::LastUserMessage
    } else {
        QueryBreakpoint::Unknown
    };
    // With the `&` after it; the last one with the `&` or `?` before it.
    let cut = if path.get(range.end) == Some(&b'&') {
        range.start..range.end + 1
    } else {
        range.start - 1..range.end
    };
    let mut rest = path.get(..cut.start).unwrap_or_default().to_vec();
    rest.extend_from_slice(path.get(cut.end..).unwrap_or_default());
    (found, Some(rest))
}

/// Where the parameter stands, the first of that name.
fn parameter(path: &[u8]) -> Option<Range<usize>> {
    let query = memchr::memchr(b'?', path)? + 1;
    let fragment = memchr::memchr(b'#', path).unwrap_or(path.len());
    let mut start = query;
    for pair in path.get(query..fragment)?.split(|byte| *byte == b'&') {
        let end = start + pair.len();
        if pair.starts_with(NAME) {
            return Some(start..end);
        }
        start = end + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_is_read_and_goes() {
        use QueryBreakpoint::{Absent, LastUserMessage, Unknown};
        let table = [
            ("/v1/messages", Absent, None),
            ("/v1/messages?beta=true", Absent, None),
            (
                "/v1/messages?xcacheBreakpoint=lastUserMessage",
                Absent,
                None,
            ),
            ("/v1/messages?cachebreakpoint=lastUserMessage", Absent, None),
            ("/v1/cacheBreakpoint=lastUserMessage", Absent, None),
            (
                "/v1/messages#?cacheBreakpoint=lastUserMessage",
                Absent,
                None,
            ),
            ("/v1/messages?cacheBreakpoint", Absent, None),
            (
                "/m?cacheBreakpoint=lastUserMessage",
                LastUserMessage,
                Some("/m"),
            ),
            (
                "/m?cacheBreakpoint=lastUserMessage#x",
                LastUserMessage,
                Some("/m#x"),
            ),
            (
                "/m?cacheBreakpoint=lastUserMessage&a=b",
                LastUserMessage,
                Some("/m?a=b"),
            ),
            (
                "/m?a=b&cacheBreakpoint=lastUserMessage",
                LastUserMessage,
                Some("/m?a=b"),
            ),
            (
                "/m?a&cacheBreakpoint=lastUserMessage&b",
                LastUserMessage,
                Some("/m?a&b"),
            ),
            (
                "/m?&cacheBreakpoint=lastUserMessage",
                LastUserMessage,
                Some("/m?"),
            ),
            ("/m?cacheBreakpoint=", Unknown, Some("/m")),
            ("/m?cacheBreakpoint=all", Unknown, Some("/m")),
            ("/m?cacheBreakpoint=lastUserMessages", Unknown, Some("/m")),
            ("", Absent, None),
            ("?", Absent, None),
        ];
        for (path, found, rest) in table {
            let rest = rest.map(|rest| rest.as_bytes().to_vec());
            assert_eq!(query_breakpoint(path.as_bytes()), (found, rest), "{path}");
        }
    }
}
