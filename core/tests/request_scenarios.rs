//! Runs `tests/scenarios/request/*.json`: body and rules in, breakpoints or refusal and the
//! forwarded body out.
//!
//! The files are compiled in, so that the same cases run where there is no file system.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use prompt_cache_core::{
    api::Api,
    ledger::{Breakpoint, Tier},
    request::{Edits, Implied, MarkerRules, MixedTtlOrder, scan_as},
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// One case of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario<'a> {
    /// What it shows.
    name: String,
    #[serde(default)]
    api: Api,
    /// The request, byte for byte.
    #[serde(borrow)]
    body: &'a RawValue,
    #[serde(default)]
    tiers: Option<Vec<Tier>>,
    #[serde(default)]
    default_tier: Option<Tier>,
    #[serde(default)]
    mixed_ttl_order: MixedTtlOrder,
    /// The model's tier of automatic caching.
    #[serde(default)]
    auto: Option<Tier>,
    /// What `?cacheBreakpoint=lastUserMessage` does.
    #[serde(default)]
    last_user_message: bool,
    /// Whether a marker is in effect; by default, whether there is a breakpoint or refusal.
    #[serde(default)]
    marked: Option<bool>,
    /// `[[block, tier], …]`
    #[serde(default)]
    breakpoints: Option<Vec<(u32, Tier)>>,
    #[serde(default)]
    refusal: Option<ExpectedRefusal>,
    /// The forwarded body, byte for byte; absent: not checked.
    #[serde(borrow, default)]
    forwarded: Option<&'a RawValue>,
}

#[derive(Deserialize, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
struct ExpectedRefusal {
    message: String,
    param: String,
    reason: String,
}

fn run(scenario: &Scenario<'_>) {
    let name = &scenario.name;
    let request = scan_as(scenario.api, scenario.body.get().as_bytes()).expect(name);
    let tiers = scenario
        .tiers
        .clone()
        .unwrap_or(vec![Tier::FiveMinutes, Tier::OneHour]);
    let rules = MarkerRules {
        tiers: &tiers,
        default_tier: scenario.default_tier.unwrap_or(Tier::FiveMinutes),
        mixed_ttl_order: scenario.mixed_ttl_order,
        implied: match scenario.auto {
            Some(tier) => Implied::EveryTurn(tier),
            None if scenario.last_user_message => Implied::LastUserMessage,
            None => Implied::Nothing,
        },
    };
    let (points, refusal) = match request.breakpoints(&rules) {
        Ok(points) => (Some(points), None),
        Err(refusal) => {
            let body: Value = serde_json::from_slice(&refusal.to_json()).unwrap();
            let error = &body["error"];
            assert_eq!(error["message"], refusal.message.as_str(), "{name}");
            match scenario.api {
                Api::Chat | Api::Responses | Api::Completions => {
                    assert_eq!(error["code"], "invalid_cache_control", "{name}");
                    assert_eq!(error["param"], refusal.param.as_str(), "{name}");
                }
                Api::Messages => assert_eq!(body["type"], "error", "{name}"),
            }
            let reason = refusal.reason.as_str().to_owned();
            let (message, param) = (refusal.message, refusal.param);
            (
                None,
                Some(ExpectedRefusal {
                    message,
                    param,
                    reason,
                }),
            )
        }
    };
    let expected = scenario.breakpoints.as_ref().map(|points| {
        points
            .iter()
            .map(|&(block, tier)| Breakpoint { block, tier })
            .collect::<Vec<_>>()
    });
    assert_eq!(refusal, scenario.refusal, "{name}");
    assert_eq!(points, expected, "{name}");

    let marks = points.is_none_or(|points| !points.is_empty());
    assert_eq!(request.marked(), scenario.marked.unwrap_or(marks), "{name}");

    if let Some(expected) = scenario.forwarded {
        let got = request.forwarded(&Edits::default());
        let got = got.as_deref().unwrap_or(scenario.body.get().as_bytes());
        assert_eq!(String::from_utf8_lossy(got), expected.get(), "{name}");
    }
}

fn run_file(json: &str) {
    let scenarios: Vec<Scenario<'_>> = serde_json::from_str(json).unwrap();
    assert!(!scenarios.is_empty());
    scenarios.iter().for_each(run);
}

macro_rules! files {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run_file(include_str!(concat!("scenarios/request/", stringify!($name), ".json")));
        })*

        #[test]
        #[cfg(not(target_family = "wasm"))]
        fn every_file_is_run() {
            let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/request");
            let mut found: Vec<String> = std::fs::read_dir(directory)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            found.sort();
            assert_eq!(found, [$(concat!(stringify!($name), ".json")),*]);
        }
    };
}

files!(automatic completions duplicates implied messages openai order positions refusals responses);
