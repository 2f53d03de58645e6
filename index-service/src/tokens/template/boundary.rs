//! Where the prefix that ends with a block ends in the rendered prompt.
//!
//! A template is a program: it may trim, reorder, fold or drop what it is given, so a block's
//! end cannot be computed, only observed. The conversation is cut off after the block and
//! rendered with the turn that naturally comes next, once as it is and once with something more
//! added to the block. The text that both share is what the prefix looks like whatever follows.
//! Only what the prefix hash covers goes into these renderings, so equal prefixes have equal
//! texts. `docs/tokens.md` argues the method and its limits.

use prompt_cache_core::request::BlockPlace;

use super::conversation::{Conversation, More, Next};
use super::{ChatTemplate, RenderError};

/// Text of the block that is added.
const MORE: &str = "Q";
/// Text of the message that follows.
const NEXT: &str = "Z1";
/// Another text of the message that follows.
const OTHER_NEXT: &str = "Y2";
/// What may come after a block's end besides earlier blocks: the end of its message and the
/// start of the next one. More than this is looked at closely.
const TAIL_BYTES_PLAIN: usize = 96;

/// The rendered text of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The prompt up to the end of the block.
    pub text: String,
}

/// The rendered text of the prefix that ends with the block at `place`: a function of that
/// prefix alone.
///
/// # Errors
/// When the template refuses every continuation of the prefix, or a limit is reached.
pub fn prefix(
    template: &ChatTemplate,
    conversation: &Conversation,
    place: BlockPlace,
    go_on: &dyn Fn() -> bool,
) -> Result<Prefix, RenderError> {
    let look = Look {
        template,
        conversation,
        place,
        go_on,
    };
    let (mut text, next) = look.plain()?;
    let end = look.end(&text, next)?;
    text.truncate(end);
    Ok(Prefix { text })
}

struct Look<'a> {
    template: &'a ChatTemplate,
    conversation: &'a Conversation,
    place: BlockPlace,
    go_on: &'a dyn Fn() -> bool,
}

impl Look<'_> {
    fn render(&self, more: More<'_>, next: Next<'_>) -> Result<String, RenderError> {
        let context = self.conversation.until(self.place, more, next);
        self.template
            .render(context, self.conversation.bytes(), self.go_on)
    }

    /// Like [`Look::render`]; `None` for a conversation that the template refuses.
    fn accepted(&self, more: More<'_>, next: Next<'_>) -> Result<Option<String>, RenderError> {
        match self.render(more, next) {
            Ok(text) => Ok(Some(text)),
            Err(RenderError::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The prefix with the most natural continuation that the template accepts.
    fn plain(&self) -> Result<(String, Next<'static>), RenderError> {
        let mut refused = None;
        for next in self.continuations() {
            match self.render(More::No, next) {
                Ok(text) => return Ok((text, next)),
                Err(RenderError::Refused(reason)) => {
                    refused.get_or_insert(RenderError::Refused(reason));
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or_else(|| RenderError::Refused(String::new())))
    }

    /// What may come next, the most natural first.
    fn continuations(&self) -> [Next<'static>; 4] {
        let user = Next::Message("user", NEXT);
        let tool = Next::Message("tool", NEXT);
        let assistant = Next::Message("assistant", NEXT);
        match (
            self.place,
            self.message().map(|at| self.conversation.role(at)),
        ) {
            (BlockPlace::ToolCall { .. }, _) => [tool, user, Next::Nothing, Next::Reply],
            (_, Some("assistant")) => [user, Next::Nothing, Next::Reply, tool],
            (_, Some("system" | "developer") | None) => {
                [user, Next::Reply, assistant, Next::Nothing]
            }
            (_, Some(_)) => [Next::Reply, assistant, user, Next::Nothing],
        }
    }

    fn message(&self) -> Option<usize> {
        match self.place {
            BlockPlace::Tool { .. } => None,
            BlockPlace::Part { message, .. }
            | BlockPlace::ToolCall { message, .. }
            | BlockPlace::Empty { message } => Some(message as usize),
        }
    }

    /// The end of the block in `text`, or that of an earlier block which is rendered after it.
    fn end(&self, text: &str, next: Next<'_>) -> Result<usize, RenderError> {
        let end = match self.seen(text, More::Block(MORE), next)? {
            // Templates may show nothing but the first part of a message.
            None => self.seen(text, More::Text(MORE), next)?,
            end => end,
        };
        let Some(end) = end else {
            // The block takes no addition, or is not rendered: all before the next message is
            // the prefix.
            return self.end_of_messages(text, next);
        };
        if text.len().saturating_sub(end) <= TAIL_BYTES_PLAIN {
            return Ok(end);
        }
        let mut last = end;
        for earlier in self.wanderers() {
            if let Some(end) = self.seen(text, earlier, next)? {
                last = last.max(end);
            }
        }
        Ok(last)
    }

    /// Where an addition changes `text`.
    fn seen(
        &self,
        text: &str,
        more: More<'_>,
        next: Next<'_>,
    ) -> Result<Option<usize>, RenderError> {
        let changed = self.accepted(more, next)?;
        Ok(changed
            .filter(|changed| changed != text)
            .map(|changed| shared(text, &changed)))
    }

    /// Earlier blocks that templates are known to render late: tools after the system message or
    /// in a user message, system messages in a user message, anything that a late system
    /// message is moved before.
    fn wanderers(&self) -> Vec<More<'static>> {
        let mut earlier = Vec::new();
        let Some(message) = self.message() else {
            return earlier;
        };
        if self.conversation.has_tools() {
            earlier.push(More::Tool(MORE));
        }
        if message > 0 {
            earlier.push(More::Part(0, MORE));
        }
        if message > 1 {
            earlier.push(More::Part(message - 1, MORE));
        }
        earlier
    }

    fn end_of_messages(&self, text: &str, next: Next<'_>) -> Result<usize, RenderError> {
        let other = match next {
            Next::Message(role, _) => Next::Message(role, OTHER_NEXT),
            Next::Reply => Next::Nothing,
            Next::Nothing => return Ok(text.len()),
        };
        let other = self.accepted(More::No, other)?;
        Ok(other.map_or(text.len(), |other| shared(text, &other)))
    }
}

/// Length of the text that both start with.
fn shared(a: &str, b: &str) -> usize {
    let equal = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    a.floor_char_boundary(equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_text_ends_between_characters() {
        assert_eq!(shared("aé", "aè"), 1);
        assert_eq!(shared("ab", "abc"), 2);
        assert_eq!(shared("", "x"), 0);
        assert_eq!(shared("aéb", "aéc"), 3);
    }
}
