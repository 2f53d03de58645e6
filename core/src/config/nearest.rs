//! The right spelling, for an error about a name that is unknown.

/// A name is meant if it takes no more than one edit for so many of its letters.
const LETTERS_PER_EDIT: usize = 3;
/// Longest name that is compared.
const NAME_BYTES_MAX: usize = 64;

/// Puts the nearest right name into a parser's message such as ``unknown field `a`, expected one of
/// `b`, `c` at line 1``, in place of the list (quoted or not); other messages stay as they are.
pub fn with_nearest(message: String) -> String {
    nearest(&message).unwrap_or(message)
}

fn nearest(message: &str) -> Option<String> {
    let kind = ["unknown field", "unknown variant"]
        .into_iter()
        .find(|kind| message.starts_with(kind))?;
    let (_, rest) = message.split_once('`')?;
    let (wrong, rest) = rest.split_once('`')?;
    let (_, list) = rest.split_once("expected")?;
    let (list, position) = match list.find(" at line ") {
        Some(at) => list.split_at_checked(at)?,
        None => (list, ""),
    };
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (_, meant) = list
        .split(|c| !of_name(c))
        .filter(|word| !matches!(*word, "" | "one" | "of" | "or"))
        .map(|name| (edits(wrong, name), name))
        .filter(|(edits, name)| *edits <= name.len().div_ceil(LETTERS_PER_EDIT))
        .min()?;
    Some(format!(
        "{kind} `{wrong}`; did you mean `{meant}`?{position}"
    ))
}

/// Letters to insert, delete or replace to get from `a` to `b` (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    if a.len().max(b.len()) > NAME_BYTES_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        // The first cell of a row has none to its left.
        let mut left = 0;
        let mut diagonal = i;
        for (above, y) in row
            .iter_mut()
            .zip(std::iter::once(None).chain(b.bytes().map(Some)))
        {
            let cell = match y {
                None => i + 1,
                Some(y) => (diagonal + usize::from(x != y))
                    .min(*above + 1)
                    .min(left + 1),
            };
            diagonal = *above;
            left = cell;
            *above = cell;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        let table = [
            ("", "", 0),
            ("", "ab", 2),
            ("ab", "", 2),
            ("kitten", "sitting", 3),
        ];
        for (a, b, count) in table {
            assert_eq!((edits(a, b), edits(b, a)), (count, count), "{a} {b}");
        }
        let long = |bytes: usize| "a".repeat(bytes);
        assert_eq!(edits(&long(NAME_BYTES_MAX), &long(NAME_BYTES_MAX)), 0);
        assert_eq!(edits(&long(NAME_BYTES_MAX + 1), "a"), usize::MAX);
    }

    #[test]
    fn the_nearest_name_takes_the_place_of_the_list() {
        let table = [
            (
                "unknown field `modles`, expected one of `listen`, `models` at line 1 column 7",
                "unknown field `modles`; did you mean `models`? at line 1 column 7",
            ),
            (
                "unknown field `of`, expected one of ok, listen or models",
                "unknown field `of`; did you mean `ok`?",
            ),
            (
                "unknown variant `o200`, expected `o200k_base` or `cl100k_base`",
                "unknown variant `o200`, expected `o200k_base` or `cl100k_base`",
            ),
            (
                "unknown field `zzz`, expected `a`",
                "unknown field `zzz`, expected `a`",
            ),
            (
                "invalid type: string \"`listn`\"",
                "invalid type: string \"`listn`\"",
            ),
            ("unknown field", "unknown field"),
        ];
        for (message, expected) in table {
            assert_eq!(with_nearest(message.to_owned()), expected);
        }
    }
}
