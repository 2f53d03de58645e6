//! The APIs whose requests are handled: each says where blocks, markers and usage live.

use serde::{Deserialize, Serialize};

/// The API that a request speaks, by its path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// `/chat/completions`.
    #[default]
    Chat,
    /// `/messages`.
    Messages,
    /// `/responses`.
    Responses,
    /// `/completions`.
    Completions,
}

impl Api {
    /// The API of a `POST` to a path that, without its query and one trailing slash, ends with
    /// one of theirs.
    pub fn of(method: &[u8], path: &[u8]) -> Option<Self> {
        if method != b"POST" {
            return None;
        }
        let end = memchr::memchr2(b'?', b'#', path).unwrap_or(path.len());
        let path = path.get(..end).unwrap_or(path);
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let ends: [(&[u8], Self); 4] = [
            (b"/chat/completions", Self::Chat),
            (b"/messages", Self::Messages),
            (b"/responses", Self::Responses),
            (b"/completions", Self::Completions),
        ];
        let found = ends.into_iter().find(|(end, _)| path.ends_with(end));
        found.map(|(_, api)| api)
    }

    /// Whether this is [`Self::Chat`].
    pub const fn is_chat(&self) -> bool {
        matches!(self, Self::Chat)
    }

    /// Whether a stream only reports usage if `stream_options` asks for it.
    pub const fn asks_for_usage(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }

    /// The JSON body of a 400. `code` and `param` are for the APIs whose errors have such
    /// members; `param` is JSON.
    pub fn error(self, message: &str, code: &str, param: &str) -> Vec<u8> {
        let message = serde_json::to_string(message).unwrap_or_default();
        match self {
            Self::Chat | Self::Responses | Self::Completions => format!(
                r#"{{"error":{{"message":{message},"type":"invalid_request_error","code":"{code}","param":{param}}}}}"#
            ),
            Self::Messages => format!(
                r#"{{"type":"error","error":{{"type":"invalid_request_error","message":{message}}}}}"#
            ),
        }
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        let table = [
            ("/chat/completions", Some(Api::Chat)),
            ("/v1/chat/completions", Some(Api::Chat)),
            ("/v1/chat/completions/", Some(Api::Chat)),
            (
                "/openai/deployments/x/chat/completions?api-version=1",
                Some(Api::Chat),
            ),
            ("/v1/chat/completions/?a=/b", Some(Api::Chat)),
            ("/messages", Some(Api::Messages)),
            ("/v1/messages?beta=true", Some(Api::Messages)),
            ("/anthropic/v1/messages/", Some(Api::Messages)),
            ("/v1/chat/completions//", None),
            ("/v1/chat/completions/x", None),
            ("/v1/xchat/completions", Some(Api::Completions)),
            ("/v1/completions?x", Some(Api::Completions)),
            ("/completions/", Some(Api::Completions)),
            ("/v1/responses", Some(Api::Responses)),
            ("/v1/responses/resp_1", None),
            ("/v1/responses/resp_1/cancel", None),
            ("/v1/xresponses", None),
            ("/v1/messages/count_tokens", None),
            ("/v1/messages/batches", None),
            ("/v1/xmessages", None),
            ("completions", None),
            ("chat/completions", Some(Api::Completions)),
            ("/v1/Chat/Completions", None),
            ("/v1/Completions", None),
            ("/x?y=/chat/completions", None),
            ("", None),
        ];
        for (path, api) in table {
            assert_eq!(Api::of(b"POST", path.as_bytes()), api, "{path}");
            assert_eq!(Api::of(b"GET", path.as_bytes()), None, "{path}");
        }
    }

    #[test]
    fn errors_have_the_shape_of_the_api() {
        let body = |api: Api| -> serde_json::Value {
            serde_json::from_slice(&api.error("no \"good\"", "c", "null")).unwrap()
        };
        let kind = "invalid_request_error";
        assert_eq!(
            body(Api::Chat),
            serde_json::json!({"error": {"message": "no \"good\"", "type": kind, "code": "c", "param": null}})
        );
        assert_eq!(
            body(Api::Messages),
            serde_json::json!({"type": "error", "error": {"type": kind, "message": "no \"good\""}})
        );
    }
}
