//! Byte splice: replaces ranges of a text and leaves every other byte alone.

use crate::order::sort_by_key;
use std::ops::Range;

use crate::object::slice;

/// One replacement; an empty range inserts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Patch {
    pub range: Range<usize>,
    pub text: Vec<u8>,
}

impl Patch {
    pub fn replace(range: Range<usize>, text: impl Into<Vec<u8>>) -> Self {
        Self {
            range,
            text: text.into(),
        }
    }

    pub fn insert(at: usize, text: impl Into<Vec<u8>>) -> Self {
        Self {
            range: at..at,
            text: text.into(),
        }
    }

    pub fn cut(range: Range<usize>) -> Self {
        Self {
            range,
            text: Vec::new(),
        }
    }
}

/// Applies patches that do not overlap, given in any order. Patches that start at the same place
/// apply in the given order.
pub(super) fn apply(text: &[u8], mut patches: Vec<Patch>) -> Vec<u8> {
    sort_by_key(&mut patches, |patch| patch.range.start as u64);
    let added: usize = patches.iter().map(|patch| patch.text.len()).sum();
    let mut result = Vec::with_capacity(text.len().saturating_add(added));
    let mut at = 0;
    for patch in &patches {
        result.extend_from_slice(slice(text, at..patch.range.start));
        result.extend_from_slice(&patch.text);
        at = patch.range.end;
    }
    result.extend_from_slice(slice(text, at..text.len()));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_inserts_and_cuts() {
        let patches = vec![
            Patch::cut(7..9),
            Patch::insert(3, "-"),
            Patch::replace(1..3, "XYZ"),
            Patch::insert(9, "!"),
        ];
        assert_eq!(apply(b"012345678", patches), b"0XYZ-3456!");
        assert_eq!(apply(b"abc", Vec::new()), b"abc");
    }
}
