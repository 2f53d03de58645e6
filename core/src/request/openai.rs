//! The second dialect: `prompt_cache_breakpoint` on content parts, `prompt_cache_options` at the
//! top level.

use super::{
    MarkerRules, Refusal, RefusalReason,
    chat::{ChatRequest, Place},
    implied,
    json::Span,
    markers::{Field, Point, Problem, fields, tier_names},
    refusal::quoted,
};
use crate::ledger::{MAX_BREAKPOINTS, Tier};
use crate::order::sort_by_key;

const BREAKPOINT: &str = "prompt_cache_breakpoint";
const OPTIONS: &str = "prompt_cache_options";
const MALFORMED_BREAKPOINT: &str = "prompt_cache_breakpoint must be an object with a string \"mode\": \"explicit\" (and an optional string \"ttl\")";
const MALFORMED_OPTIONS: &str = "prompt_cache_options must be an object with an optional string \"mode\" (\"implicit\" or \"explicit\") and an optional string \"ttl\"";

/// `prompt_cache_options`, read.
#[derive(Default)]
pub(super) struct CacheOptions {
    /// Whether the end of the last user or tool message is marked too. The dialect's default
    /// where the options are there, but a request without options has no such breakpoint.
    implicit: bool,
    /// `None`: the default tier.
    tier: Option<Tier>,
}

/// A valid `prompt_cache_breakpoint`.
pub(super) struct Explicit {
    pub block: u32,
    pub place: Place,
    /// Its own; `None`: that of the options.
    pub tier: Option<Tier>,
}

/// Whether these options are well formed and give no breakpoint themselves.
pub(super) fn only_explicit(body: &[u8], value: Span) -> bool {
    let Some([Field::Text(mode), ttl]) = fields(body, value, ["mode", "ttl"]) else {
        return false;
    };
    let well_formed = match ttl {
        Field::Absent | Field::Null => true,
        Field::Text(ttl) => seconds(&ttl).is_some(),
        Field::Other => false,
    };
    mode == "explicit" && well_formed
}

/// Reads the value of a `prompt_cache_breakpoint`: its own tier, if it asks for one.
pub(super) fn parse_breakpoint(
    request: &ChatRequest<'_>,
    value: Span,
    place: Place,
    rules: &MarkerRules<'_>,
) -> Result<Option<Tier>, Refusal> {
    let message = match fields(request.body, value, ["mode", "ttl"]) {
        Some([Field::Text(mode), ttl]) if mode == "explicit" => {
            let tier = match ttl {
                Field::Absent | Field::Null => Ok(None),
                Field::Text(ttl) => tier_of(&ttl, BREAKPOINT, rules).map(Some),
                Field::Other => Err(malformed(MALFORMED_BREAKPOINT)),
            };
            return tier.map_err(|problem| problem.of(request, place, BREAKPOINT));
        }
        Some([Field::Text(mode), _]) => format!(
            "unsupported prompt_cache_breakpoint mode: {} (only \"explicit\")",
            quoted(&mode)
        ),
        _ => MALFORMED_BREAKPOINT.to_owned(),
    };
    Err(malformed(message).of(request, place, BREAKPOINT))
}

fn malformed(message: impl Into<String>) -> Problem {
    Problem(RefusalReason::MalformedCacheControl, message.into())
}

/// The shortest enabled tier that lasts at least `ttl`, which stands in a member of `name`.
fn tier_of(ttl: &str, name: &str, rules: &MarkerRules<'_>) -> Result<Tier, Problem> {
    let shown = quoted(ttl);
    let Some(seconds) = seconds(ttl) else {
        let message = format!("invalid {name} ttl: {shown}");
        return Err(Problem(RefusalReason::InvalidTtl, message));
    };
    let long_enough = rules
        .tiers
        .iter()
        .filter(|tier| tier.duration().as_secs() >= seconds);
    long_enough.min().copied().ok_or_else(|| {
        let message = format!(
            "{name} ttl {shown} is not currently available; available tiers: {}",
            tier_names(rules)
        );
        Problem(RefusalReason::TierDisabled, message)
    })
}

/// Reads `prompt_cache_options`; `null` members are absent ones, as in the clients of this
/// dialect.
pub(super) fn parse_options(
    request: &ChatRequest<'_>,
    value: Span,
    rules: &MarkerRules<'_>,
) -> Result<CacheOptions, Refusal> {
    let refuse = |problem: Problem| problem.of(request, Place::Top, OPTIONS);
    let Some([mode, ttl]) = fields(request.body, value, ["mode", "ttl"]) else {
        return Err(refuse(malformed(MALFORMED_OPTIONS)));
    };
    let implicit = match &mode {
        Field::Absent | Field::Null => true,
        Field::Text(mode) if mode == "implicit" => true,
        Field::Text(mode) if mode == "explicit" => false,
        Field::Text(mode) => {
            let mode = quoted(mode);
            return Err(refuse(malformed(format!(
                "unsupported prompt_cache_options mode: {mode} (only \"implicit\" or \"explicit\")"
            ))));
        }
        Field::Other => return Err(refuse(malformed(MALFORMED_OPTIONS))),
    };
    let tier = match ttl {
        Field::Absent | Field::Null => None,
        Field::Text(ttl) => Some(tier_of(&ttl, OPTIONS, rules).map_err(refuse)?),
        Field::Other => return Err(refuse(malformed(MALFORMED_OPTIONS))),
    };
    Ok(CacheOptions { implicit, tier })
}

/// A duration such as `30m`: a positive whole number of seconds, minutes, hours or days.
fn seconds(ttl: &str) -> Option<u64> {
    let unit = ttl.chars().next_back()?;
    let digits = ttl.strip_suffix(unit)?;
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let unit_seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return None,
    };
    let count: u64 = digits.parse().ok()?;
    count
        .checked_mul(unit_seconds)
        .filter(|&seconds| seconds > 0)
}

/// Adds this dialect's breakpoints to the `cache_control` ones, which come first: the latest
/// blocks fill what is left of the four. On a block that is a breakpoint already it takes no slot.
/// Leaves `points` ascending by block.
pub(super) fn add(
    request: &ChatRequest<'_>,
    rules: &MarkerRules<'_>,
    options: &CacheOptions,
    marked: &[Explicit],
    points: &mut Vec<Point>,
) {
    let tier = options.tier.unwrap_or(rules.default_tier);
    let mut wanted: Vec<Point> = marked
        .iter()
        .map(|explicit| Point {
            block: explicit.block,
            tier: explicit.tier.unwrap_or(tier),
            place: explicit.place,
            key: BREAKPOINT,
        })
        .collect();
    if options.implicit {
        let block = implied::last_from_outside(request);
        wanted.extend(block.map(|block| Point {
            block,
            tier,
            place: Place::Top,
            key: OPTIONS,
        }));
    }
    // The latest first.
    sort_by_key(&mut wanted, |point| u64::MAX - u64::from(point.block));

    let mut taken: Vec<u32> = points.iter().map(|point| point.block).collect();
    taken.dedup();
    for point in wanted {
        if !taken.contains(&point.block) {
            if taken.len() == MAX_BREAKPOINTS {
                continue;
            }
            taken.push(point.block);
        }
        points.push(point);
    }
    sort_by_key(points, |point| u64::from(point.block));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("30s", Some(30)),
            ("5m", Some(300)),
            ("1h", Some(3_600)),
            ("1d", Some(86_400)),
            ("007m", Some(420)),
            ("0m", None),
            ("", None),
            ("m", None),
            ("5", None),
            ("5 m", None),
            ("+5m", None),
            ("-5m", None),
            ("1.5h", None),
            ("5é", None),
            ("99999999999999999999s", None),
            ("9999999999999999999d", None),
        ];
        for (ttl, expected) in cases {
            assert_eq!(seconds(ttl), expected, "{ttl}");
        }
    }
}
