//! What is forwarded is the body without its markers and with the edits, to the byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prompt_cache_core::request::{Edits, scan};
use prompt_cache_fuzz::{
    exact,
    input::{INPUT_BYTES_MAX, Knobs},
    request_reference::plain::{delete, edited},
};
use serde_json::Value;

const SALTS: [Option<&str>; 4] = [None, Some("s"), Some("\"\\\u{1f}é"), Some("")];

fuzz_target!(|input: &[u8]| {
    if input.len() > INPUT_BYTES_MAX {
        return;
    }
    let (body, mut knobs) = Knobs::split(input);
    let Ok(request) = scan(body) else { return };
    let flags = knobs.byte();
    let edits = Edits {
        ensure_usage: flags & 1 == 0,
        cache_salt: SALTS[usize::from(flags >> 1) % SALTS.len()],
    };
    for edits in [Edits::default(), edits] {
        let forwarded = request.forwarded(&edits);
        let text = std::str::from_utf8(body).unwrap();
        let exactly = exact::forwarded(text, &edits);
        assert_eq!(forwarded.is_none(), exactly == text);
        let forwarded = forwarded.unwrap_or_else(|| body.to_vec());
        assert_eq!(String::from_utf8_lossy(&forwarded), exactly);

        let mut parsed: Value = serde_json::from_slice(&forwarded).unwrap();
        delete(&mut parsed);
        assert_eq!(parsed, edited(body, &edits));

        let again = scan(&forwarded).unwrap();
        assert_eq!(again.forwarded(&edits), None);
        assert!(!again.marked());
    }
});
