//! The request path: a body is read once; markers, blocks, edits and prefix
//! hashes come from the positions found.
//!
//! [`scan`] → [`ChatRequest`] → [`ChatRequest::breakpoints`] (or a [`Refusal`]),
//! [`ChatRequest::forwarded`], [`ChatRequest::prefix_hashes`]. No tree of the body is ever built.

mod canonical;
mod chat;
mod implied;
mod json;
mod markers;
mod messages;
mod openai;
mod prefix;
mod refusal;
mod scanner;
mod shape;
mod splice;
mod text;
mod unescape;
mod volatile;

use std::borrow::Cow;

use serde::Deserialize;

pub use chat::{BlockPlace, ChatRequest};
pub use refusal::{Refusal, RefusalReason};
pub use volatile::Steady;

use crate::{
    api::Api,
    ledger::{Breakpoint, Tier},
    prefix_hash::PrefixHash,
};

/// Blocks (and messages) of one request; more make it [`Opaque::TooManyBlocks`].
pub const BLOCKS_MAX: usize = 1 << 16;
/// Markers of one request, overridden duplicates included; more make it
/// [`Opaque::TooManyMarkers`].
pub const MARKERS_MAX: usize = 1 << 16;
/// Members at the own top level of one message or content part; more make it
/// [`Opaque::TooManyMembers`].
pub const MEMBERS_MAX: usize = 1 << 10;

/// Why a body is forwarded byte for byte, markers included: a closed set of metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opaque {
    /// Not what `serde_json` reads as a value: syntax, a number beyond `f64`, half a surrogate
    /// pair, anything after the value, a byte order mark.
    NotJson,
    /// Not UTF-8.
    NotUtf8,
    /// JSON, but no object.
    NotObject,
    /// Over 127 nested containers, the limit of `serde_json`.
    TooDeep,
    /// 4 GiB or more.
    TooLarge,
    /// Over [`BLOCKS_MAX`] blocks.
    TooManyBlocks,
    /// Over [`MARKERS_MAX`] markers.
    TooManyMarkers,
    /// A message or part with over [`MEMBERS_MAX`] members.
    TooManyMembers,
}

impl Opaque {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::NotJson,
        Self::NotUtf8,
        Self::NotObject,
        Self::TooDeep,
        Self::TooLarge,
        Self::TooManyBlocks,
        Self::TooManyMarkers,
        Self::TooManyMembers,
    ];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::NotUtf8 => "not_utf8",
            Self::NotObject => "not_object",
            Self::TooDeep => "too_deep",
            Self::TooLarge => "too_large",
            Self::TooManyBlocks => "too_many_blocks",
            Self::TooManyMarkers => "too_many_markers",
            Self::TooManyMembers => "too_many_members",
        }
    }
}

/// What markers may ask for.
#[derive(Clone, Copy, Debug)]
pub struct MarkerRules<'a> {
    /// The enabled tiers, in configured order.
    pub tiers: &'a [Tier],
    /// The tier of a marker without a `ttl`.
    pub default_tier: Tier,
    /// Whether the order of tiers matters.
    pub mixed_ttl_order: MixedTtlOrder,
    /// What is marked beside, or without, markers in the body.
    pub implied: Implied,
}

/// What is marked beside, or without, markers in the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Implied {
    /// Nothing.
    #[default]
    Nothing,
    /// The end of the last message of the user, or of a tool, at the default tier; where the
    /// markers leave a breakpoint.
    LastUserMessage,
    /// Of a request without markers: its end, and where the turn before it ended.
    EveryTurn(Tier),
}

/// Whether a longer tier may follow a shorter one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
pub enum MixedTtlOrder {
    /// It may.
    #[default]
    Any,
    /// It is refused.
    LongestFirst,
}

/// What is changed in the forwarded body besides the removal of markers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edits<'a> {
    /// Ask for usage in streams (only where `stream` is `true` and the API has to be asked).
    pub ensure_usage: bool,
    /// The `cache_salt` member to set; it replaces the client's own.
    pub cache_salt: Option<&'a str>,
}

/// Reads a chat completion body once.
///
/// # Errors
/// Says why the body has to be forwarded as it is.
pub fn scan(body: &[u8]) -> Result<ChatRequest<'_>, Opaque> {
    scanner::scan(Api::Chat, body)
}

/// Reads a body of that API once.
///
/// # Errors
/// As [`scan`].
pub fn scan_as(api: Api, body: &[u8]) -> Result<ChatRequest<'_>, Opaque> {
    scanner::scan(api, body)
}

impl<'b> ChatRequest<'b> {
    /// The last top-level `model`, if that is a string.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Whether the last top-level `stream` is literally `true`.
    pub fn stream(&self) -> bool {
        self.stream
    }

    /// Whether the client itself asks for `stream_options.include_usage`.
    pub fn asked_usage(&self) -> bool {
        self.stream_options.include_usage()
    }

    /// Whether a part of the prompt is elsewhere (`previous_response_id` and the like), so that
    /// what the body holds is no prefix of it: its markers are checked and removed, no more.
    pub fn prompt_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// Whether any marker in effect, valid or not, could give a breakpoint. A marker that is
    /// `null` is none, nor is one inside a duplicate that a later member overrides.
    pub fn marked(&self) -> bool {
        markers::marked(self)
    }

    /// The breakpoints that the markers, or the rules without them, ask for: ascending, one per
    /// block, at most [`crate::ledger::MAX_BREAKPOINTS`]; none where [`Self::prompt_elsewhere`].
    ///
    /// Up to four come from `cache_control`; those of the other dialect fill what is left, the
    /// latest first. Two markers on one block give one breakpoint of the longer tier.
    ///
    /// # Errors
    /// The first error in the order of the body's bytes. An error of two markers' order counts at
    /// the later of the two; the automatic marker's conflicts come last, as they need all others.
    pub fn breakpoints(&self, rules: &MarkerRules<'_>) -> Result<Vec<Breakpoint>, Refusal> {
        markers::breakpoints(self, rules)
    }

    /// The block whose prefix chooses the engine, of a request with a first breakpoint at `first`:
    /// that one, if a marker in the body set it. One that was implied moves with every turn; the
    /// end of the user's first message stays, and is what the turns have in common.
    pub fn routing_block(&self, first: u32) -> u32 {
        let stays = implied::first_from_outside(self).filter(|_| !self.marked());
        stays.map_or(first, |block| block.min(first))
    }

    /// The body to forward: all markers removed and the edits made. `None`: nothing changes.
    ///
    /// A removed member takes one of its commas along, and the white space between the two;
    /// every other byte stays.
    pub fn forwarded(&self, edits: &Edits<'_>) -> Option<Vec<u8>> {
        splice::forwarded(self, edits)
    }

    /// The body without its *volatile blocks*: elements of `system` that are nothing but a text,
    /// which starts with one of `prefixes`, and carry no marker. `None` if there are none, or no
    /// others beside them.
    pub fn without_volatile(&self, prefixes: &[String]) -> Option<Steady> {
        volatile::without(self, prefixes)
    }

    /// The number of blocks.
    pub fn block_count(&self) -> usize {
        self.tools.blocks.len() + self.system.blocks.len() + self.messages.blocks.len()
    }

    /// Where a block stands in a chat request; `None` beyond the last block, and for `system`.
    pub fn block_place(&self, block: u32) -> Option<BlockPlace> {
        chat::block_place(self, block)
    }

    /// The hash of the prefix that ends after each block from 0 to `last_block` (or the last
    /// block there is). `params` are the names of the prompt-shaping top-level members.
    ///
    /// The encoding is specified in `docs/prefix-hash.md`.
    pub fn prefix_hashes(&self, params: &[String], last_block: u32) -> Vec<PrefixHash> {
        prefix::hashes(self, params, last_block)
    }

    /// The text of a block that is counted where a model has no chat template: a pure function
    /// of what the block's hash covers. `None` beyond the last block.
    ///
    /// - string content: the string; a content part: itself if it is a bare string, else its
    ///   `text`, else its `refusal`, else its `thinking`, the first that is a string; else
    ///   nothing (images and the like);
    /// - the first block of a message starts with the message's `reasoning_content` and
    ///   `refusal`, where those are strings;
    /// - tool definitions (without their marker) and tool calls: their JSON without white space,
    ///   strings with the fewest escapes, numbers and member order as given;
    /// - anything else: nothing.
    ///
    /// Strings come unescaped. Half a surrogate pair cannot occur: [`scan`] refuses such bodies.
    pub fn block_text(&self, block: usize) -> Option<Cow<'b, str>> {
        text::block_text(self, block)
    }

    /// The JSON of a content part as the client sent it, a marker included. `None` for string
    /// content and for blocks that are no parts.
    pub fn part_json(&self, block: u32) -> Option<&'b [u8]> {
        text::part_json(self, block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct() {
        let labels: std::collections::BTreeSet<_> =
            Opaque::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(labels.len(), Opaque::ALL.len());
    }

    #[test]
    fn order_names_of_the_config() {
        let read = serde_json::from_str::<MixedTtlOrder>;
        assert_eq!(read(r#""any""#).unwrap(), MixedTtlOrder::Any);
        assert_eq!(
            read(r#""longest_first""#).unwrap(),
            MixedTtlOrder::LongestFirst
        );
        assert!(read(r#""shortest_first""#).is_err());
    }
}
