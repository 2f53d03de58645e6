//! Which responses can be read: the content types of chat completions.

/// How the body of a response is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// One JSON document.
    Json,
    /// A stream of server-sent events.
    Sse,
}

impl BodyKind {
    /// The kind that a `content-type` header stands for: its base type in any case, whatever its
    /// parameters. No header (or an empty one) counts as JSON; `None` is a body to leave alone.
    pub fn from_content_type(value: Option<&[u8]>) -> Option<Self> {
        let value = value.unwrap_or_default();
        let base = value
            .split(|&byte| byte == b';')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        if base.eq_ignore_ascii_case(b"text/event-stream") {
            Some(Self::Sse)
        } else if base.is_empty() || base.eq_ignore_ascii_case(b"application/json") {
            Some(Self::Json)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_types_in_any_case_with_parameters() {
        let cases: [(Option<&str>, Option<BodyKind>); 11] = [
            (None, Some(BodyKind::Json)),
            (Some(""), Some(BodyKind::Json)),
            (Some("application/json"), Some(BodyKind::Json)),
            (
                Some("Application/JSON; charset=utf-8"),
                Some(BodyKind::Json),
            ),
            (Some(" application/json ;x"), Some(BodyKind::Json)),
            (Some("text/event-stream"), Some(BodyKind::Sse)),
            (Some("Text/Event-Stream;charset=UTF-8"), Some(BodyKind::Sse)),
            (Some("application/json-seq"), None),
            (Some("application/problem+json"), None),
            (Some("text/html"), None),
            (Some("text/event-streams"), None),
        ];
        for (value, kind) in cases {
            let value = value.map(str::as_bytes);
            assert_eq!(BodyKind::from_content_type(value), kind, "{value:?}");
        }
    }
}
