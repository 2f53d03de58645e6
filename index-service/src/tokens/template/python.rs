//! Where Python spells things otherwise than the template engine: numbers, white space, and the
//! string methods that depend on it.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, State};

/// A float as Python's `repr` writes it: the shortest digits, an exponent only below 1e-4 and
/// from 1e16 on.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = value.to_string();
        return if plain.contains('.') {
            plain
        } else {
            plain + ".0"
        };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// What `str.strip()` strips: Unicode white space and the four ASCII separators.
pub(super) fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&letter)
}

/// What `str.splitlines()` splits at, besides `\r\n`.
fn is_line_end(letter: char) -> bool {
    matches!(
        letter,
        '\n' | '\r'
            | '\u{b}'
            | '\u{c}'
            | '\u{1c}'
            | '\u{1d}'
            | '\u{1e}'
            | '\u{85}'
            | '\u{2028}'
            | '\u{2029}'
    )
}

fn split_lines(mut text: &str, keep_ends: bool) -> Vec<Value> {
    let mut lines = Vec::new();
    while !text.is_empty() {
        let end = text.find(is_line_end).unwrap_or(text.len());
        let (line, rest) = text.split_at_checked(end).unwrap_or((text, ""));
        let end_bytes = if rest.starts_with("\r\n") {
            2
        } else {
            rest.chars().next().map_or(0, char::len_utf8)
        };
        let (mark, rest) = rest.split_at_checked(end_bytes).unwrap_or((rest, ""));
        lines.push(if keep_ends {
            Value::from(format!("{line}{mark}"))
        } else {
            Value::from(line)
        });
        text = rest;
    }
    lines
}

/// The filter `trim`.
pub(super) fn trim(value: &Value, letters: Option<String>) -> String {
    let text = value.to_string();
    match letters {
        None => text.trim_matches(is_space).to_owned(),
        Some(letters) => text.trim_matches(|c| letters.contains(c)).to_owned(),
    }
}

/// Methods of Python's strings, dictionaries and lists.
pub(super) fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let (ValueKind::String, Some(text)) = (value.kind(), value.as_str()) {
        match (name, args) {
            ("strip", []) => return Ok(text.trim_matches(is_space).into()),
            ("lstrip", []) => return Ok(text.trim_start_matches(is_space).into()),
            ("rstrip", []) => return Ok(text.trim_end_matches(is_space).into()),
            ("strip" | "lstrip" | "rstrip", [none]) if none.is_none() => {
                return method(state, value, name, &[]);
            }
            ("split", []) => {
                let words = text.split(is_space).filter(|word| !word.is_empty());
                return Ok(words.map(Value::from).collect());
            }
            ("splitlines", _) => {
                let (keep_ends,): (Option<bool>,) = from_args(args)?;
                return Ok(split_lines(text, keep_ends.unwrap_or(false)).into());
            }
            ("isspace", []) => {
                return Ok((!text.is_empty() && text.chars().all(is_space)).into());
            }
            ("removeprefix", [prefix]) => {
                let prefix = prefix.as_str().unwrap_or_default();
                return Ok(text.strip_prefix(prefix).unwrap_or(text).into());
            }
            ("removesuffix", [suffix]) => {
                let suffix = suffix.as_str().unwrap_or_default();
                return Ok(text.strip_suffix(suffix).unwrap_or(text).into());
            }
            ("partition", [mark]) => {
                let parts = match mark.as_str().and_then(|mark| text.split_once(mark)) {
                    Some((before, after)) => [before.into(), mark.clone(), after.into()],
                    None => [text.into(), "".into(), "".into()],
                };
                return Ok(parts.into_iter().collect());
            }
            ("rpartition", [mark]) => {
                let parts = match mark.as_str().and_then(|mark| text.rsplit_once(mark)) {
                    Some((before, after)) => [before.into(), mark.clone(), after.into()],
                    None => ["".into(), "".into(), text.into()],
                };
                return Ok(parts.into_iter().collect());
            }
            ("rsplit", [mark, most]) => {
                if let (Some(mark), Some(most)) = (mark.as_str(), most.as_usize()) {
                    let mut parts: Vec<Value> =
                        text.rsplitn(most + 1, mark).map(Value::from).collect();
                    parts.reverse();
                    return Ok(parts.into());
                }
            }
            _ => {}
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// The test `sequence`: whatever has a length and items, strings and dictionaries included.
pub(super) fn is_sequence(value: &Value) -> bool {
    value.is_undefined()
        || matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::String | ValueKind::Map
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python 3 prints for `repr(x)`.
    #[test]
    fn floats_are_spelled_as_in_python() {
        let table = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (2.5e-7, "2.5e-07"),
            (123456.789, "123456.789"),
        ];
        for (value, text) in table {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn lines_end_where_python_ends_them() {
        let lines = |text, keep| {
            let lines = split_lines(text, keep);
            lines.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(lines("a\r\nb\rc\n\nd", false), ["a", "b", "c", "", "d"]);
        assert_eq!(lines("a\n", false), ["a"]);
        assert_eq!(lines("a\u{2028}b\u{c}", true), ["a\u{2028}", "b\u{c}"]);
        assert!(lines("", false).is_empty());
    }
}
