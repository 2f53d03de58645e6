//! Which requests are handled.

/// True for `POST` of a path that, without its query and one trailing slash, ends with
/// `/chat/completions`.
pub fn is_chat_completions(method: &[u8], path: &[u8]) -> bool {
    let end = memchr::memchr2(b'?', b'#', path).unwrap_or(path.len());
    let path = path.get(..end).unwrap_or(path);
    let path = path.strip_suffix(b"/").unwrap_or(path);
    method == b"POST" && path.ends_with(b"/chat/completions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        let yes = [
            "/chat/completions",
            "/v1/chat/completions",
            "/v1/chat/completions/",
            "/openai/deployments/x/chat/completions?api-version=1",
            "/v1/chat/completions/?a=/b",
        ];
        let no = [
            "/v1/chat/completions//",
            "/v1/chat/completions/x",
            "/v1/xchat/completions",
            "/v1/completions",
            "chat/completions",
            "/v1/Chat/Completions",
            "/x?y=/chat/completions",
            "",
        ];
        for path in yes {
            assert!(is_chat_completions(b"POST", path.as_bytes()), "{path}");
            assert!(!is_chat_completions(b"GET", path.as_bytes()), "{path}");
        }
        for path in no {
            assert!(!is_chat_completions(b"POST", path.as_bytes()), "{path}");
        }
    }
}
