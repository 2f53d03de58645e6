//! What both body kinds share: the options, the answer, and the facts noted along the way.

use super::{Answer, Completion, RewriteOptions, usage::Edit};

/// The state of a rewriter that does not depend on the body's kind.
pub(super) struct Context {
    pub options: RewriteOptions,
    pub answer: Option<Answer>,
    pub completion: Completion,
}

impl Context {
    /// What to do with usage objects; `None` while the answer is missing.
    pub const fn edit(&self) -> Option<Edit> {
        match self.answer {
            None => None,
            Some(Answer::Split(split)) => Some(Edit::Write(split)),
            Some(Answer::Inactive) if self.options.scrub => Some(Edit::Scrub),
            Some(Answer::Inactive) => Some(Edit::Leave),
        }
    }
}
