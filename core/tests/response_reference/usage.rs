//! The edit of usage objects, one replacement at a time.

use prompt_cache_core::{
    api::Api,
    ledger::Cap,
    response::{Answer, RewriteOptions},
};

use super::{
    Observed,
    text::{Node, named, object},
};

fn prompt_tokens(usage: &str, api: Api, before: Option<u64>) -> Option<u64> {
    match api {
        Api::Chat | Api::Completions => return number(usage, "prompt_tokens"),
        Api::Responses => return number(usage, "input_tokens"),
        Api::Messages => {}
    }
    let total = number(usage, "input_tokens").map(|input| {
        input
            + number(usage, "cache_read_input_tokens").unwrap_or(0)
            + number(usage, "cache_creation_input_tokens").unwrap_or(0)
    });
    match total {
        None | Some(0) => before.or(total),
        total => total,
    }
}

/// The member that holds another object with usage.
pub fn nested(api: Api) -> Option<&'static str> {
    match api {
        Api::Chat | Api::Completions => None,
        Api::Messages => Some("message"),
        Api::Responses => Some("response"),
    }
}

/// Usage objects at the top level of a text.
pub fn usages(text: &[u8]) -> usize {
    let members = object(text).unwrap_or_default();
    let usages = members
        .iter()
        .filter(|(key, _, node)| named(text, key, "usage") && matches!(node, Node::Object(_)));
    usages.count()
}

fn number(usage: &str, name: &str) -> Option<u64> {
    let members = object(usage.as_bytes())?;
    let (_, value, _) = members
        .iter()
        .rfind(|(key, _, _)| named(usage.as_bytes(), key, name))?;
    let text = &usage[value.clone()];
    if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

/// Sets `path` (one or two keys) to a number, one replacement at a time.
fn set(mut object_text: String, path: &[&str], number: u64) -> String {
    let mut rendered = number.to_string();
    for key in path[1..].iter().rev() {
        rendered = format!("{{\"{key}\":{rendered}}}");
    }
    let mut seen = 0;
    loop {
        let members = object(object_text.as_bytes()).unwrap();
        let mut matching = members
            .iter()
            .filter(|(key, _, _)| named(object_text.as_bytes(), key, path[0]));
        let Some((_, value, node)) = matching.nth(seen) else {
            break;
        };
        seen += 1;
        let new = match node {
            Node::Object(_) if path.len() > 1 => {
                set(object_text[value.clone()].to_owned(), &path[1..], number)
            }
            _ => rendered.clone(),
        };
        object_text.replace_range(value.clone(), &new);
    }
    if seen == 0 {
        let members = object(object_text.as_bytes()).unwrap();
        let (at, comma) = members
            .last()
            .map_or((1, ""), |(_, value, _)| (value.end, ","));
        object_text.insert_str(at, &format!("{comma}\"{}\":{rendered}", path[0]));
    }
    object_text
}

fn remove(mut object_text: String, path: &[&str]) -> String {
    let mut seen = 0;
    loop {
        let members = object(object_text.as_bytes()).unwrap();
        let mut matching = members
            .iter()
            .enumerate()
            .filter(|(_, (key, _, _))| named(object_text.as_bytes(), key, path[0]));
        let Some((i, (key, value, node))) = matching.nth(seen) else {
            return object_text;
        };
        if path.len() == 1 {
            let cut = if i > 0 {
                members[i - 1].1.end..value.end
            } else if let Some((next, _, _)) = members.get(1) {
                key.start..next.start
            } else {
                key.start..value.end
            };
            object_text.replace_range(cut, "");
        } else {
            seen += 1;
            if let Node::Object(_) = node {
                let new = remove(object_text[value.clone()].to_owned(), &path[1..]);
                object_text.replace_range(value.clone(), &new);
            }
        }
    }
}

fn edit_usage(
    usage: &[u8],
    o: RewriteOptions,
    answer: Answer,
    before: Option<u64>,
    seen: &mut Observed,
) -> Vec<u8> {
    let Ok(usage) = String::from_utf8(usage.to_vec()) else {
        return usage.to_vec();
    };
    if o.api == Api::Messages {
        return edit_disjoint(usage, o, answer, before, seen).into_bytes();
    }
    let details = match o.api {
        Api::Responses => "input_tokens_details",
        _ => "prompt_tokens_details",
    };
    let edited = match answer {
        Answer::Inactive if o.scrub => [
            &["cache_read_input_tokens"][..],
            &["cache_creation_input_tokens"],
            &["cache_creation"],
            &[details, "cached_tokens"],
            &[details, "cache_write_tokens"],
        ]
        .iter()
        .fold(usage, |usage, path| remove(usage, path)),
        Answer::Inactive => usage,
        Answer::Split(split) => {
            let (split, cap) = prompt_tokens(&usage, o.api, None)
                .map_or((split, Cap::None), |tokens| split.capped(tokens));
            seen.shown = Some(split);
            seen.cap = cap;
            let created = split.creation.total();
            [
                (&[details, "cached_tokens"][..], split.read),
                (&[details, "cache_write_tokens"], created),
                (&["cache_read_input_tokens"], split.read),
                (&["cache_creation_input_tokens"], created),
                (
                    &["cache_creation", "ephemeral_5m_input_tokens"],
                    split.creation.five_minutes,
                ),
                (
                    &["cache_creation", "ephemeral_1h_input_tokens"],
                    split.creation.one_hour,
                ),
                (
                    &["cache_creation", "ephemeral_24h_input_tokens"],
                    split.creation.day,
                ),
            ]
            .iter()
            .fold(usage, |usage, (path, number)| set(usage, path, *number))
        }
    };
    edited.into_bytes()
}

/// Usage whose parts of the prompt add up.
fn edit_disjoint(
    mut usage: String,
    o: RewriteOptions,
    answer: Answer,
    before: Option<u64>,
    seen: &mut Observed,
) -> String {
    match answer {
        Answer::Inactive if o.scrub => {
            if let Some(total) = prompt_tokens(&usage, o.api, None) {
                usage = set(usage, &["input_tokens"], total);
            }
            [
                "cache_read_input_tokens",
                "cache_creation_input_tokens",
                "cache_creation",
            ]
            .iter()
            .fold(usage, |usage, name| remove(usage, &[name]))
        }
        Answer::Inactive => usage,
        Answer::Split(split) => {
            let total = prompt_tokens(&usage, o.api, before);
            let (split, cap) = total.map_or((split, Cap::None), |total| split.capped(total));
            seen.shown = Some(split);
            seen.cap = cap;
            let created = split.creation.total();
            if let Some(total) = total {
                usage = set(usage, &["input_tokens"], total - split.read - created);
            }
            usage = set(usage, &["cache_read_input_tokens"], split.read);
            usage = set(usage, &["cache_creation_input_tokens"], created);
            for (name, tokens) in [
                ("ephemeral_5m_input_tokens", split.creation.five_minutes),
                ("ephemeral_1h_input_tokens", split.creation.one_hour),
                ("ephemeral_24h_input_tokens", split.creation.day),
            ] {
                usage = set(usage, &["cache_creation", name], tokens);
            }
            usage
        }
    }
}

/// The text with its top-level usage objects edited (the first `most` of them), and the last one's
/// `prompt_tokens`.
pub fn edit_text(
    text: &[u8],
    o: RewriteOptions,
    answer: Answer,
    most: usize,
    seen: &mut Observed,
) -> (Vec<u8>, Option<u64>) {
    let before = seen.prompt_tokens;
    let mut result = Vec::new();
    let mut at = 0;
    let mut tokens = None;
    let mut edited = 0;
    for (key, value, node) in object(text).unwrap() {
        let outer = nested(o.api).is_some_and(|name| named(text, &key, name));
        if outer && matches!(node, Node::Object(_)) {
            let message = &text[value.clone()];
            if usages(message) > 0 {
                let (message, inner) = edit_text(message, o, answer, most, seen);
                result.extend_from_slice(&text[at..value.start]);
                result.extend(message);
                at = value.end;
                tokens = inner;
            }
            continue;
        }
        if edited < most && named(text, &key, "usage") && matches!(node, Node::Object(_)) {
            edited += 1;
            result.extend_from_slice(&text[at..value.start]);
            result.extend(edit_usage(&text[value.clone()], o, answer, before, seen));
            at = value.end;
            tokens = std::str::from_utf8(&text[value])
                .ok()
                .and_then(|usage| prompt_tokens(usage, o.api, before));
        }
    }
    result.extend_from_slice(&text[at..]);
    (result, tokens)
}
