//! JSON bodies, whole.

use prompt_cache_core::response::{Answer, RewriteOptions};

use super::{
    Observed,
    text::{Node, named, object, readable},
    usage::edit_text,
};

pub fn json(body: &[u8], o: RewriteOptions, answer: Answer, late: bool, seen: &mut Observed) {
    // `error` is noted as it passes, even where the body turns out not to be JSON: tests look
    // at it for valid bodies only.
    let Some(members) = object(body).filter(|_| readable(body)) else {
        seen.body = body.to_vec();
        return;
    };
    let mut usages = Vec::new();
    for (key, value, node) in &members {
        if named(body, key, "usage") && matches!(node, Node::Object(_)) {
            usages.push(value.clone());
        } else if named(body, key, "error") && &body[value.clone()] != b"null" {
            seen.error_seen = true;
        }
    }
    seen.usage_seen = !usages.is_empty();
    // Without a scrub, an inactive answer that is there from the start means no look inside.
    let looks = late || o.scrub || answer != Answer::Inactive;
    let (text, tokens) = edit_text(body, o, answer, usize::MAX, seen);
    seen.body = text;
    seen.prompt_tokens = tokens.filter(|_| looks);
}

/// Whether that may come out of a JSON body under a cap, which may have left the first usage
/// objects edited, and was hit by one behind them, from which on all pass. What is no JSON may
/// have been edited before it turned out to be none.
pub fn may_be_capped(found: &Observed, body: &[u8], o: RewriteOptions, answer: Answer) -> bool {
    let Some(members) = object(body).filter(|_| readable(body)) else {
        return found.body == body || found.shown.is_some() || o.scrub;
    };
    let edited = |most| edit_text(body, o, answer, most, &mut Observed::nothing()).0;
    if found.released_unedited == 0 {
        found.body == edited(usize::MAX)
    } else {
        (0..members.len()).any(|most| found.body == edited(most))
    }
}
