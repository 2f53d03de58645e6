//! Any body as a request of each API: what is forwarded is the same prompt without markers, and
//! breakpoints are blocks of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prompt_cache_core::{
    api::Api,
    ledger::{MAX_BREAKPOINTS, Tier},
    request::{ChatRequest, Edits, Implied, MarkerRules, MixedTtlOrder, scan_as},
};
use prompt_cache_fuzz::input::{INPUT_BYTES_MAX, Knobs};

fn hashes(request: &ChatRequest<'_>) -> Vec<prompt_cache_core::PrefixHash> {
    request.prefix_hashes(&["documents".to_owned()], u32::MAX)
}

fuzz_target!(|input: &[u8]| {
    if input.len() > INPUT_BYTES_MAX {
        return;
    }
    let (body, mut knobs) = Knobs::split(input);
    let rules = MarkerRules {
        tiers: &Tier::ALL,
        default_tier: Tier::FiveMinutes,
        mixed_ttl_order: MixedTtlOrder::Any,
        implied: match knobs.byte() % 3 {
            0 => Implied::Nothing,
            1 => Implied::LastUserMessage,
            _ => Implied::EveryTurn(Tier::OneHour),
        },
    };
    for api in [Api::Chat, Api::Messages, Api::Responses, Api::Completions] {
        // Whether it is a request at all does not depend on the API, but for what is too much.
        let Ok(request) = scan_as(api, body) else {
            continue;
        };
        let prompt = hashes(&request);
        assert_eq!(prompt.len(), request.block_count());

        let forwarded = request.forwarded(&Edits::default());
        let bytes = forwarded.as_deref().unwrap_or(body);
        let plain = scan_as(api, bytes).unwrap();
        assert_eq!(plain.forwarded(&Edits::default()), None, "a marker is left");
        assert!(!plain.marked());
        assert_eq!(hashes(&plain), prompt);

        if let Ok(breakpoints) = request.breakpoints(&rules) {
            assert!(breakpoints.len() <= MAX_BREAKPOINTS);
            assert!(breakpoints.is_sorted_by(|a, b| a.block < b.block));
            assert!(
                breakpoints
                    .iter()
                    .all(|point| (point.block as usize) < prompt.len())
            );
            assert!(breakpoints.is_empty() || !request.prompt_elsewhere());
        }
        if let Some(steady) = request.without_volatile(&["x".to_owned()]) {
            let rest = scan_as(api, &steady.body).unwrap();
            assert!(steady.body.len() < body.len());
            assert_eq!(
                rest.block_count() + steady.left_out as usize,
                prompt.len(),
                "other blocks went"
            );
            assert_eq!(rest.without_volatile(&["x".to_owned()]), None);
        }
    }
});
