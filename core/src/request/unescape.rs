//! What the escapes of a JSON string stand for, and its canonical spelling.

/// The character of the escape at the start of `bytes` (its backslash included) and the length
/// of its spelling. `None`: not an escape that JSON knows, or half a surrogate pair.
pub(super) fn escape(bytes: &[u8]) -> Option<(char, usize)> {
    let simple = match *bytes.get(1)? {
        b'n' => '\n',
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b't' => '\t',
        b'r' => '\r',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'u' => return unicode(bytes),
        _ => return None,
    };
    Some((simple, 2))
}

fn unicode(bytes: &[u8]) -> Option<(char, usize)> {
    let unit = hex(bytes.get(2..6)?)?;
    if !(0xD800..0xDC00).contains(&unit) {
        return Some((char::from_u32(unit)?, 6));
    }
    if bytes.get(6..8)? != b"\\u" {
        return None;
    }
    let low = hex(bytes.get(8..12)?)?;
    if !(0xDC00..0xE000).contains(&low) {
        return None;
    }
    Some((
        char::from_u32(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00))?,
        12,
    ))
}

fn hex(digits: &[u8]) -> Option<u32> {
    let &[a, b, c, d] = digits else { return None };
    let valid = a.is_ascii_hexdigit()
        & b.is_ascii_hexdigit()
        & c.is_ascii_hexdigit()
        & d.is_ascii_hexdigit();
    // Letters have bit 6, and their low four bits count from 1.
    let value = |digit: u8| u32::from(digit & 0xF) + 9 * u32::from(digit >> 6);
    valid.then(|| value(a) << 12 | value(b) << 8 | value(c) << 4 | value(d))
}

/// Hands out the value of a string in pieces: runs without an escape as they lie in the body,
/// and the bytes of each escaped character.
pub(super) fn runs(raw: &[u8], mut emit: impl FnMut(&[u8])) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (run, tail) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        emit(run);
        // The scan has accepted every escape; the fallback only keeps this loop finite.
        let (character, length) = escape(tail).unwrap_or((char::REPLACEMENT_CHARACTER, 1));
        emit(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = tail.get(length..).unwrap_or_default();
    }
    emit(rest);
}

/// Hands out the canonical spelling of a string in pieces: the one that `JSON.stringify` and most
/// other writers choose. Only `"`, `\` and control characters are escaped, with the short forms
/// where there is one, else with `\u00` and two lower-case digits.
pub(super) fn canonical(raw: &[u8], mut emit: impl FnMut(&[u8])) {
    let mut rest = raw;
    while let Some(&first) = rest.first() {
        let length = match (first, rest.get(1)) {
            (b'\\', Some(b'u')) => {
                let (character, length) = unicode(rest).unwrap_or((char::REPLACEMENT_CHARACTER, 2));
                spell(character, &mut emit);
                length
            }
            (b'\\', Some(b'/')) => {
                emit(b"/");
                2
            }
            (b'\\', _) => {
                emit(rest.get(..2).unwrap_or(rest));
                2
            }
            _ => {
                let run = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
                emit(rest.get(..run).unwrap_or(rest));
                run
            }
        };
        rest = rest.get(length..).unwrap_or_default();
    }
}

fn spell(character: char, emit: &mut impl FnMut(&[u8])) {
    match character {
        '"' => emit(br#"\""#),
        '\\' => emit(br"\\"),
        '\n' => emit(br"\n"),
        '\t' => emit(br"\t"),
        '\r' => emit(br"\r"),
        '\u{8}' => emit(br"\b"),
        '\u{c}' => emit(br"\f"),
        '\0'..='\u{1f}' => emit(format!("\\u{:04x}", u32::from(character)).as_bytes()),
        _ => emit(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_their_lengths() {
        let cases: [(&str, Option<(char, usize)>); 15] = [
            (r"\b", Some(('\u{8}', 2))),
            (r"\f", Some(('\u{c}', 2))),
            (r"\n", Some(('\n', 2))),
            (r"\/x", Some(('/', 2))),
            (r"\u0041", Some(('A', 6))),
            (r"\u00e9", Some(('é', 6))),
            (r"\uD83D\uDE00!", Some(('😀', 12))),
            (r"\ud83d\ude0", None),
            (r"\ud83d", None),
            (r"\ud83dx", None),
            (r"\ud83d\n", None),
            (r"\ud83d\ud83d", None),
            (r"\ude00", None),
            (r"\x", None),
            (r"\u+041", None),
        ];
        for (spelling, expected) in cases {
            assert_eq!(escape(spelling.as_bytes()), expected, "{spelling}");
        }
        assert_eq!(escape(b"\\"), None);
    }

    #[test]
    fn canonical_is_how_serde_json_writes() {
        let spelling = r#"a\u0062\/\"\u0022\\\u005C\n\u000a\u000D\t\u0009\b\u0008\f\u000c\u001F\u0000\u007f\u00e9\ud83d\ude00é"#;
        let mut pieces = Vec::new();
        canonical(spelling.as_bytes(), |piece| pieces.extend_from_slice(piece));
        let value: String = serde_json::from_str(&format!("\"{spelling}\"")).unwrap();
        let written = serde_json::to_string(&value).unwrap();
        assert_eq!(
            format!("\"{}\"", String::from_utf8(pieces).unwrap()),
            written
        );
    }
}
