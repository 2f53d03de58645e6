//! A model's chat template: renders a conversation the way the engine does, within bounds.

mod boundary;
mod content;
mod conversation;
mod environment;
mod json;
mod python;

use std::cell::Cell;
use std::io;

use jiff::Timestamp;
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind};

pub use boundary::{Prefix, prefix};
pub use content::ContentFormat;
pub use conversation::{BadConversation, Conversation};

/// Largest source of a template.
pub const SOURCE_BYTES_MAX: usize = 1 << 20;
/// The work that a render may cost whatever the conversation is: instructions of the engine, or
/// 64 bytes copied each.
const FUEL_MIN: u64 = 200_000;
/// The work that each byte of the conversation adds to that. Real templates take under 10.
const FUEL_PER_BYTE: u64 = 32;
/// The work that no render may exceed: a few seconds.
const FUEL_MAX: u64 = 50_000_000;
/// What a render may write whatever the conversation is.
const OUTPUT_BYTES_MIN: usize = 1 << 20;
/// What each byte of the conversation adds to that.
const OUTPUT_BYTES_PER_BYTE: usize = 8;
/// What no render may exceed.
const OUTPUT_BYTES_MAX: usize = 128 << 20;

/// A template that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadTemplate {
    /// Over [`SOURCE_BYTES_MAX`].
    #[error("the chat template has more than {SOURCE_BYTES_MAX} bytes")]
    TooLarge,
    /// Not in the template language.
    #[error("the chat template does not compile: {0}")]
    Syntax(String),
}

/// Why a conversation has no rendering.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The template refuses the conversation, or fails on it; an engine would, too.
    #[error("the chat template refuses the conversation: {0}")]
    Refused(String),
    /// The rendering costs more work or memory than the conversation's size allows.
    #[error("rendering the conversation is too expensive")]
    TooExpensive,
    /// The deadline has passed.
    #[error("rendering took too long")]
    TooSlow,
}

/// A compiled chat template with the special tokens it may name.
#[derive(Debug)]
pub struct ChatTemplate {
    env: Environment<'static>,
    format: ContentFormat,
    special_tokens: Vec<(String, String)>,
}

impl ChatTemplate {
    /// Compiles `source`. `special_tokens` are variables like `bos_token`; `format` overrides
    /// what the template seems to want; `now` is the time that templates see.
    ///
    /// # Errors
    /// See [`BadTemplate`].
    pub fn new(
        source: &str,
        special_tokens: Vec<(String, String)>,
        format: Option<ContentFormat>,
        now: fn() -> Timestamp,
    ) -> Result<Self, BadTemplate> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(BadTemplate::TooLarge);
        }
        let env = environment::environment(source, now)
            .map_err(|error| BadTemplate::Syntax(error.to_string()))?;
        Ok(Self {
            env,
            format: format.unwrap_or_else(|| content::detect(source)),
            special_tokens,
        })
    }

    /// What messages are normalized to before they are rendered.
    pub const fn format(&self) -> ContentFormat {
        self.format
    }

    /// Renders `context`, whose JSON has about `input_bytes`. `go_on` is asked on every write.
    ///
    /// # Errors
    /// See [`RenderError`].
    pub(crate) fn render(
        &self,
        context: Vec<(String, Value)>,
        input_bytes: usize,
        go_on: &dyn Fn() -> bool,
    ) -> Result<String, RenderError> {
        let mut env = self.env.clone();
        let fuel = FUEL_PER_BYTE.saturating_mul(input_bytes as u64);
        env.set_fuel(Some(fuel.saturating_add(FUEL_MIN).min(FUEL_MAX)));
        let special = self.special_tokens.iter();
        let special = special.map(|(name, token)| (name.clone(), Value::from(token.as_str())));
        // Later pairs win: a request may override a special token, as in transformers.
        let context: Value = Value::from_pairs(special.chain(context));
        let bytes_max = OUTPUT_BYTES_PER_BYTE
            .saturating_mul(input_bytes)
            .saturating_add(OUTPUT_BYTES_MIN)
            .min(OUTPUT_BYTES_MAX);
        let failed = Cell::new(None);
        let mut writer = Writer {
            output: Vec::with_capacity(input_bytes.min(bytes_max)),
            bytes_max,
            go_on,
            failed: &failed,
        };
        let rendered = env
            .get_template(environment::NAME)
            .and_then(|template| template.render_captured_to(context, &mut writer).map(drop));
        let output = std::mem::take(&mut writer.output);
        match (rendered, failed.take()) {
            (_, Some(error)) => Err(error),
            (Ok(()), None) => String::from_utf8(output)
                .map_err(|_| RenderError::Refused("the output is not UTF-8".to_owned())),
            (Err(error), None) if error.kind() == ErrorKind::OutOfFuel => {
                Err(RenderError::TooExpensive)
            }
            (Err(error), None) => Err(RenderError::Refused(reason(&error))),
        }
    }
}

/// The template's own message, else the engine's. Neither quotes the conversation at length.
fn reason(error: &minijinja::Error) -> String {
    const REASON_CHARS_MAX: usize = 200;
    let reason = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    reason.chars().take(REASON_CHARS_MAX).collect()
}

/// Collects a rendering, within bounds.
struct Writer<'w> {
    output: Vec<u8>,
    bytes_max: usize,
    go_on: &'w dyn Fn() -> bool,
    failed: &'w Cell<Option<RenderError>>,
}

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let error = if self.output.len().saturating_add(bytes.len()) > self.bytes_max {
            RenderError::TooExpensive
        } else if !(self.go_on)() {
            RenderError::TooSlow
        } else {
            self.output.extend_from_slice(bytes);
            return Ok(bytes.len());
        };
        self.failed.set(Some(error));
        Err(io::ErrorKind::Other.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
