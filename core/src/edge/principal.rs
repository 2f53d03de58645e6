//! Reading a credential out of a header value.

/// The token of a `Bearer` authorization, trimmed; `None` for another scheme or an empty token.
pub fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer";
    let value = value.trim_ascii();
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) || !rest.first()?.is_ascii_whitespace() {
        return None;
    }
    let token = rest.trim_ascii();
    (!token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_tokens() {
        let cases: [(&[u8], Option<&[u8]>); 9] = [
            (b"Bearer sk-1", Some(b"sk-1")),
            (b"bearer sk-1", Some(b"sk-1")),
            (b"BEARER\tsk-1", Some(b"sk-1")),
            (b"  Bearer   sk-1  ", Some(b"sk-1")),
            (b"Bearer \xff\xfe", Some(b"\xff\xfe")),
            (b"Bearer", None),
            (b"Bearer   ", None),
            (b"Bearersk-1", None),
            (b"Basic abc", None),
        ];
        for (value, token) in cases {
            assert_eq!(bearer_token(value), token, "{}", value.escape_ascii());
        }
    }
}
