//! `json.dumps` of Python, as templates call it through `tojson`.
//!
//! The text goes into the prompt, so it must be Python's to the byte: `", "` and `": "` between
//! items, `\u` escapes only where Python writes them, floats as `repr` spells them.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::python;

/// Deepest nesting of a value. What a request brings nests at most 127 levels.
const DEPTH_MAX: usize = 256;
/// Values written between two payments to the template's budget.
const VALUES_PER_CHARGE: usize = 16;
/// Bytes of JSON that cost one unit of the template's budget.
const BYTES_PER_FUEL: usize = 16;

/// The options of `json.dumps` that templates may set.
struct Style {
    ensure_ascii: bool,
    /// One level of indentation.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

impl Style {
    /// From the arguments after the value: the order is that of the filter in transformers.
    fn of(arguments: &[Value], kwargs: &Kwargs) -> Result<Self, Error> {
        let argument = |at: usize, name: &str| -> Result<Option<Value>, Error> {
            let named: Option<Value> = kwargs.get(name)?;
            Ok(arguments.get(at).cloned().or(named))
        };
        let ensure_ascii = argument(0, "ensure_ascii")?.is_some_and(|value| value.is_true());
        let indent = argument(1, "indent")?.filter(|value| !value.is_none());
        let separators = argument(2, "separators")?.filter(|value| !value.is_none());
        let sort_keys = argument(3, "sort_keys")?.is_some_and(|value| value.is_true());
        kwargs.assert_all_used()?;
        let indent = match indent {
            None => None,
            Some(value) => match value.as_str() {
                Some(text) => Some(text.to_owned()),
                None => {
                    let width = value.as_i64().ok_or_else(|| {
                        Error::new(ErrorKind::InvalidOperation, "indent is no number or string")
                    })?;
                    Some(" ".repeat(usize::try_from(width.clamp(0, 64)).unwrap_or(0)))
                }
            },
        };
        let (item_separator, key_separator) = match separators {
            Some(pair) => {
                let part = |at: usize| -> Result<String, Error> {
                    let part = pair.get_item(&Value::from(at))?;
                    part.as_str().map(str::to_owned).ok_or_else(|| {
                        Error::new(
                            ErrorKind::InvalidOperation,
                            "separators are no pair of strings",
                        )
                    })
                };
                (part(0)?, part(1)?)
            }
            None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
            None => (", ".to_owned(), ": ".to_owned()),
        };
        Ok(Self {
            ensure_ascii,
            indent,
            item_separator,
            key_separator,
            sort_keys,
        })
    }
}

/// The filter `tojson` as transformers overrides it: no HTML escapes.
pub(super) fn tojson(
    state: &State<'_, '_>,
    value: &Value,
    arguments: Rest<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let mut writer = Writer {
        style: Style::of(&arguments, &kwargs)?,
        state,
        output: String::new(),
        values: 0,
        charged_bytes: 0,
    };
    writer.value(value, 0)?;
    writer.charge()?;
    Ok(Value::from(writer.output))
}

struct Writer<'s> {
    style: Style,
    state: &'s State<'s, 's>,
    output: String,
    values: usize,
    charged_bytes: usize,
}

impl Writer<'_> {
    /// Pays for what was written: a value that holds itself many times over must not be written
    /// out for nothing.
    fn charge(&mut self) -> Result<(), Error> {
        let bytes = self.output.len().saturating_sub(self.charged_bytes);
        self.charged_bytes = self.output.len();
        let fuel = bytes / BYTES_PER_FUEL + VALUES_PER_CHARGE;
        self.state.consume_fuel(fuel as u64)
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.values += 1;
        if self.values.is_multiple_of(VALUES_PER_CHARGE) {
            self.charge()?;
        }
        if depth > DEPTH_MAX {
            return Err(Error::new(
                ErrorKind::BadSerialization,
                "nested too deeply for JSON",
            ));
        }
        match value.kind() {
            ValueKind::None => self.output.push_str("null"),
            ValueKind::Bool => {
                let literal = if value.is_true() { "true" } else { "false" };
                self.output.push_str(literal);
            }
            ValueKind::Number => self.output.push_str(&number(value)),
            ValueKind::String => {
                let ascii = self.style.ensure_ascii;
                string(value.as_str().unwrap_or_default(), ascii, &mut self.output);
            }
            ValueKind::Seq | ValueKind::Iterable => self.array(value, depth)?,
            ValueKind::Map => self.object(value, depth)?,
            kind => {
                let reason = format!("{kind} is not JSON serializable");
                return Err(Error::new(ErrorKind::BadSerialization, reason));
            }
        }
        Ok(())
    }

    fn array(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut empty = true;
        self.output.push('[');
        for item in value.try_iter()? {
            self.separate(&mut empty, depth);
            self.value(&item, depth + 1)?;
        }
        self.close(empty, depth, ']');
        Ok(())
    }

    fn object(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut members = Vec::new();
        for key in value.try_iter()? {
            let member = value.get_item(&key)?;
            members.push((key_text(&key)?, member));
        }
        if self.style.sort_keys {
            members.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let mut empty = true;
        self.output.push('{');
        for (key, member) in members {
            self.separate(&mut empty, depth);
            string(&key, self.style.ensure_ascii, &mut self.output);
            self.output.push_str(&self.style.key_separator);
            self.value(&member, depth + 1)?;
        }
        self.close(empty, depth, '}');
        Ok(())
    }

    fn separate(&mut self, empty: &mut bool, depth: usize) {
        if !*empty {
            self.output.push_str(&self.style.item_separator);
        }
        *empty = false;
        self.new_line(depth + 1);
    }

    fn close(&mut self, empty: bool, depth: usize, bracket: char) {
        if !empty {
            self.new_line(depth);
        }
        self.output.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.style.indent {
            self.output.push('\n');
            for _ in 0..depth {
                self.output.push_str(indent);
            }
        }
    }
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    match f64::try_from(value.clone()) {
        Ok(float) if float.is_nan() => "NaN".to_owned(),
        Ok(float) if float.is_infinite() && float > 0.0 => "Infinity".to_owned(),
        Ok(float) if float.is_infinite() => "-Infinity".to_owned(),
        Ok(float) => python::float(float),
        Err(_) => value.to_string(),
    }
}

fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::Number => Ok(number(key)),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        kind => Err(Error::new(
            ErrorKind::BadSerialization,
            format!("{kind} is no key of a JSON object"),
        )),
    }
}

fn string(text: &str, ensure_ascii: bool, output: &mut String) {
    output.push('"');
    for letter in text.chars() {
        match letter {
            '"' => output.push_str("\\\""),
            '\\' => output.push_str("\\\\"),
            '\n' => output.push_str("\\n"),
            '\r' => output.push_str("\\r"),
            '\t' => output.push_str("\\t"),
            '\u{8}' => output.push_str("\\b"),
            '\u{c}' => output.push_str("\\f"),
            control if control < ' ' => {
                let _ = write!(output, "\\u{:04x}", u32::from(control));
            }
            // Python escapes DEL only where it escapes everything beyond ASCII.
            wide if ensure_ascii && !wide.is_ascii() => {
                let mut units = [0; 2];
                for unit in wide.encode_utf16(&mut units) {
                    let _ = write!(output, "\\u{unit:04x}");
                }
            }
            plain => output.push(plain),
        }
    }
    output.push('"');
}
