//! How the Messages API says that a marker is refused.

use super::{MarkerRules, Refusal, RefusalReason, chat::ChatRequest, chat::Dialect};
use crate::{
    api::Api,
    ledger::{MAX_BREAKPOINTS, Tier},
};

/// The message of a refusal in the words of the Messages API, which name the place themselves;
/// `None` for the others.
pub(super) fn wording(
    request: &ChatRequest<'_>,
    refusal: &Refusal,
    rules: &MarkerRules<'_>,
) -> Option<String> {
    if request.api != Api::Messages {
        return None;
    }
    let place = path(&refusal.param);
    let ours = &refusal.message;
    Some(match refusal.reason {
        RefusalReason::TooManyBreakpoints => {
            let markers = [
                &request.tools.markers,
                &request.system.markers,
                &request.messages.markers,
            ];
            let markers = markers.into_iter().flatten();
            let found = markers
                .filter(|marker| marker.dialect == Dialect::CacheControl)
                .count()
                + usize::from(request.automatic.is_some());
            format!(
                "A maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided. Found {found}."
            )
        }
        RefusalReason::InvalidTtl | RefusalReason::TierDisabled => {
            let tiers: Vec<String> = rules.tiers.iter().copied().map(quoted).collect();
            format!(
                "{place}.ephemeral.ttl: Input should be {} ({ours})",
                tiers.join(" or ")
            )
        }
        RefusalReason::TtlOrder => format!(
            "{place}.ttl: a longer ttl must not come after a shorter one. Blocks are processed in the following order: `tools`, `system`, `messages` ({ours})"
        ),
        RefusalReason::UnsupportedType
        | RefusalReason::MalformedCacheControl
        | RefusalReason::AutomaticConflict => format!("{place}: {ours}"),
    })
}

fn quoted(tier: Tier) -> String {
    format!("'{}'", tier.as_str())
}

/// `messages[0].content[2].x` as that API writes it: `messages.0.content.2.x`.
fn path(param: &str) -> String {
    param.replace('[', ".").replace(']', "")
}
