//! Where Python spells things otherwise than the template engine: numbers, printed lists, white
//! space, and the string methods that depend on it.

use std::fmt::{self, Write};

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind, from_args};
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

/// Deepest list or dictionary that is printed; JSON has no deeper ones.
const DEPTH_MAX: usize = 130;

/// Writes a list or dictionary as Python's `repr` does.
pub(super) fn write_repr(output: &mut dyn Write, value: &Value, depth: usize) -> fmt::Result {
    if depth > DEPTH_MAX {
        return Err(fmt::Error);
    }
    let tuple = value.downcast_object_ref::<Tuple>().is_some();
    match value.kind() {
        ValueKind::String => write_quoted(output, &value.to_string()),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => output.write_str(&float(number)),
            Err(_) => write!(output, "{value}"),
        },
        ValueKind::Seq => {
            output.write_char(if tuple { '(' } else { '[' })?;
            let mut items = 0;
            for item in value.try_iter().map_err(|_| fmt::Error)? {
                if items > 0 {
                    output.write_str(", ")?;
                }
                items += 1;
                write_repr(output, &item, depth + 1)?;
            }
            output.write_str(match (tuple, items) {
                (true, 1) => ",)",
                (true, _) => ")",
                (false, _) => "]",
            })
        }
        ValueKind::Map => {
            output.write_char('{')?;
            for (at, key) in value.try_iter().map_err(|_| fmt::Error)?.enumerate() {
                if at > 0 {
                    output.write_str(", ")?;
                }
                write_repr(output, &key, depth + 1)?;
                output.write_str(": ")?;
                let item = value.get_item(&key).unwrap_or_default();
                write_repr(output, &item, depth + 1)?;
            }
            output.write_char('}')
        }
        _ => write!(output, "{value}"),
    }
}

/// A string as `repr` quotes it: double quotes only around a single one.
fn write_quoted(output: &mut dyn Write, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    output.write_char(quote)?;
    for letter in text.chars() {
        match letter {
            '\n' => output.write_str("\\n")?,
            '\r' => output.write_str("\\r")?,
            '\t' => output.write_str("\\t")?,
            '\\' => output.write_str("\\\\")?,
            _ if letter == quote => write!(output, "\\{letter}")?,
            _ if is_printable(letter) => output.write_char(letter)?,
            _ => match u32::from(letter) {
                code @ 0..=0xff => write!(output, "\\x{code:02x}")?,
                code @ 0x100..=0xffff => write!(output, "\\u{code:04x}")?,
                code => write!(output, "\\U{code:08x}")?,
            },
        }
    }
    output.write_char(quote)
}

/// `str.isprintable()` of one letter. Rust escapes the same categories when it prints a string
/// (besides quotes and the like, which are printable, and a combining mark at the start).
fn is_printable(letter: char) -> bool {
    let mut buffer = ['a', letter].iter().collect::<String>();
    buffer = buffer.escape_debug().to_string();
    !buffer.starts_with("a\\u{") && letter != '\0'
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

/// `str.title()`: a letter is large after anything that has no case, small after a letter.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut after_letter = false;
    for letter in text.chars() {
        if after_letter {
            titled.extend(letter.to_lowercase());
        } else {
            titled.extend(letter.to_uppercase());
        }
        after_letter = letter.is_lowercase() || letter.is_uppercase();
    }
    titled
}

/// The filter `trim`.
pub(super) fn trim(value: &Value, letters: Option<String>) -> String {
    let text = value.to_string();
    match letters {
        None => text.trim_matches(is_space).to_owned(),
        Some(letters) => text.trim_matches(|c| letters.contains(c)).to_owned(),
    }
}

/// The filter `indent`: every line but the first and empty ones, all line ends become `\n`.
pub(super) fn indent(
    state: &State<'_, '_>,
    value: &Value,
    args: Rest<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    type Given = (Option<usize>, Option<bool>, Option<bool>);
    let (width, first, blank): Given = from_args(&args)?;
    let width = width.or(kwargs.get("width")?).unwrap_or(4);
    let first = first.or(kwargs.get("first")?).unwrap_or(false);
    let blank = blank.or(kwargs.get("blank")?).unwrap_or(false);
    kwargs.assert_all_used()?;
    let text = value.to_string() + "\n";
    let lines = split_lines(&text, false);
    // Ahead of the memory.
    let bytes = lines.len().saturating_mul(width).saturating_add(text.len());
    state.consume_fuel((bytes / 64) as u64)?;
    let indention = " ".repeat(width);
    let mut output = String::with_capacity(bytes);
    for (at, line) in lines.iter().enumerate() {
        let line = line.as_str().unwrap_or_default();
        if at > 0 {
            output.push('\n');
        }
        if (at > 0 || first) && (blank || !line.is_empty()) {
            output.push_str(&indention);
        }
        output.push_str(line);
    }
    Ok(output)
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
            ("title", []) => return Ok(title(text).into()),
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

    /// What Python 3 prints for `repr(x)`.
    #[test]
    fn lists_are_printed_as_in_python() {
        let repr = |value: &serde_json::Value| {
            let mut text = String::new();
            write_repr(&mut text, &Value::from(minijinja::value::Serde(value)), 0).unwrap();
            text
        };
        let table = [
            (serde_json::json!([]), "[]"),
            (
                serde_json::json!([1, 1.0, 1e16, null, true, {}]),
                "[1, 1.0, 1e+16, None, True, {}]",
            ),
            (
                serde_json::json!({"a": ["it's", "\"", "'\"", "\\"]}),
                r#"{'a': ["it's", '"', '\'"', '\\']}"#,
            ),
            (
                serde_json::json!(["\n\t\r\u{0}\u{7f}\u{a0}\u{ad}é"]),
                r"['\n\t\r\x00\x7f\xa0\xadé']",
            ),
            (
                serde_json::json!(["e\u{301}\u{2028}\u{200b}\u{feff}\u{10ffff}👩\u{3000}字"]),
                "['e\u{301}\\u2028\\u200b\\ufeff\\U0010ffff👩\\u3000字']",
            ),
        ];
        for (value, text) in table {
            assert_eq!(repr(&value), text);
        }
        let deep = (0..200).fold(Value::from(1), |inner, _| Value::from(vec![inner]));
        assert!(write_repr(&mut String::new(), &deep, 0).is_err());
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
