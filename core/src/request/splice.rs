//! The forwarded body: ranges cut and inserted, every other byte as the client sent it.

use super::{
    Edits,
    chat::{ChatRequest, ObjectEnd, StreamOptions},
    json::Span,
};
use crate::order::sort_by_key;

/// One range of the body and what takes its place.
struct Edit {
    range: Span,
    with: Vec<u8>,
}

/// See [`ChatRequest::forwarded`].
pub(super) fn forwarded(request: &ChatRequest<'_>, edits: &Edits<'_>) -> Option<Vec<u8>> {
    let own = own_edits(request, edits);
    if own.is_empty() && request.cuts.is_empty() {
        return None;
    }
    let cuts = request.cuts.iter().map(|&range| Edit {
        range,
        with: Vec::new(),
    });
    let cut_bytes: u32 = request
        .cuts
        .iter()
        .map(|range| range.end - range.start)
        .sum();
    let added_bytes: usize = own.iter().map(|edit| edit.with.len()).sum();
    let mut output =
        Vec::with_capacity((request.body.len() - cut_bytes as usize).saturating_add(added_bytes));

    let mut own = own.into_iter().peekable();
    let mut copied = 0;
    let mut apply = |edit: Edit| {
        output.extend_from_slice(
            Span {
                start: copied,
                end: edit.range.start,
            }
            .of(request.body),
        );
        output.extend_from_slice(&edit.with);
        copied = edit.range.end;
    };
    for cut in cuts {
        while let Some(edit) = own.next_if(|edit| edit.range.start < cut.range.start) {
            apply(edit);
        }
        apply(cut);
    }
    own.for_each(&mut apply);
    output.extend_from_slice(request.body.get(copied as usize..).unwrap_or_default());
    Some(output)
}

/// The edits besides the cuts, ascending. They touch no marker, so they never overlap a cut.
fn own_edits(request: &ChatRequest<'_>, edits: &Edits<'_>) -> Vec<Edit> {
    let mut own = Vec::new();
    let mut added: Vec<(&str, Vec<u8>)> = Vec::new();
    if edits.ensure_usage && request.stream && request.api.asks_for_usage() {
        match request.stream_options {
            StreamOptions::Absent => {
                added.push(("stream_options", br#"{"include_usage":true}"#.to_vec()));
            }
            StreamOptions::Null(range) => {
                own.push(Edit {
                    range,
                    with: br#"{"include_usage":true}"#.to_vec(),
                });
            }
            StreamOptions::Object {
                include_usage: Some((range, false)),
                ..
            } => {
                own.push(Edit {
                    range,
                    with: b"true".to_vec(),
                });
            }
            StreamOptions::Object {
                include_usage: None,
                end,
            } => {
                own.push(add_members(end, &[("include_usage", b"true".to_vec())]));
            }
            StreamOptions::Object {
                include_usage: Some((_, true)),
                ..
            }
            | StreamOptions::Other => {}
        }
    }
    if let Some(salt) = edits.cache_salt {
        let with = serde_json::to_vec(salt).unwrap_or_default();
        match request.cache_salt {
            Some(range) if range.of(request.body) == with => {}
            Some(range) => own.push(Edit { range, with }),
            None => added.push(("cache_salt", with)),
        }
    }
    if !added.is_empty() {
        own.push(add_members(request.end, &added));
    }
    sort_by_key(&mut own, |edit| u64::from(edit.range.start));
    own
}

/// Adds members at the end of an object.
fn add_members(end: ObjectEnd, members: &[(&str, Vec<u8>)]) -> Edit {
    let mut with = Vec::new();
    for (name, value) in members {
        if end.occupied || !with.is_empty() {
            with.push(b',');
        }
        with.extend_from_slice(format!("\"{name}\":").as_bytes());
        with.extend_from_slice(value);
    }
    Edit {
        range: Span {
            start: end.close,
            end: end.close,
        },
        with,
    }
}
