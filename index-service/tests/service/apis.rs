//! Prompts of every API: counted in their chat form, or as they are, by the blocks of the filter.

use prompt_cache_core::api::Api;
use prompt_cache_core::wire::ClassifyAnswer;
use serde_json::{Value, json};

use crate::harness::{H1, M5, Running, request_as, start, text};

/// For each API a prompt whose blocks count 100, 20 and 7 tokens, as far as it has three.
fn prompts() -> Vec<(Api, Value, &'static [u64])> {
    let [long, short, last] = [100, 20, 7].map(text);
    vec![
        (
            Api::Chat,
            json!({"messages": [
                {"role": "system", "content": long},
                {"role": "user", "content": [{"type": "text", "text": short}, {"type": "text", "text": last}]},
            ]}),
            &[100, 120, 127],
        ),
        (
            Api::Messages,
            json!({"system": long, "messages": [
                {"role": "assistant", "content": [{"type": "thinking", "thinking": ""}, {"type": "text", "text": short}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": last}]},
            ]}),
            &[100, 100, 120, 127],
        ),
        (
            Api::Responses,
            json!({"instructions": long, "input": [
                {"type": "item_reference", "id": "i"},
                {"role": "assistant", "content": [{"type": "output_text", "text": short}]},
                {"type": "function_call_output", "call_id": "c", "output": last},
            ]}),
            &[100, 100, 120, 127],
        ),
        (Api::Responses, json!({ "input": text(127) }), &[127]),
        (Api::Completions, json!({"prompt": text(127)}), &[127]),
        (
            Api::Completions,
            json!({"prompt": [text(100), text(27)], "messages": []}),
            &[127],
        ),
        (Api::Completions, json!({"prompt": vec![1; 127]}), &[127]),
    ]
}

/// The splits of a first request and of the same one after its commit.
fn exchange(running: &Running, api: Api, body: &[u8], cumulative: &[u64]) {
    let last = u32::try_from(cumulative.len() - 1).unwrap();
    let marks = if last == 0 {
        vec![(0, M5)]
    } else {
        vec![(0, H1), (last, M5)]
    };
    let asked = request_as(api, 1, body, &marks);
    let first = running.exchange(&asked, body);
    assert_eq!(first.split.read, 0, "{api:?}");
    let long = if last == 0 { 0 } else { cumulative[0] };
    let all = cumulative[cumulative.len() - 1];
    assert_eq!(first.split.creation.get(H1), long, "{api:?}");
    assert_eq!(first.split.creation.get(M5), all - long, "{api:?}");
    assert_eq!(first.counted_prompt_tokens, Some(all), "{api:?}");
    let again = running.classify(&asked, body);
    assert_eq!((again.split.read, again.split.creation.total()), (all, 0));
}

#[test]
fn a_prompt_of_every_api_is_written_and_read() {
    for (api, mut body, cumulative) in prompts() {
        body["model"] = "demo".into();
        let body = serde_json::to_vec(&body).unwrap();
        exchange(&start(""), api, &body, cumulative);
    }
}

/// Every block is counted where the filter says it is, whichever is asked for.
#[test]
fn each_block_of_a_prompt_counts_up_to_its_end() {
    for (api, body, cumulative) in prompts() {
        let running = start("");
        let body = serde_json::to_vec(&body).unwrap();
        for (block, tokens) in (0..).zip(cumulative) {
            let asked = request_as(api, block as u8, &body, &[(block, M5)]);
            let classified = running.classify(&asked, &body);
            let created = classified.split.creation.get(M5);
            assert_eq!(created, *tokens, "{api:?} {block}");
        }
    }
}

#[test]
fn a_body_that_is_no_request_of_its_api_is_refused() {
    let running = start("");
    for (api, body, cumulative) in prompts() {
        let body = serde_json::to_vec(&body).unwrap();
        let asked = request_as(api, 1, &body, &[(0, M5)]);
        for wrong in [&b"[]"[..], b"{", b"\xff", b"{}"] {
            assert_eq!(running.post_text(&asked, wrong).status, 400, "{api:?}");
        }
        // A block beyond the last.
        let beyond = u32::try_from(cumulative.len()).unwrap();
        let asked = request_as(api, 1, &body, &[(beyond, M5)]);
        assert_eq!(running.post_text(&asked, &body).status, 400, "{api:?}");
    }
}

/// As many blocks as a request may have: the answer is a split, in time.
#[test]
fn a_prompt_of_very_many_blocks_is_counted() {
    const BLOCKS: usize = 1 << 16;
    let call = json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"});
    let part = json!({"type": "input_text", "text": "a"});
    let thought = json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]});
    let said = json!({"role": "assistant", "content": "a"});
    let told = json!({"role": "developer", "content": "a"});
    let table = [
        (Api::Responses, json!({"input": vec![call; BLOCKS]})),
        (Api::Responses, json!({"input": vec![thought; BLOCKS]})),
        (Api::Responses, json!({"input": vec![said; BLOCKS]})),
        (Api::Responses, json!({"input": vec![told; BLOCKS]})),
        (Api::Responses, json!({"input": vec!["a"; BLOCKS]})),
        (
            Api::Responses,
            json!({"input": [{"role": "user", "content": vec![part; BLOCKS]}]}),
        ),
    ];
    let running = start("limits: {tokenize_timeout_ms: 60000, request_timeout_ms: 120000}");
    for (tenant, (api, body)) in (0..).zip(table) {
        let body = serde_json::to_vec(&body).unwrap();
        let last = BLOCKS as u32 - 1;
        let asked = request_as(api, tenant, &body, &[(0, M5), (last, M5)]);
        let answer = running.ask_with_text(&asked, &body);
        assert!(matches!(answer, ClassifyAnswer::Ok(_)), "{answer:?}");
    }
}
