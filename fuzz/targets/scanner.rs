//! `scan` accepts exactly what `serde_json` reads as an object, and says the same of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prompt_cache_core::request::scan;
use prompt_cache_fuzz::{
    facts,
    input::INPUT_BYTES_MAX,
    request_reference::{consistent::exercise, plain::expected},
};
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    if body.len() > INPUT_BYTES_MAX {
        return;
    }
    let request = scan(body);
    assert_eq!(request.as_ref().err(), expected(body).as_ref());
    let Ok(request) = request else { return };

    let value: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(request.model(), value["model"].as_str());
    assert_eq!(request.stream(), value["stream"] == true);
    let asked = value["stream_options"]["include_usage"] == true;
    assert_eq!(request.asked_usage(), asked);
    assert_eq!(request.block_count(), facts::block_count(&value));
    assert_eq!(request.marked(), facts::marked(&value));
    assert!(exercise(body));
});
