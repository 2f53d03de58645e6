//! Refused requests: what the client is told and what the metric counts.

use std::borrow::Cow;

use crate::api::Api;

/// Characters of a client's own value that a message repeats.
const ECHO_CHARS_MAX: usize = 64;

/// A request that is answered with 400 because of one of its markers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong, for a person.
    pub message: String,
    /// Path of the offending marker, such as `messages[0].content[2].cache_control`.
    pub param: String,
    /// The cause, for the metric.
    pub reason: RefusalReason,
    /// The API that was spoken, for the shape of the answer.
    pub api: Api,
}

impl Refusal {
    /// The JSON body of the 400.
    pub fn to_json(&self) -> Vec<u8> {
        let param = serde_json::to_string(&self.param).unwrap_or_default();
        self.api
            .error(&self.message, "invalid_cache_control", &param)
    }
}

/// Why a request was refused: a closed set of metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// More than four `cache_control` markers.
    TooManyBreakpoints,
    /// A `ttl` that names no tier.
    InvalidTtl,
    /// A `type` other than `ephemeral`.
    UnsupportedType,
    /// A `ttl` whose tier is not enabled.
    TierDisabled,
    /// A marker of the wrong shape.
    MalformedCacheControl,
    /// The top-level marker contradicts the others or finds no free slot.
    AutomaticConflict,
    /// A longer tier after a shorter one, where the order matters.
    TtlOrder,
}

impl RefusalReason {
    /// Whether other tiers, or another default among them, could make the same markers right.
    pub const fn depends_on_tiers(self) -> bool {
        matches!(
            self,
            Self::TierDisabled | Self::AutomaticConflict | Self::TtlOrder
        )
    }

    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::TooManyBreakpoints,
        Self::InvalidTtl,
        Self::UnsupportedType,
        Self::TierDisabled,
        Self::MalformedCacheControl,
        Self::AutomaticConflict,
        Self::TtlOrder,
    ];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooManyBreakpoints => "too_many_breakpoints",
            Self::InvalidTtl => "invalid_ttl",
            Self::UnsupportedType => "unsupported_type",
            Self::TierDisabled => "tier_disabled",
            Self::MalformedCacheControl => "malformed_cache_control",
            Self::AutomaticConflict => "automatic_conflict",
            Self::TtlOrder => "ttl_order",
        }
    }
}

/// A client's value as a message shows it: quoted, and cut when it is long.
pub(super) fn quoted(value: &str) -> String {
    let shown: Cow<'_, str> = match value.char_indices().nth(ECHO_CHARS_MAX) {
        None => Cow::Borrowed(value),
        Some((end, _)) => Cow::Owned(format!("{}…", value.get(..end).unwrap_or_default())),
    };
    serde_json::to_string(&shown).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_of_the_answer() {
        let refusal = Refusal {
            message: "no \"good\"".into(),
            param: "tools[0].cache_control".into(),
            reason: RefusalReason::InvalidTtl,
            api: Api::Chat,
        };
        let body: serde_json::Value = serde_json::from_slice(&refusal.to_json()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({"error": {
                "message": "no \"good\"", "type": "invalid_request_error",
                "code": "invalid_cache_control", "param": "tools[0].cache_control",
            }})
        );
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        assert_eq!(quoted("2h"), "\"2h\"");
        assert_eq!(quoted("a\"b"), r#""a\"b""#);
        assert_eq!(quoted(&"é".repeat(64)), format!("\"{}\"", "é".repeat(64)));
        assert_eq!(quoted(&"é".repeat(65)), format!("\"{}…\"", "é".repeat(64)));
    }
}
