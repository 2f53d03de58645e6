//! The scenario files of the response side: input, options, answer, and what must come out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use prompt_cache_core::{
    ledger::{Cap, Split, TierTokens},
    response::{Answer, BodyKind, Output, RewriteOptions, Rewriter},
};
use serde::Deserialize;

macro_rules! scenarios {
    ($($name:literal,)*) => {
        &[$(($name, include_str!(concat!("scenarios/response/", $name, ".json")))),*]
    };
}

const SCENARIOS: &[(&str, &str)] = scenarios![
    "json_duplicates",
    "json_error",
    "json_held_cap",
    "json_held_cap_late",
    "json_held_exactly",
    "json_held_one_more",
    "json_pretty",
    "json_trailing",
    "sse_all_capped",
    "sse_bom_and_comments",
    "sse_continuous",
    "sse_continuous_late",
    "sse_dropped_late",
    "sse_dropped_then_passed",
    "sse_error_event",
    "sse_error_frame",
    "sse_held_cap",
    "sse_held_exactly",
    "sse_held_one_more",
    "sse_no_blank_line",
    "sse_no_prompt_tokens",
    "sse_not_asked",
    "sse_not_asked_finish_frame",
    "sse_not_asked_inactive",
    "sse_oversize_event",
    "sse_read_capped",
    "sse_scrub",
    "sse_several_data_lines",
    "sse_usage_frame",
    "sse_usage_frame_late",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    #[serde(rename = "about")]
    _about: String,
    kind: Kind,
    answer: Expected,
    answer_at: Moment,
    #[serde(default)]
    drop_usage_only: bool,
    #[serde(default)]
    scrub: bool,
    #[serde(default = "plenty")]
    event_bytes_max: usize,
    #[serde(default = "plenty")]
    held_bytes_max: usize,
    input: String,
    expected: String,
    completion: Facts,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Sse,
    Json,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Moment {
    Before,
    AfterEnd,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Expected {
    Split(Shown),
    Inactive(Inactive),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Inactive {
    Inactive,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
struct Shown {
    read: u64,
    #[serde(flatten)]
    creation: TierTokens,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    usage_seen: bool,
    error_seen: bool,
    done: bool,
    prompt_tokens: Option<u64>,
    shown: Option<Shown>,
    cap: String,
    oversize_events: u64,
    released_unedited: u64,
}

fn plenty() -> usize {
    1 << 20
}

/// Runs a scenario in the given pieces.
fn run<'a>(scenario: &Scenario, pieces: impl Iterator<Item = &'a [u8]>) -> (String, Facts) {
    let options = RewriteOptions {
        api: prompt_cache_core::api::Api::Chat,
        kind: match scenario.kind {
            Kind::Sse => BodyKind::Sse,
            Kind::Json => BodyKind::Json,
        },
        drop_usage_only: scenario.drop_usage_only,
        event_bytes_max: scenario.event_bytes_max,
        held_bytes_max: scenario.held_bytes_max,
        scrub: scenario.scrub,
    };
    let answer = match scenario.answer {
        Expected::Split(Shown { read, creation }) => Answer::Split(Split { read, creation }),
        Expected::Inactive(Inactive::Inactive) => Answer::Inactive,
    };
    let before = scenario.answer_at == Moment::Before;
    let mut rewriter = Rewriter::new(options, before.then_some(answer));
    let mut out = Vec::new();
    for piece in pieces {
        match rewriter.push(piece) {
            Output::Unchanged => out.extend_from_slice(piece),
            Output::Replace(bytes) => out.extend(bytes),
        }
    }
    if let Output::Replace(bytes) = rewriter.end() {
        out.extend(bytes);
    }
    if !before {
        out.extend(rewriter.answer(answer));
    }
    let completion = rewriter.completion();
    let facts = Facts {
        usage_seen: completion.usage_seen(),
        error_seen: completion.error_seen(),
        done: completion.done(),
        prompt_tokens: completion.prompt_tokens(),
        shown: completion
            .shown()
            .map(|Split { read, creation }| Shown { read, creation }),
        cap: match completion.cap() {
            Cap::None => "none",
            Cap::Read => "read",
            Cap::All => "all",
        }
        .to_owned(),
        oversize_events: completion.oversize_events(),
        released_unedited: completion.released_unedited(),
    };
    (String::from_utf8(out).unwrap(), facts)
}

#[test]
fn scenarios_come_out_as_written_in_any_pieces() {
    for (name, text) in SCENARIOS {
        let scenario: Scenario = serde_json::from_str(text).expect(name);
        let input = scenario.input.as_bytes();
        for size in 1..=input.len() {
            let (out, facts) = run(&scenario, input.chunks(size));
            assert_eq!(out, scenario.expected, "{name} in pieces of {size}");
            assert_eq!(facts, scenario.completion, "{name} in pieces of {size}");
        }
    }
}

#[test]
#[cfg(not(target_family = "wasm"))]
fn every_scenario_file_is_run() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/response");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let known: Vec<_> = SCENARIOS
        .iter()
        .map(|(name, _)| format!("{name}.json"))
        .collect();
    assert_eq!(files, known);
}
