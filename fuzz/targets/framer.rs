//! Any event stream in any chunks, the answer at any moment: what leaves is the reference's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prompt_cache_core::response::BodyKind;
use prompt_cache_fuzz::{
    input::{INPUT_BYTES_MAX, Knobs},
    response_reference::rewrite,
    setup::Setup,
};

fuzz_target!(|input: &[u8]| {
    if input.len() > INPUT_BYTES_MAX {
        return;
    }
    let (body, mut knobs) = Knobs::split(input);
    let setup = Setup::new(BodyKind::Sse, &mut knobs);
    let expected = rewrite(body, setup.options, setup.answer, setup.late);
    setup.same(&setup.run(body), &expected);
    setup.run_answered_inside(body);
});
