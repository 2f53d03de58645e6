//! Breakpoints that no marker in the body asks for.

use super::{
    Implied, MarkerRules,
    chat::{ChatRequest, Place},
    json::offset,
    markers::{CACHE_CONTROL, Point},
};
use crate::{
    ledger::{Breakpoint, MAX_BREAKPOINTS, Tier},
    order::sort_by_key,
};

/// Those of a request without markers; ascending.
pub(super) fn breakpoints(request: &ChatRequest<'_>, rules: &MarkerRules<'_>) -> Vec<Breakpoint> {
    let (blocks, tier) = match rules.implied {
        _ if request.elsewhere => return Vec::new(),
        Implied::Nothing => return Vec::new(),
        Implied::LastUserMessage => ([None, last_from_outside(request)], rules.default_tier),
        // Who says how to cache, were it not to cache, is not overruled.
        Implied::EveryTurn(_) if request.cache_options.is_some() => return Vec::new(),
        Implied::EveryTurn(tier) => {
            let last = request.marked_block(Place::Top);
            let before = last_turn(request).filter(|block| Some(*block) < last);
            ([before, last], tier)
        }
    };
    let breakpoint = |block| Breakpoint { block, tier };
    blocks.into_iter().flatten().map(breakpoint).collect()
}

/// Adds those of a request with markers, which come first. Leaves `points` ascending by block.
pub(super) fn add(request: &ChatRequest<'_>, rules: &MarkerRules<'_>, points: &mut Vec<Point>) {
    if rules.implied != Implied::LastUserMessage {
        return;
    }
    let Some(block) = last_from_outside(request) else {
        return;
    };
    let mut taken: Vec<u32> = points.iter().map(|point| point.block).collect();
    taken.dedup();
    if taken.len() == MAX_BREAKPOINTS || taken.contains(&block) {
        return;
    }
    points.push(Point {
        block,
        tier: tier_between(points, block, rules),
        place: Place::Top,
        key: CACHE_CONTROL,
    });
    sort_by_key(points, |point| u64::from(point.block));
}

/// The default tier; where a longer one may not follow a shorter one, no longer than the one
/// before it. Nobody wrote it, so nobody can be told to write it otherwise.
fn tier_between(points: &[Point], block: u32, rules: &MarkerRules<'_>) -> Tier {
    let before = points.iter().filter(|point| point.block < block);
    let shortest = before.map(|point| point.tier).min();
    match rules.mixed_ttl_order {
        super::MixedTtlOrder::Any => rules.default_tier,
        super::MixedTtlOrder::LongestFirst => {
            shortest.map_or(rules.default_tier, |tier| tier.min(rules.default_tier))
        }
    }
}

/// The end of the last message of the user or of a tool.
pub(super) fn last_from_outside(request: &ChatRequest<'_>) -> Option<u32> {
    let list = &request.messages.list;
    let at = list.iter().rposition(|message| message.from_outside)?;
    request.marked_block(Place::Message(offset(at)))
}

/// The end of the first message of the user or of a tool: with what comes before it, what all
/// turns of a conversation have in common.
pub(super) fn first_from_outside(request: &ChatRequest<'_>) -> Option<u32> {
    let list = &request.messages.list;
    let at = list.iter().position(|message| message.from_outside)?;
    request.marked_block(Place::Message(offset(at)))
}

/// Where the request before this one ended: at the message from outside before the last of the
/// model's own. (All that is neither is taken for the model's: calls and reasoning have no role in
/// some APIs.)
fn last_turn(request: &ChatRequest<'_>) -> Option<u32> {
    let list = &request.messages.list;
    let own = list.iter().rposition(|message| !message.from_outside)?;
    let before = list.get(..own)?;
    let at = before.iter().rposition(|message| message.from_outside)?;
    request.marked_block(Place::Message(offset(at)))
}
