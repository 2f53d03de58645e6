//! The classification, end to end over HTTP.

use prompt_cache_core::ledger::{Split, Tier, TierTokens};
use prompt_cache_core::wire::{ClassifyAnswer, Uncached};

use crate::harness::{H1, M5, chat, request, start, text};

fn split(read: u64, five_minutes: u64, one_hour: u64) -> Split {
    Split {
        read,
        creation: TierTokens {
            five_minutes,
            one_hour,
            day: 0,
        },
    }
}

#[test]
fn a_prefix_is_written_once_and_read_without_the_prompt() {
    let running = start("");
    let body = chat(&[&text(40)]);
    let asked = request(1, &body, &[(0, M5)]);
    assert_eq!(running.ask(&asked), ClassifyAnswer::TextNeeded { read: 0 });
    let first = running.exchange(&asked, &body);
    assert_eq!(first.split, split(0, 40, 0));
    // Nothing but hashes travels now.
    let ClassifyAnswer::Ok(second) = running.ask(&asked) else {
        panic!("known prefix")
    };
    assert_eq!(second.split, split(40, 0, 0));
    assert_eq!(second.writes, []);
    assert_eq!(second.tokenizer_version, first.tokenizer_version);
}

#[test]
fn an_uncommitted_classification_writes_nothing() {
    let running = start("");
    let body = chat(&[&text(40)]);
    let asked = request(1, &body, &[(0, M5)]);
    assert_eq!(running.classify(&asked, &body).split, split(0, 40, 0));
    assert_eq!(running.ask(&asked), ClassifyAnswer::TextNeeded { read: 0 });
}

#[test]
fn a_growing_conversation_pays_for_what_is_new() {
    let running = start("");
    let texts: Vec<String> = [30, 25, 12, 50, 11].map(text).into();
    let mut before = 0;
    for turns in 1..=texts.len() {
        let body = chat(
            &texts[..turns]
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        );
        let asked = request(1, &body, &[(turns as u32 - 1, H1)]);
        let total: u64 = [30, 25, 12, 50, 11][..turns].iter().sum();
        assert_eq!(
            running.exchange(&asked, &body).split,
            split(before, 0, total - before)
        );
        before = total;
    }
}

#[test]
fn the_floor_passes_tokens_on_and_equality_passes() {
    let running = start("");
    for (sizes, expected, writes) in [
        ([9, 4, 7], split(0, 13, 7), vec![13, 20]),
        ([10, 4, 7], split(0, 4, 17), vec![10, 14, 21]),
        ([2, 3, 4], split(0, 0, 0), vec![]),
        ([2, 3, 5], split(0, 0, 10), vec![10]),
    ] {
        let texts = sizes.map(text);
        let body = chat(&[&texts[0], &texts[1], &texts[2]]);
        let asked = request(1, &body, &[(0, H1), (1, M5), (2, H1)]);
        let classified = running.classify(&asked, &body);
        assert_eq!(classified.split, expected, "{sizes:?}");
        let tokens: Vec<u32> = classified.writes.iter().map(|write| write.tokens).collect();
        assert_eq!(tokens, writes, "{sizes:?}");
    }
}

#[test]
fn principals_and_models_share_nothing() {
    let running = start(
        "models: [{model: demo, encoding: o200k_base, min_prefix_tokens: 1}, \
         {model: other, encoding: o200k_base, min_prefix_tokens: 1}]",
    );
    let body = chat(&[&text(40)]);
    let mine = request(1, &body, &[(0, M5)]);
    running.exchange(&mine, &body);
    let theirs = request(2, &body, &[(0, M5)]);
    assert_eq!(running.ask(&theirs), ClassifyAnswer::TextNeeded { read: 0 });
    let mut other = mine.clone();
    other.model = "other".to_owned();
    assert_eq!(running.ask(&other), ClassifyAnswer::TextNeeded { read: 0 });
    assert!(matches!(running.ask(&mine), ClassifyAnswer::Ok(_)));
}

#[test]
fn an_entry_lives_for_its_tier_and_no_longer() {
    let running = start("");
    let body = chat(&[&text(40)]);
    let asked = request(1, &body, &[(0, M5)]);
    running.exchange(&asked, &body);
    running.clock.advance(M5.duration_ms());
    assert_eq!(running.ask(&asked), ClassifyAnswer::TextNeeded { read: 0 });
}

#[test]
fn reading_extends_the_life_by_the_stored_tier() {
    let running = start("");
    let body = chat(&[&text(40)]);
    let written = request(1, &body, &[(0, M5)]);
    running.exchange(&written, &body);
    // The marker of the reader asks for an hour: reading never changes a tier.
    let read = request(1, &body, &[(0, H1)]);
    running.clock.advance(M5.duration_ms() - 1);
    assert!(matches!(running.ask(&read), ClassifyAnswer::Ok(_)));
    running.flush();
    running.clock.advance(M5.duration_ms() - 1);
    assert!(matches!(running.ask(&read), ClassifyAnswer::Ok(_)));
    running.flush();
    running.clock.advance(M5.duration_ms());
    assert_eq!(running.ask(&read), ClassifyAnswer::TextNeeded { read: 0 });
}

#[test]
fn a_refresh_that_gains_under_a_percent_is_skipped() {
    let running = start("");
    let body = chat(&[&text(40)]);
    let asked = request(1, &body, &[(0, M5)]);
    running.exchange(&asked, &body);
    for (wait_ms, skipped, written) in [(2999, 1.0, 0.0), (1, 1.0, 1.0), (2999, 2.0, 1.0)] {
        running.clock.advance(wait_ms);
        running.ask(&asked);
        running.flush();
        let count = |outcome: &str| {
            running.metric(&format!(
                "prompt_cache_index_refreshes_total{{outcome=\"{outcome}\"}}"
            ))
        };
        assert_eq!(
            (count("skipped"), count("written")),
            (skipped, written),
            "{wait_ms}"
        );
    }
}

#[test]
fn live_breakpoints_above_the_hit_are_refreshed_and_others_are_not() {
    let running = start("");
    let texts = [text(20), text(20), text(20)];
    let body = chat(&[&texts[0], &texts[1], &texts[2]]);
    running.exchange(&request(1, &body, &[(0, M5), (1, M5), (2, M5)]), &body);
    running.clock.advance(M5.duration_ms() - 1);
    // Blocks 0 and 2 are breakpoints of this request, block 1 is only a candidate.
    running.ask(&request(1, &body, &[(0, M5), (2, M5)]));
    running.flush();
    running.clock.advance(1);
    let reads = |block: u32| match running.ask(&request(1, &body, &[(block, M5)])) {
        ClassifyAnswer::Ok(classified) => classified.split.read,
        _ => 0,
    };
    // Asking for block 1 alone finds block 0 before it: a hit, but one that needs the prompt.
    assert_eq!((reads(0), reads(1), reads(2)), (20, 0, 60));
}

#[test]
fn what_is_not_served_is_inactive() {
    let known = "ab".repeat(32);
    let running = start(&format!(
        "models: [{{model: demo, encoding: o200k_base}}]\nunknown_principal: inactive\n\
         principals: [{{fingerprint: {known}}}]"
    ));
    let body = chat(&["hello"]);
    let mut asked = request(0xab, &body, &[(0, M5)]);
    assert_eq!(running.ask(&asked), ClassifyAnswer::TextNeeded { read: 0 });
    asked.principal = crate::harness::principal(1);
    let refused = ClassifyAnswer::Inactive {
        reason: Uncached::UnknownPrincipal,
    };
    assert_eq!(running.ask(&asked), refused);
    assert_eq!(running.ask_with_text(&asked, &body), refused);
    asked.model = "nobody-configured-this".to_owned();
    let unknown = ClassifyAnswer::Inactive {
        reason: Uncached::UnknownModel,
    };
    assert_eq!(running.ask(&asked), unknown);
    let metrics = running.get("/metrics", &[]).body;
    assert!(
        !metrics.contains("nobody-configured-this"),
        "only configured models are labels"
    );
}

#[test]
fn an_empty_block_costs_nothing_and_the_tokens_of_blocks_add_up() {
    let running = start("");
    let body = serde_json::to_vec(&serde_json::json!({"model": "demo", "messages": [
        {"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:,x"}},
            {"type": "text", "text": text(15)},
        ]},
        {"role": "assistant", "content": null},
        {"role": "user", "content": text(7)},
    ]}))
    .unwrap();
    let asked = request(1, &body, &[(1, M5), (3, H1)]);
    assert_eq!(running.classify(&asked, &body).split, split(0, 15, 7));
}

#[test]
fn too_slow_a_count_keeps_the_read_and_writes_nothing() {
    let running = start("limits: {tokenize_timeout_ms: 1}");
    let long: String = (0..200_000).map(|n| format!("{n} ")).collect();
    let body = chat(&[&text(20), &long]);
    // The first block's entry comes from a commit: even its count may take over a millisecond.
    let asked = request(1, &body, &[(0, M5), (1, Tier::OneHour)]);
    let version = running
        .service
        .models
        .get("demo")
        .unwrap()
        .policy
        .tokenizer_version
        .clone();
    running.commit(vec![prompt_cache_core::wire::Commit {
        principal: asked.principal,
        model: asked.model.clone(),
        tokenizer_version: version,
        age_ms: 0,
        prompt_tokens: None,
        counted_prompt_tokens: None,
        writes: vec![prompt_cache_core::ledger::NewEntry {
            hash: asked.candidates[0].hash,
            tokens: 20,
            tier: M5,
        }],
    }]);
    running.clock.advance(200_000);
    let classified = running.classify(&asked, &body);
    assert_eq!(classified.split, split(20, 0, 0));
    assert_eq!(classified.writes, []);
    running.flush();
    running.clock.advance(200_000);
    let alone = request(1, &body, &[(0, M5)]);
    assert!(
        matches!(running.ask(&alone), ClassifyAnswer::Ok(_)),
        "the read was refreshed"
    );
    assert!(running.metric("prompt_cache_index_tokenize_total{outcome=\"timeout\"}") >= 1.0);
}
