//! The rewrite of one usage object: the cache fields are written, or removed, by splice.

use std::ops::Range;

use super::splice::{Patch, apply};
use crate::api::Api;
use crate::ledger::{Cap, Split, Tier};
use crate::object::{Member, is_object, members, slice};

/// What happens to usage objects once the classification is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// The split is written.
    Write(Split),
    /// The upstream's own cache fields are removed.
    Scrub,
    /// Nothing.
    Leave,
}

/// An edited usage object.
pub(super) struct Edited {
    pub bytes: Vec<u8>,
    /// The split that was written, and what the cap took.
    pub shown: Option<(Split, Cap)>,
}

const INPUT: &str = "input_tokens";
const PROMPT_DETAILS: &str = "prompt_tokens_details";
const INPUT_DETAILS: &str = "input_tokens_details";
const CACHED: &str = "cached_tokens";
const WRITTEN: &str = "cache_write_tokens";
const READ: &str = "cache_read_input_tokens";
const CREATED: &str = "cache_creation_input_tokens";
const CREATION: &str = "cache_creation";

/// Members to be set: numbers, and objects whose own members are set.
enum Want {
    Number(&'static str, u64),
    Object(&'static str, Vec<Want>),
}

/// The object with the details of the prompt's tokens, where the API has one.
const fn details_of(api: Api) -> Option<&'static str> {
    match api {
        Api::Chat | Api::Completions => Some(PROMPT_DETAILS),
        Api::Responses => Some(INPUT_DETAILS),
        Api::Messages => None,
    }
}

/// The value of a number in an object; of duplicates the last, as for JSON parsers.
fn number_in(object: &[u8], all: &[Member], name: &str) -> Option<u64> {
    let last = all.iter().rev().find(|member| member.is(object, name))?;
    integer(slice(object, last.value.clone()))
}

/// The tokens that the upstream itself says it had cached, by a usage object that was not edited.
pub(super) fn engine_cached(object: &[u8], api: Api) -> Option<u64> {
    let all = members(object)?;
    let Some(details) = details_of(api) else {
        return number_in(object, &all, READ);
    };
    let details = all.iter().rev().find(|member| member.is(object, details))?;
    let details = slice(object, details.value.clone());
    number_in(details, &members(details)?, CACHED)
}

/// The prompt's tokens by a usage object, if they are non-negative integers.
///
/// In the Messages API the parts of a prompt are told apart and add up; `before` is what an
/// earlier object of the response said, which stands where this one says nothing.
pub(super) fn prompt_tokens(object: &[u8], api: Api, before: Option<u64>) -> Option<u64> {
    let all = members(object)?;
    let number = |name| number_in(object, &all, name);
    match api {
        Api::Chat | Api::Completions => number("prompt_tokens"),
        Api::Responses => number(INPUT),
        Api::Messages => {
            let cached = [READ, CREATED].into_iter().filter_map(number);
            let cached = cached.fold(0, u64::saturating_add);
            let total = number(INPUT).map(|input| input.saturating_add(cached));
            total.filter(|total| *total > 0).or(before).or(total)
        }
    }
}

/// Edits a usage object. `None` when it is not a JSON object: it stays as it is. `before`: see
/// [`prompt_tokens`].
pub(super) fn edit(object: &[u8], edit: Edit, api: Api, before: Option<u64>) -> Option<Edited> {
    let mut patches = Vec::new();
    let mut shown = None;
    match edit {
        Edit::Write(split) => {
            let total = prompt_tokens(object, api, before);
            let capped = show(split, total);
            let first = match (details_of(api), total) {
                (Some(name), _) => Some(details(name, &capped.0)),
                (None, Some(total)) => {
                    let cached = capped.0.read.saturating_add(capped.0.creation.total());
                    Some(Want::Number(INPUT, total.saturating_sub(cached)))
                }
                (None, None) => None,
            };
            let wants: Vec<Want> = first.into_iter().chain(wants(&capped.0)).collect();
            set(object, 0, &wants, &mut patches)?;
            shown = Some(capped);
        }
        Edit::Scrub => {
            scrub(object, api, &mut patches)?;
        }
        Edit::Leave => {
            members(object)?;
        }
    }
    Some(Edited {
        bytes: apply(object, patches),
        shown,
    })
}

/// The split as shown beside `prompt_tokens`; uncapped where that is not known.
pub(super) fn show(split: Split, prompt_tokens: Option<u64>) -> (Split, Cap) {
    prompt_tokens.map_or((split, Cap::None), |tokens| split.capped(tokens))
}

fn integer(text: &[u8]) -> Option<u64> {
    // JSON integers only: `str::parse` alone would take a leading plus sign.
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn details(name: &'static str, split: &Split) -> Want {
    let cached = Want::Number(CACHED, split.read);
    let written = Want::Number(WRITTEN, split.creation.total());
    Want::Object(name, vec![cached, written])
}

fn wants(split: &Split) -> [Want; 3] {
    [
        Want::Number(READ, split.read),
        Want::Number(CREATED, split.creation.total()),
        Want::Object(
            CREATION,
            vec![
                Want::Number(
                    "ephemeral_5m_input_tokens",
                    split.creation.get(Tier::FiveMinutes),
                ),
                Want::Number(
                    "ephemeral_1h_input_tokens",
                    split.creation.get(Tier::OneHour),
                ),
                Want::Number("ephemeral_24h_input_tokens", split.creation.get(Tier::Day)),
            ],
        ),
    ]
}

impl Want {
    const fn name(&self) -> &'static str {
        match self {
            Self::Number(name, _) | Self::Object(name, _) => name,
        }
    }

    fn value(&self) -> String {
        match self {
            Self::Number(_, number) => number.to_string(),
            Self::Object(_, inner) => {
                let inner: Vec<_> = inner.iter().map(Self::member).collect();
                format!("{{{}}}", inner.join(","))
            }
        }
    }

    fn member(&self) -> String {
        format!("\"{}\":{}", self.name(), self.value())
    }
}

/// Sets members of `object`, which starts at `base` of the text the patches are for: overwrites
/// every one that is there, appends what is missing behind the last member.
fn set(object: &[u8], base: usize, wants: &[Want], patches: &mut Vec<Patch>) -> Option<()> {
    let all = members(object)?;
    let mut missing = Vec::new();
    for want in wants {
        let mut found = false;
        for member in all.iter().filter(|member| member.is(object, want.name())) {
            found = true;
            let value = slice(object, member.value.clone());
            match want {
                Want::Object(_, inner) if is_object(value) => {
                    set(value, base + member.value.start, inner, patches)?;
                }
                _ => patches.push(Patch::replace(shift(&member.value, base), want.value())),
            }
        }
        if !found {
            missing.push(want.member());
        }
    }
    if !missing.is_empty() {
        let (at, comma) = match all.last() {
            Some(member) => (member.value.end, ","),
            None => (1, ""),
        };
        patches.push(Patch::insert(
            base + at,
            format!("{comma}{}", missing.join(",")),
        ));
    }
    Some(())
}

fn scrub(object: &[u8], api: Api, patches: &mut Vec<Patch>) -> Option<()> {
    let all = members(object)?;
    // Where the parts of a prompt are told apart, those without a cache are the whole.
    let input = prompt_tokens(object, api, None).filter(|_| api == Api::Messages);
    for member in all.iter().filter(|member| member.is(object, INPUT)) {
        let text = input.map(|input| input.to_string());
        patches.extend(text.map(|text| Patch::replace(member.value.clone(), text)));
    }
    remove(object, 0, &all, &[READ, CREATED, CREATION], patches);
    let details = details_of(api);
    let is_details = |member: &&Member| details.is_some_and(|name| member.is(object, name));
    for details in all.iter().filter(is_details) {
        let value = slice(object, details.value.clone());
        if is_object(value) {
            remove(
                value,
                details.value.start,
                &members(value)?,
                &[CACHED, WRITTEN],
                patches,
            );
        }
    }
    Some(())
}

/// Cuts the named members, each with one comma.
fn remove(object: &[u8], base: usize, all: &[Member], names: &[&str], patches: &mut Vec<Patch>) {
    let mut kept_before = false;
    let mut previous_end = 0;
    for (i, member) in all.iter().enumerate() {
        if names.iter().any(|name| member.is(object, name)) {
            let cut = if kept_before {
                previous_end..member.value.end
            } else {
                let next = all
                    .get(i + 1)
                    .map_or(member.value.end, |next| next.key.start);
                member.key.start..next
            };
            patches.push(Patch::cut(shift(&cut, base)));
        } else {
            kept_before = true;
        }
        previous_end = member.value.end;
    }
}

fn shift(range: &Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::TierTokens;

    const SPLIT: Split = Split {
        read: 100,
        creation: TierTokens {
            five_minutes: 7,
            one_hour: 3,
            day: 0,
        },
    };
    const TAIL: &str = r#""cache_read_input_tokens":100,"cache_creation_input_tokens":10,"cache_creation":{"ephemeral_5m_input_tokens":7,"ephemeral_1h_input_tokens":3,"ephemeral_24h_input_tokens":0}"#;
    const INNER: &str = r#""cached_tokens":100,"cache_write_tokens":10"#;

    fn written(object: &str) -> String {
        String::from_utf8(
            edit(object.as_bytes(), Edit::Write(SPLIT), Api::Chat, None)
                .unwrap()
                .bytes,
        )
        .unwrap()
    }

    fn scrubbed(object: &str) -> String {
        String::from_utf8(
            edit(object.as_bytes(), Edit::Scrub, Api::Chat, None)
                .unwrap()
                .bytes,
        )
        .unwrap()
    }

    #[test]
    fn an_empty_total_of_the_messages_api_goes_by_the_one_before() {
        let total = |object: &str, before| prompt_tokens(object.as_bytes(), Api::Messages, before);
        assert_eq!(total(r#"{"input_tokens":0}"#, Some(5)), Some(5));
        assert_eq!(total(r#"{"output_tokens":9}"#, Some(5)), Some(5));
        assert_eq!(total(r#"{"input_tokens":0}"#, None), Some(0));
        assert_eq!(total(r#"{"input_tokens":1}"#, Some(5)), Some(1));
        let parts =
            r#"{"input_tokens":0,"cache_read_input_tokens":2,"cache_creation_input_tokens":4}"#;
        assert_eq!(total(parts, Some(5)), Some(6));
    }

    #[test]
    fn absent_fields_are_appended() {
        assert_eq!(
            written(r#"{"prompt_tokens":200}"#),
            format!(r#"{{"prompt_tokens":200,"prompt_tokens_details":{{{INNER}}},{TAIL}}}"#)
        );
        assert_eq!(
            written("{ }"),
            format!(r#"{{"prompt_tokens_details":{{{INNER}}},{TAIL} }}"#)
        );
    }

    #[test]
    fn every_shape_of_the_details() {
        for shape in ["null", "3", "\"x\"", "[]", "{}"] {
            assert_eq!(
                written(&format!(r#"{{"prompt_tokens_details":{shape},"n":1.50}}"#)),
                format!(r#"{{"prompt_tokens_details":{{{INNER}}},"n":1.50,{TAIL}}}"#),
                "{shape}"
            );
        }
        assert_eq!(
            written(
                r#"{"prompt_tokens_details": {"audio_tokens":1e2 , "cached_tokens" : null }, "n":0}"#
            ),
            format!(
                r#"{{"prompt_tokens_details": {{"audio_tokens":1e2 , "cached_tokens" : 100,"cache_write_tokens":10 }}, "n":0,{TAIL}}}"#
            )
        );
    }

    #[test]
    fn present_fields_are_overwritten_in_place_duplicates_too() {
        let object = r#"{"cache_creation":{"ephemeral_1h_input_tokens":"z","x":1},"cache_read_input_tokens":1,"cache_\u0072ead_input_tokens":[2],"cache_creation_input_tokens":{},"prompt_tokens_details":{"cached_tokens":4,"cached_tokens":5}}"#;
        assert_eq!(
            written(object),
            r#"{"cache_creation":{"ephemeral_1h_input_tokens":3,"x":1,"ephemeral_5m_input_tokens":7,"ephemeral_24h_input_tokens":0},"cache_read_input_tokens":100,"cache_\u0072ead_input_tokens":100,"cache_creation_input_tokens":10,"prompt_tokens_details":{"cached_tokens":100,"cached_tokens":100,"cache_write_tokens":10}}"#
        );
    }

    #[test]
    fn the_cap_follows_the_last_prompt_tokens() {
        let cases = [
            (r#"{"prompt_tokens":110}"#, 100, 10, Cap::None),
            (r#"{"prompt_tokens":109}"#, 99, 10, Cap::Read),
            (r#"{"prompt_tokens":9}"#, 0, 0, Cap::All),
            (
                r#"{"prompt_tokens":9,"prompt_tokens":500}"#,
                100,
                10,
                Cap::None,
            ),
            (
                r#"{"prompt_tokens":500,"prompt_tokens":9.0}"#,
                100,
                10,
                Cap::None,
            ),
            (r#"{"prompt_tokens":-1}"#, 100, 10, Cap::None),
            (r#"{"prompt_tokens":"9"}"#, 100, 10, Cap::None),
            (
                r#"{"prompt_tokens":99999999999999999999}"#,
                100,
                10,
                Cap::None,
            ),
            (r#"{}"#, 100, 10, Cap::None),
        ];
        for (object, read, created, cap) in cases {
            let (split, taken) = edit(object.as_bytes(), Edit::Write(SPLIT), Api::Chat, None)
                .unwrap()
                .shown
                .unwrap();
            assert_eq!(
                (split.read, split.creation.total(), taken),
                (read, created, cap),
                "{object}"
            );
        }
    }

    #[test]
    fn scrub_cuts_the_cache_fields_and_nothing_else() {
        let cases = [
            (r#"{"a":1}"#, r#"{"a":1}"#),
            (r#"{"cache_read_input_tokens":1}"#, "{}"),
            (r#"{ "cache_read_input_tokens":1 , "a":2}"#, r#"{ "a":2}"#),
            (r#"{"a":2 , "cache_creation":{"x":1} }"#, r#"{"a":2 }"#),
            (
                r#"{"cache_read_input_tokens":1,"cache_creation":{},"a":1,"cache_creation_input_tokens":3,"cache_read_input_tokens":1,"b":2}"#,
                r#"{"a":1,"b":2}"#,
            ),
            (
                r#"{"prompt_tokens_details":{"cached_tokens":1,"audio_tokens":2,"cache_write_tokens":0}}"#,
                r#"{"prompt_tokens_details":{"audio_tokens":2}}"#,
            ),
            (
                r#"{"prompt_tokens_details":null}"#,
                r#"{"prompt_tokens_details":null}"#,
            ),
        ];
        for (object, expected) in cases {
            assert_eq!(scrubbed(object), expected, "{object}");
        }
    }

    #[test]
    fn what_is_no_object_is_not_edited() {
        for object in [
            "",
            "null",
            "[1]",
            "{\"a\"}",
            "{\"prompt_tokens_details\":{,}}",
        ] {
            assert!(
                edit(object.as_bytes(), Edit::Write(SPLIT), Api::Chat, None).is_none(),
                "{object}"
            );
            assert!(
                edit(object.as_bytes(), Edit::Scrub, Api::Chat, None).is_none(),
                "{object}"
            );
        }
    }
}
