//! Any usage object, in a frame and in a body: the members that are ours are set or scrubbed,
//! the others keep their bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prompt_cache_core::{
    ledger::Split,
    response::{Answer, BodyKind},
};
use prompt_cache_fuzz::{
    input::{INPUT_BYTES_MAX, Knobs},
    response_reference::rewrite,
    setup::Setup,
};
use serde_json::{Map, Value, json};

/// The plain way to edit a usage object.
fn edit(usage: &mut Map<String, Value>, answer: Answer, scrub: bool) {
    let details = usage.get_mut("prompt_tokens_details");
    match answer {
        Answer::Split(split) => {
            let prompt_tokens = usage.get("prompt_tokens").and_then(Value::as_u64);
            let Split { read, creation } = prompt_tokens.map_or(split, |it| split.capped(it).0);
            let counts = json!({
                "cache_read_input_tokens": read,
                "cache_creation_input_tokens": creation.total(),
            });
            let tiers = json!({
                "ephemeral_5m_input_tokens": creation.five_minutes,
                "ephemeral_1h_input_tokens": creation.one_hour,
                "ephemeral_24h_input_tokens": creation.day,
            });
            let details = json!({
                "cached_tokens": read,
                "cache_write_tokens": creation.total(),
            });
            set(usage, &counts);
            for (name, members) in [
                ("cache_creation", tiers),
                ("prompt_tokens_details", details),
            ] {
                let mut inner = match usage.get(name) {
                    Some(Value::Object(inner)) => inner.clone(),
                    _ => Map::new(),
                };
                set(&mut inner, &members);
                usage.insert(name.to_owned(), Value::Object(inner));
            }
        }
        Answer::Inactive if scrub => {
            if let Some(Value::Object(details)) = details {
                details.remove("cached_tokens");
                details.remove("cache_write_tokens");
            }
            usage.remove("cache_read_input_tokens");
            usage.remove("cache_creation_input_tokens");
            usage.remove("cache_creation");
        }
        Answer::Inactive => {}
    }
}

fn set(object: &mut Map<String, Value>, members: &Value) {
    for (name, value) in members.as_object().unwrap() {
        object.insert(name.clone(), value.clone());
    }
}

fuzz_target!(|input: &[u8]| {
    if input.len() > INPUT_BYTES_MAX {
        return;
    }
    let (usage, mut knobs) = Knobs::split(input);
    let mut json = Setup::new(BodyKind::Json, &mut knobs);
    json.options.held_bytes_max = 1 << 18;
    let body = [b"{\"usage\":", usage, b"}"].concat();
    let found = json.run(&body);

    let mut sse = Setup::new(BodyKind::Sse, &mut knobs);
    let frame = [b"data: {\"choices\":[],\"usage\":", usage, b"}\n\n"].concat();
    let expected = rewrite(&frame, sse.options, sse.answer, sse.late);
    sse.same(&sse.run(&frame), &expected);
    sse.options.drop_usage_only = false;
    sse.run_answered_inside(&frame);

    let Ok(Value::Object(mut wanted)) = serde_json::from_slice(usage) else {
        return;
    };
    json.same(
        &found,
        &rewrite(&body, json.options, json.answer, json.late),
    );
    edit(&mut wanted, json.answer, json.options.scrub);
    let found: Value = serde_json::from_slice(&found.body).unwrap();
    assert_eq!(found, json!({ "usage": wanted }));
});
