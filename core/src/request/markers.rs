//! The grammar of `cache_control`, and how the markers of both dialects become breakpoints.

use crate::order::sort_by_key;
use std::borrow::Cow;

use super::{
    MarkerRules, MixedTtlOrder, Refusal, RefusalReason,
    chat::{ChatRequest, Dialect, Kind, Place},
    implied,
    json::{Reader, Span},
    messages,
    openai::{self, CacheOptions, Explicit},
    refusal::quoted,
};
use crate::{
    api::Api,
    ledger::{Breakpoint, MAX_BREAKPOINTS, Tier},
};

/// See [`ChatRequest::marked`].
pub(super) fn marked(request: &ChatRequest<'_>) -> bool {
    !request.messages.markers.is_empty()
        || !request.tools.markers.is_empty()
        || !request.system.markers.is_empty()
        || request.automatic.is_some()
        || request
            .cache_options
            .is_some_and(|value| !openai::only_explicit(request.body, value))
}

/// See [`ChatRequest::breakpoints`].
pub(super) fn breakpoints(
    request: &ChatRequest<'_>,
    rules: &MarkerRules<'_>,
) -> Result<Vec<Breakpoint>, Refusal> {
    if !marked(request) {
        return Ok(implied::breakpoints(request, rules));
    }
    let rules = &match request.api {
        Api::Messages => MarkerRules {
            mixed_ttl_order: MixedTtlOrder::LongestFirst,
            ..*rules
        },
        Api::Chat | Api::Responses | Api::Completions => *rules,
    };
    let points = resolve(request, rules).map_err(|refusal| Refusal {
        message: messages::wording(request, &refusal, rules).unwrap_or(refusal.message),
        ..refusal
    })?;
    Ok(if request.elsewhere {
        Vec::new()
    } else {
        points
    })
}

fn resolve(request: &ChatRequest<'_>, rules: &MarkerRules<'_>) -> Result<Vec<Breakpoint>, Refusal> {
    let mut read = Read::default();
    let outcome = read.all(request, rules);
    // A wrong order among the markers before the first other error comes before that error.
    sort_by_key(&mut read.points, |point| u64::from(point.block));
    check_order(request, &read.points, rules)?;
    outcome?;

    if let Some(tier) = read.automatic {
        add_automatic(request, tier, &mut read.points)?;
    }
    openai::add(
        request,
        rules,
        &read.options,
        &read.openai_blocks,
        &mut read.points,
    );
    implied::add(request, rules, &mut read.points);
    check_order(request, &read.points, rules)?;

    let mut breakpoints: Vec<Breakpoint> = Vec::with_capacity(MAX_BREAKPOINTS);
    for &Point { block, tier, .. } in &read.points {
        match breakpoints.last_mut() {
            Some(last) if last.block == block => last.tier = last.tier.max(tier),
            _ => breakpoints.push(Breakpoint { block, tier }),
        }
    }
    Ok(breakpoints)
}

/// A valid marker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub block: u32,
    pub tier: Tier,
    pub place: Place,
    pub key: &'static str,
}

impl Point {
    fn path(&self, request: &ChatRequest<'_>) -> String {
        self.place.path(request.shape(), self.key)
    }
}

pub(super) const CACHE_CONTROL: &str = "cache_control";

/// What the markers say, each on its own.
#[derive(Default)]
struct Read {
    /// Valid `cache_control` markers on blocks, at most four.
    points: Vec<Point>,
    automatic: Option<Tier>,
    options: CacheOptions,
    openai_blocks: Vec<Explicit>,
}

impl Read {
    /// Reads all markers in the order of the bytes, up to the first error.
    fn all(&mut self, request: &ChatRequest<'_>, rules: &MarkerRules<'_>) -> Result<(), Refusal> {
        let on_blocks = request
            .tools
            .markers
            .iter()
            .chain(&request.system.markers)
            .chain(&request.messages.markers);
        let mut items: Vec<(Span, Place, Option<Dialect>)> = on_blocks
            .map(|marker| (marker.value, marker.place, Some(marker.dialect)))
            .collect();
        let automatic = request
            .automatic
            .map(|value| (value, Place::Top, Some(Dialect::CacheControl)));
        let options = request.cache_options.map(|value| (value, Place::Top, None));
        items.extend(automatic.into_iter().chain(options));
        sort_by_key(&mut items, |(value, ..)| u64::from(value.start));

        for (value, place, dialect) in items {
            match dialect {
                Some(Dialect::CacheControl) => {
                    if let Place::Part { .. } = place
                        && request
                            .marked_block(place)
                            .is_some_and(|block| request.kind(block) == Kind::Thinking)
                    {
                        let message = "cache_control is not allowed on a thinking block";
                        let reason = RefusalReason::MalformedCacheControl;
                        return Err(Problem(reason, message.to_owned()).at(request, place));
                    }
                    let tier = parse(request.body, value, rules)
                        .map_err(|problem| problem.at(request, place))?;
                    self.add(request, place, tier)?;
                }
                Some(Dialect::PromptCacheBreakpoint) => {
                    let tier = openai::parse_breakpoint(request, value, place, rules)?;
                    let block = request.marked_block(place);
                    let explicit = |block| Explicit { block, place, tier };
                    self.openai_blocks.extend(block.map(explicit));
                }
                None => self.options = openai::parse_options(request, value, rules)?,
            }
        }
        Ok(())
    }

    fn add(&mut self, request: &ChatRequest<'_>, place: Place, tier: Tier) -> Result<(), Refusal> {
        if place == Place::Top {
            self.automatic = Some(tier);
            return Ok(());
        }
        if self.points.len() == MAX_BREAKPOINTS {
            let message = format!("too many cache_control breakpoints (max {MAX_BREAKPOINTS})");
            return Err(Problem(RefusalReason::TooManyBreakpoints, message).at(request, place));
        }
        let block = request.marked_block(place);
        let point = |block| Point {
            block,
            tier,
            place,
            key: CACHE_CONTROL,
        };
        self.points.extend(block.map(point));
        Ok(())
    }
}

/// Adds the top-level marker, which takes a slot unless it only repeats one on its block.
fn add_automatic(
    request: &ChatRequest<'_>,
    tier: Tier,
    points: &mut Vec<Point>,
) -> Result<(), Refusal> {
    let Some(block) = request.marked_block(Place::Top) else {
        return Ok(());
    };
    let mut on_block = points.iter().filter(|point| point.block == block);
    if on_block.clone().any(|point| point.tier == tier) {
        return Ok(());
    }
    let reason = RefusalReason::AutomaticConflict;
    if let Some(other) = on_block.next_back() {
        let message = format!(
            "automatic cache_control (ttl {}) conflicts with {} (ttl {}), which marks the same block",
            tier.as_str(),
            other.path(request),
            other.tier.as_str()
        );
        return Err(Problem(reason, message).at(request, Place::Top));
    }
    if points.len() == MAX_BREAKPOINTS {
        let message = format!(
            "automatic cache_control has no free breakpoint: all {MAX_BREAKPOINTS} are taken by other cache_control markers"
        );
        return Err(Problem(reason, message).at(request, Place::Top));
    }
    points.push(Point {
        block,
        tier,
        place: Place::Top,
        key: CACHE_CONTROL,
    });
    Ok(())
}

/// Refuses a longer tier after a shorter one where the order matters. `points` ascend by block;
/// markers on one block count as one of the longest tier among them.
fn check_order(
    request: &ChatRequest<'_>,
    points: &[Point],
    rules: &MarkerRules<'_>,
) -> Result<(), Refusal> {
    if rules.mixed_ttl_order == MixedTtlOrder::Any {
        return Ok(());
    }
    let blocks = points.chunk_by(|a, b| a.block == b.block);
    let longest = blocks.filter_map(|block| block.iter().max_by_key(|point| point.tier));
    let mut before: Option<&Point> = None;
    for point in longest {
        if let Some(shorter) = before.filter(|before| before.tier < point.tier) {
            let message = format!(
                "cache_control ttl {} at {} follows the shorter ttl {} at {}; longer ttls must come first",
                point.tier.as_str(),
                point.path(request),
                shorter.tier.as_str(),
                shorter.path(request)
            );
            return Err(Refusal {
                message,
                param: point.path(request),
                reason: RefusalReason::TtlOrder,
                api: request.api,
            });
        }
        before = Some(point);
    }
    Ok(())
}

/// A refusal without its place.
pub(super) struct Problem(pub RefusalReason, pub String);

impl Problem {
    fn at(self, request: &ChatRequest<'_>, place: Place) -> Refusal {
        self.of(request, place, CACHE_CONTROL)
    }

    pub fn of(self, request: &ChatRequest<'_>, place: Place, key: &str) -> Refusal {
        Refusal {
            message: self.1,
            param: place.path(request.shape(), key),
            reason: self.0,
            api: request.api,
        }
    }
}

/// A member of a marker.
#[derive(Debug)]
pub(super) enum Field<'b> {
    Absent,
    Null,
    Text(Cow<'b, str>),
    Other,
}

/// The last members of those names in a marker; `None` if it is no object.
pub(super) fn fields<'b, const N: usize>(
    body: &'b [u8],
    value: Span,
    names: [&str; N],
) -> Option<[Field<'b>; N]> {
    let mut fields = [const { Field::Absent }; N];
    let mut reader = Reader::at(body, value.start as usize);
    if reader.peek() != Some(b'{') {
        return None;
    }
    reader.open().ok()?;
    let mut first = true;
    while let Some(key) = reader.key(first).ok()? {
        first = false;
        let is_text = reader.peek() == Some(b'"');
        let text = if is_text {
            Some(reader.string().ok()?)
        } else {
            None
        };
        let other = if is_text {
            None
        } else {
            Some(reader.skip().ok()?)
        };
        let Some(at) = names.iter().position(|name| name.as_bytes() == &*key.name) else {
            continue;
        };
        if let Some(field) = fields.get_mut(at) {
            *field = match (text, other) {
                (Some(text), _) => Field::Text(text.text()),
                (None, Some(span)) if span.of(body) == b"null" => Field::Null,
                _ => Field::Other,
            };
        }
    }
    Some(fields)
}

const MALFORMED: &str = "cache_control must be an object with a string \"type\": \"ephemeral\" (and an optional string \"ttl\")";

/// Reads a `cache_control` value: its shape first, then its type, then its ttl.
fn parse(body: &[u8], value: Span, rules: &MarkerRules<'_>) -> Result<Tier, Problem> {
    let malformed = || Problem(RefusalReason::MalformedCacheControl, MALFORMED.to_owned());
    let [kind, ttl] = fields(body, value, ["type", "ttl"]).ok_or_else(malformed)?;
    let Field::Text(kind) = kind else {
        return Err(malformed());
    };
    let ttl = match ttl {
        Field::Absent => None,
        Field::Text(ttl) => Some(ttl),
        Field::Null | Field::Other => return Err(malformed()),
    };
    if kind != "ephemeral" {
        let message = format!(
            "unsupported cache_control type: {} (only \"ephemeral\")",
            quoted(&kind)
        );
        return Err(Problem(RefusalReason::UnsupportedType, message));
    }
    let Some(ttl) = ttl else {
        return Ok(rules.default_tier);
    };
    let Some(tier) = Tier::from_name(&ttl) else {
        let message = format!("invalid cache_control ttl: {}", quoted(&ttl));
        return Err(Problem(RefusalReason::InvalidTtl, message));
    };
    if !rules.tiers.contains(&tier) {
        let message = format!(
            "cache_control ttl tier '{}' is not currently available; available tiers: {}",
            tier.as_str(),
            tier_names(rules)
        );
        return Err(Problem(RefusalReason::TierDisabled, message));
    }
    Ok(tier)
}

/// The enabled tiers as a message lists them, in configured order.
pub(super) fn tier_names(rules: &MarkerRules<'_>) -> String {
    let names: Vec<&str> = rules.tiers.iter().map(|tier| tier.as_str()).collect();
    names.join(", ")
}
