//! What holds for any body that is accepted, whatever it says.

use prompt_cache_core::{
    ledger::{MAX_BREAKPOINTS, Tier},
    request::{Edits, Implied, MarkerRules, MixedTtlOrder, RefusalReason, scan},
};

/// Everything a body can be asked, with the checks that hold for any accepted body. Returns
/// whether it is accepted.
pub fn exercise(body: &[u8]) -> bool {
    let parsed = serde_json::from_slice::<serde_json::Value>(body);
    let Ok(request) = scan(body) else {
        assert!(!parsed.is_ok_and(|value| value.is_object()));
        return false;
    };
    let parsed = parsed.expect("serde_json reads what we read");
    assert_eq!(request.model(), parsed["model"].as_str());
    assert_eq!(request.stream(), parsed["stream"] == true);

    let edits = Edits {
        ensure_usage: true,
        cache_salt: Some("s"),
    };
    for edits in [Edits::default(), edits] {
        if let Some(out) = request.forwarded(&edits) {
            let again = scan(&out).expect("what is forwarded is a body");
            assert_eq!(again.forwarded(&edits), None);
            assert!(!again.marked());
            assert_eq!(again.block_count(), request.block_count());
            assert_eq!(
                again.prefix_hashes(&[], u32::MAX),
                request.prefix_hashes(&[], u32::MAX)
            );
        }
    }
    let hashes = request.prefix_hashes(&["documents".to_owned()], u32::MAX);
    assert_eq!(hashes.len(), request.block_count());
    for block in 0..request.block_count() {
        assert!(request.block_text(block).is_some());
    }
    assert_eq!(request.block_text(request.block_count()), None);

    for order in [MixedTtlOrder::Any, MixedTtlOrder::LongestFirst] {
        let tiers = [Tier::FiveMinutes, Tier::OneHour];
        let rules = MarkerRules {
            tiers: &tiers,
            default_tier: Tier::FiveMinutes,
            mixed_ttl_order: order,
            implied: Implied::Nothing,
        };
        match request.breakpoints(&rules) {
            Ok(points) => {
                assert!(points.len() <= MAX_BREAKPOINTS);
                assert!(points.is_sorted_by(|a, b| a.block < b.block));
                assert!(
                    points
                        .iter()
                        .all(|point| (point.block as usize) < request.block_count())
                );
                assert!(points.is_empty() || request.marked());
            }
            Err(refusal) => {
                assert!(request.marked());
                assert!(RefusalReason::ALL.contains(&refusal.reason));
                assert!(refusal.message.len() < 1000 && refusal.param.len() < 100);
                serde_json::from_slice::<serde_json::Value>(&refusal.to_json()).unwrap();
            }
        }
    }
    true
}
