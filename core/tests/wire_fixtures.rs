//! Messages of every release so far, as its programs sent them (`tests/wire/`, recorded by
//! `tests/tests/wire.rs`): each must be understood for ever, to the last member. A member that is
//! renamed, removed or made required fails here.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use prompt_cache_core::api::Api;
use prompt_cache_core::edge::PolicyView;
use prompt_cache_core::wire::{
    ClassifyAnswer, ClassifyRequest, CommitAnswer, CommitBatch, Policy, WIRE_VERSION,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Each release that changed a message, oldest first; `smallest` has the required members alone.
const FIXTURES: &[(&str, &str)] = &[
    ("smallest", include_str!("wire/smallest.json")),
    ("a5123c0", include_str!("wire/a5123c0.json")),
    ("0.1.0", include_str!("wire/0.1.0.json")),
];

fn messages(kind: &str) -> impl Iterator<Item = (&'static str, Value)> {
    FIXTURES.iter().flat_map(move |(name, text)| {
        let mut fixture: Value = serde_json::from_str(text).unwrap();
        let Value::Array(messages) = fixture[kind].take() else {
            panic!("{name} has no {kind}");
        };
        assert!(!messages.is_empty(), "{name}: {kind}");
        messages.into_iter().map(move |message| (*name, message))
    })
}

/// Whether everything that `part` says is said by `whole`.
fn says(whole: &Value, part: &Value) -> Result<(), String> {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().try_for_each(|(name, value)| {
                let Some(found) = whole.get(name) else {
                    // What is left out where it is the default.
                    return match value {
                        Value::String(text) if text.is_empty() => Ok(()),
                        Value::Null => Ok(()),
                        Value::Number(number) if number.as_u64() == Some(0) => Ok(()),
                        Value::Array(items) if items.is_empty() => Ok(()),
                        _ => Err(format!("/{name} is lost")),
                    };
                };
                says(found, value).map_err(|why| format!("/{name}{why}"))
            })
        }
        (Value::Array(whole), Value::Array(part)) if whole.len() == part.len() => whole
            .iter()
            .zip(part)
            .try_for_each(|(whole, part)| says(whole, part)),
        _ if whole == part => Ok(()),
        _ => Err(format!(": {part} became {whole}")),
    }
}

fn grow(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(grow);
            members.insert("of a later release".to_owned(), json!([{"a": null}]));
        }
        Value::Array(items) => items.iter_mut().for_each(grow),
        _ => {}
    }
}

fn understands<T>(kind: &str, also: impl Fn(&str, &T))
where
    T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug,
{
    for (release, message) in messages(kind) {
        let text = message.to_string();
        let read: T = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{kind} of {release}: {error}: {text}"));
        let again = serde_json::to_value(&read).unwrap();
        says(&again, &message).unwrap_or_else(|why| panic!("{kind} of {release}: {why}: {text}"));
        also(&text, &read);
        let mut later = message;
        grow(&mut later);
        assert_eq!(serde_json::from_value::<T>(later).unwrap(), read, "{kind}");
    }
}

#[test]
fn classifications_of_every_release_are_understood() {
    understands("classify_requests", |text, request: &ClassifyRequest| {
        assert_eq!(request.v, WIRE_VERSION, "{text}");
    });
    understands("classify_answers", |text, answer: &ClassifyAnswer| {
        assert_eq!(&ClassifyAnswer::parse(text.as_bytes()).unwrap(), answer);
    });
}

#[test]
fn commits_of_every_release_are_understood() {
    understands("commit_batches", |text, batch: &CommitBatch| {
        assert_eq!(batch.v, WIRE_VERSION, "{text}");
    });
    understands("commit_answers", |_, _: &CommitAnswer| {});
}

#[test]
fn policies_of_every_release_are_understood() {
    understands("policies", |text, policy: &Policy| {
        let view = PolicyView::parse(text.as_bytes()).unwrap();
        for model in &policy.models {
            assert_eq!(view.model(&model.model), Some(model));
        }
    });
}

#[test]
fn the_smallest_messages_have_no_member_to_spare() {
    fn needs_all<T: DeserializeOwned>(kind: &str) {
        let (_, message) = messages(kind).next().unwrap();
        for name in message.as_object().unwrap().keys() {
            let mut less = message.clone();
            less.as_object_mut().unwrap().remove(name);
            assert!(serde_json::from_value::<T>(less).is_err(), "{kind}: {name}");
        }
    }
    needs_all::<ClassifyRequest>("classify_requests");
    needs_all::<ClassifyAnswer>("classify_answers");
    needs_all::<CommitBatch>("commit_batches");
    needs_all::<CommitAnswer>("commit_answers");
    needs_all::<Policy>("policies");
}

/// A service of the first release knows no other API, and no member of that name.
#[test]
fn the_first_api_is_not_named() {
    let (_, smallest) = messages("classify_requests").next().unwrap();
    let chat: ClassifyRequest = serde_json::from_value(smallest.clone()).unwrap();
    assert_eq!(serde_json::to_value(&chat).unwrap(), smallest);
    let other = ClassifyRequest {
        api: Api::Messages,
        ..chat
    };
    let named = serde_json::to_value(&other).unwrap();
    assert_eq!(named["api"], "messages");
}
