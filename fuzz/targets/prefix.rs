//! Hashes and texts of the blocks are those of the second implementation; another spelling
//! changes neither, another prompt changes the hashes from there on.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use prompt_cache_core::{
    PrefixHash,
    request::{ChatRequest, scan},
};
use prompt_cache_fuzz::{
    facts,
    input::{INPUT_BYTES_MAX, Knobs, tree},
    request_reference::prefix::{model, mutate, reference, rephrased},
    request_support::{
        Carrier, Dice, Json, Object, Style, compact, each_carrier, print, without_markers,
    },
};

fn texts(request: &ChatRequest<'_>) -> Vec<String> {
    let blocks = 0..request.block_count();
    blocks
        .map(|block| request.block_text(block).unwrap().into_owned())
        .collect()
}

/// Of members that occur twice where their order is nothing, the last.
fn without_overridden(mut tree: Json) -> Json {
    each_carrier(&mut tree, &mut |carrier, members| {
        if carrier != Carrier::ToolOrCall {
            let mut seen = BTreeSet::new();
            members.reverse();
            members.retain(|(name, _)| seen.insert(name.clone()));
            members.reverse();
        }
    });
    tree
}

fuzz_target!(|input: &[u8]| {
    if input.len() > INPUT_BYTES_MAX {
        return;
    }
    let (body, mut knobs) = Knobs::split(input);
    let Ok(request) = scan(body) else { return };
    let tree = tree(std::str::from_utf8(body).unwrap());
    let mut params = vec!["documents".to_owned(), "reasoning_effort".to_owned()];
    if let Object(members) = &tree {
        let at = usize::from(knobs.byte()) % members.len().max(1);
        params.extend(members.get(at).map(|(name, _)| name.clone()));
    }
    let hashes = request.prefix_hashes(&params, u32::MAX);
    let ours = model(&tree, &params);
    assert_eq!(hashes, reference(&ours));
    let wanted: Vec<_> = ours.1.iter().map(facts::text).collect();
    assert_eq!(texts(&request), wanted);
    let some = usize::from(knobs.byte());
    let first = request.prefix_hashes(&params, some as u32);
    assert_eq!(first, hashes[..hashes.len().min(some + 1)]);

    // A marker's name may have become that of a parameter: it is none wherever it is a marker.
    let plain = without_overridden(without_markers(&tree, true));
    let style = Style {
        space: Some(knobs.seed()),
        escapes: Some(knobs.seed()),
    };
    let other = print(&rephrased(&plain, knobs.seed()), style);
    let other = scan(&other).unwrap();
    assert_eq!(other.prefix_hashes(&params, u32::MAX), hashes);
    assert_eq!(texts(&other), wanted);

    let mut mutant = plain;
    mutate(&mut mutant, &mut Dice::new(knobs.seed()));
    let other = compact(&mutant);
    // A number may have left the range of numbers, an object may have become something else.
    let Ok(other) = scan(&other) else { return };
    let theirs = model(&mutant, &params);
    let same_start = ours.0 == theirs.0;
    let others: Vec<PrefixHash> = other.prefix_hashes(&params, u32::MAX);
    for (i, (one, two)) in hashes.iter().zip(&others).enumerate() {
        assert_eq!(one == two, same_start && ours.1[..=i] == theirs.1[..=i]);
    }
});
