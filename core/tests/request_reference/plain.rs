//! The plain way to do what the one pass does: a `serde_json::Value` of the body.

use prompt_cache_core::request::{Edits, Opaque};
use serde_json::{Value, json};

/// What `serde_json` thinks of a body, in our terms.
pub fn expected(body: &[u8]) -> Option<Opaque> {
    match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(serde_json::Value::Object(_)) => None,
        Ok(_) => Some(Opaque::NotObject),
        Err(_) if std::str::from_utf8(body).is_err() => Some(Opaque::NotUtf8),
        Err(error) if error.to_string().contains("recursion limit") => Some(Opaque::TooDeep),
        Err(_) => Some(Opaque::NotJson),
    }
}

/// The plain way: parse, delete what is a marker, set what is to be set.
pub fn edited(body: &[u8], edits: &Edits<'_>) -> Value {
    let mut value: Value = serde_json::from_slice(body).unwrap();
    if edits.ensure_usage && value["stream"] == json!(true) {
        match &mut value["stream_options"] {
            Value::Object(options) => {
                options.insert("include_usage".into(), json!(true));
            }
            Value::Null => value["stream_options"] = json!({"include_usage": true}),
            _ => {}
        }
    }
    if let Some(salt) = edits.cache_salt {
        value["cache_salt"] = json!(salt);
    }
    delete(&mut value);
    value
}

/// Deletes markers, `null` ones too: with duplicates, which of them is `null` is not what this
/// property is about.
pub fn delete(body: &mut Value) {
    fn remove(value: &mut Value, names: &[&str]) {
        if let Value::Object(members) = value {
            names.iter().for_each(|name| drop(members.remove(*name)));
        }
    }
    fn each(value: Option<&mut Value>, visit: impl FnMut(&mut Value)) {
        value
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
            .for_each(visit);
    }
    remove(body, &["cache_control", "prompt_cache_options"]);
    each(body.get_mut("tools"), |tool| {
        remove(tool, &["cache_control"])
    });
    each(body.get_mut("messages"), |message| {
        remove(message, &["cache_control"]);
        let part_markers = ["cache_control", "prompt_cache_breakpoint"];
        each(message.get_mut("content"), |part| {
            remove(part, &part_markers)
        });
        each(message.get_mut("tool_calls"), |call| {
            remove(call, &["cache_control"])
        });
    });
}
