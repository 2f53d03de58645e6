//! `?cacheBreakpoint=lastUserMessage`: a breakpoint for those who cannot edit bodies.

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
/// more, however often it was there (`None`: the path stays as it is).
pub fn query_breakpoint(path: &[u8]) -> (QueryBreakpoint, Option<Vec<u8>>) {
    let end = memchr::memchr(b'#', path).unwrap_or(path.len());
    let (path, fragment) = path.split_at_checked(end).unwrap_or((path, &[]));
    let at = memchr::memchr(b'?', path).unwrap_or(path.len());
    let (target, query) = path.split_at_checked(at).unwrap_or((path, &[]));
    let pairs = query.strip_prefix(b"?").unwrap_or_default();
    let pairs = pairs.split(|byte| *byte == b'&');
    let (ours, others): (Vec<&[u8]>, Vec<&[u8]>) = pairs.partition(|pair| pair.starts_with(NAME));
    if ours.is_empty() {
        return (QueryBreakpoint::Absent, None);
    }
    let known = |pair: &&[u8]| pair.get(NAME.len()..) == Some(LAST_USER_MESSAGE);
    let found = if ours.iter().all(known) {
        QueryBreakpoint::LastUserMessage
    } else {
        QueryBreakpoint::Unknown
    };
    let mut rest = target.to_vec();
    if !others.is_empty() {
        rest.push(b'?');
        rest.extend_from_slice(&others.join(&b'&'));
    }
    rest.extend_from_slice(fragment);
    (found, Some(rest))
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
            (
                "/m?cacheBreakpoint=lastUserMessage&a&cacheBreakpoint=lastUserMessage",
                LastUserMessage,
                Some("/m?a"),
            ),
            (
                "/m?cacheBreakpoint=lastUserMessage&cacheBreakpoint=all",
                Unknown,
                Some("/m"),
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
