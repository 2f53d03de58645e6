//! Why a request was not cached: the one list that feeds metric labels, logs and the docs.

use crate::request::Opaque;

/// Why a handled request, or its response, was let through without caching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bypass {
    /// The body cannot be read as a JSON object.
    Body(Opaque),
    /// The service has not answered with a policy yet.
    NoPolicy,
    /// The service speaks no version of the protocol that the filter does.
    WireVersion,
    /// The model has no cache policy, or the request names none.
    UnknownModel,
    /// The request carries no credential.
    NoPrincipal,
    /// The service does not accept the principal.
    PrincipalRefused,
    /// The breaker is open: no callout was made.
    BreakerOpen,
    /// The classification failed.
    ClassifyFailed,
    /// The service is there and does not take the question: it is of another release, or the
    /// filter may not ask.
    ClassifyRefused,
    /// The classification was not there in time.
    ClassifyLate,
    /// The response is compressed although the request did not allow it.
    Encoded,
    /// The response is neither JSON nor an event stream.
    ContentType,
    /// An SSE event was larger than `max_event_bytes` and passed unedited.
    OversizeEvent,
    /// More than `max_held_bytes` were held back and left unedited.
    HeldOverflow,
}

impl Bypass {
    /// Every reason but those of [`Opaque`], in the order of the documentation.
    const OWN: [Self; 13] = [
        Self::NoPolicy,
        Self::WireVersion,
        Self::UnknownModel,
        Self::NoPrincipal,
        Self::PrincipalRefused,
        Self::BreakerOpen,
        Self::ClassifyFailed,
        Self::ClassifyRefused,
        Self::ClassifyLate,
        Self::Encoded,
        Self::ContentType,
        Self::OversizeEvent,
        Self::HeldOverflow,
    ];

    /// Every reason.
    pub fn all() -> impl Iterator<Item = Self> {
        Opaque::ALL.into_iter().map(Self::Body).chain(Self::OWN)
    }

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Body(opaque) => opaque.as_str(),
            Self::NoPolicy => "no_policy",
            Self::WireVersion => "wire_version",
            Self::UnknownModel => "unknown_model",
            Self::NoPrincipal => "no_principal",
            Self::PrincipalRefused => "principal_refused",
            Self::BreakerOpen => "breaker_open",
            Self::ClassifyFailed => "classify_failed",
            Self::ClassifyRefused => "classify_refused",
            Self::ClassifyLate => "classify_late",
            Self::Encoded => "encoded",
            Self::ContentType => "content_type",
            Self::OversizeEvent => "oversize_event",
            Self::HeldOverflow => "held_overflow",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alerts and dashboards read these words.
    #[test]
    fn reasons_are_called_what_they_were() {
        let words: Vec<_> = Bypass::all().map(Bypass::as_str).collect();
        let expected = [
            "not_json",
            "not_utf8",
            "not_object",
            "too_deep",
            "too_large",
            "too_many_blocks",
            "too_many_markers",
            "too_many_members",
            "no_policy",
            "wire_version",
            "unknown_model",
            "no_principal",
            "principal_refused",
            "breaker_open",
            "classify_failed",
            "classify_refused",
            "classify_late",
            "encoded",
            "content_type",
            "oversize_event",
            "held_overflow",
        ];
        assert_eq!(words, expected);
    }
}
