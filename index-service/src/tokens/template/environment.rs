//! The environment a chat template runs in: Jinja with the switches, globals and filters of
//! transformers.

use jiff::Timestamp;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State};

use super::{json, python};

/// Deepest recursion of macros and loops, in units of the engine. Templates that walk a JSON
/// schema recurse a few levels; the stack of a worker thread carries far more than this.
const RECURSION_MAX: usize = 200;

/// Name of the one template in the environment.
pub(super) const NAME: &str = "chat_template";

/// An environment with `source` compiled in it; `now` is the time that templates see.
///
/// # Errors
/// When the source is no template.
pub(super) fn environment(
    source: &str,
    now: fn() -> Timestamp,
) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    env.set_recursion_limit(RECURSION_MAX);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_formatter(format);
    env.set_unknown_method_callback(python::method);
    env.add_filter("tojson", json::tojson);
    env.add_filter("trim", python::trim);
    env.add_filter("indent", python::indent);
    env.add_test("sequence", |value: &Value| python::is_sequence(value));
    env.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", move |format: &str| strftime(now(), format));
    env.add_template_owned(NAME, without_generation_tags(source))?;
    Ok(env)
}

/// Writes a value the way `str()` of Python does.
fn format(output: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if matches!(value.kind(), ValueKind::Seq | ValueKind::Map) {
        return python::write_repr(output, value, 0).map_err(Error::from);
    }
    if value.kind() == ValueKind::Number
        && !value.is_integer()
        && let Ok(float) = f64::try_from(value.clone())
    {
        return output.write_str(&python::float(float)).map_err(Error::from);
    }
    minijinja::escape_formatter(output, state, value)
}

/// How a template refuses a conversation.
fn raise_exception(message: Option<String>) -> Result<Value, Error> {
    let message = message.unwrap_or_default();
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn strftime(now: Timestamp, format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, &now.to_zoned(jiff::tz::TimeZone::UTC))
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// Replaces `{% generation %}`, which marks what a model said for training, by a block that does
/// nothing but open a scope, as the original does.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut output = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at_checked(start).unwrap_or((rest, ""));
        output.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at_checked(end + 2).unwrap_or((tag, ""));
        output.push_str(&match word_of(tag) {
            Some("generation") => tag.replacen("generation", "with", 1),
            Some("endgeneration") => tag.replacen("endgeneration", "endwith", 1),
            _ => tag.to_owned(),
        });
        rest = after;
    }
    output.push_str(rest);
    output
}

/// The one word of a tag like `{%- word -%}`.
fn word_of(tag: &str) -> Option<&str> {
    let inside = tag.strip_prefix("{%")?.strip_suffix("%}")?;
    let inside = inside.strip_prefix(['-', '+']).unwrap_or(inside);
    let inside = inside.strip_suffix(['-', '+']).unwrap_or(inside);
    Some(inside.trim())
}
