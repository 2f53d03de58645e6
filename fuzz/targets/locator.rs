//! Any JSON body, or what is none, in any chunks: only a top-level `usage` changes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prompt_cache_core::response::{BodyKind, RewriteOptions};
use prompt_cache_fuzz::{
    input::{INPUT_BYTES_MAX, Knobs},
    response_reference::{may_be_capped, rewrite, text::readable},
    setup::Setup,
};

fuzz_target!(|input: &[u8]| {
    if input.len() > INPUT_BYTES_MAX {
        return;
    }
    let (body, mut knobs) = Knobs::split(input);
    let mut setup = Setup::new(BodyKind::Json, &mut knobs);
    // Under a tight cap the result depends on it, never on the chunks.
    let capped = setup.run(body);
    assert!(may_be_capped(&capped, body, setup.options, setup.answer));
    setup.run_answered_inside(body);

    setup.options = RewriteOptions {
        held_bytes_max: 1 << 18,
        ..setup.options
    };
    let mut expected = rewrite(body, setup.options, setup.answer, setup.late);
    let mut found = setup.run(body);
    if !readable(body) {
        found.error_seen = false;
        expected.error_seen = false;
    }
    setup.same(&found, &expected);
});
