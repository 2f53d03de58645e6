//! The labels of the metrics: each a closed set, spelled in snake case.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// A label set with the one label `$label`, whose values are an enum of `$values`.
macro_rules! label {
    ($(#[$doc:meta])* $labels:ident, $label:ident: $values:ident { $($(#[$vdoc:meta])* $value:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $labels {
            /// The value.
            pub $label: $values,
        }

        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $values {
            $($(#[$vdoc])* $value),+
        }

        impl $values {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$value),+];
        }

        impl EncodeLabelValue for $values {
            fn encode(
                &self,
                encoder: &mut LabelValueEncoder<'_>,
            ) -> Result<(), std::fmt::Error> {
                let name = match self { $(Self::$value => stringify!($value)),+ };
                EncodeLabelValue::encode(&snake(name).as_str(), encoder)
            }
        }

        impl From<$values> for $labels {
            fn from($label: $values) -> Self {
                Self { $label }
            }
        }
    };
}

label! {
    /// How a classification ended.
    ClassifyLabels, outcome: ClassifyOutcome {
        /// With a split.
        Ok,
        /// The prompt is needed.
        TextNeeded,
        /// The model has no policy.
        UnknownModel,
        /// The principal is refused.
        UnknownPrincipal,
        /// The request was malformed.
        Invalid,
        /// The store did not answer.
        StoreError,
        /// Too many prompts were waiting for a tokenizer.
        Busy,
    }
}

label! {
    /// How a count ended.
    TokenizeLabels, outcome: TokenizeOutcome {
        /// With counts.
        Ok,
        /// The tokenizer failed.
        Failed,
        /// It took too long.
        Timeout,
        /// The text was larger than its tokenizer takes.
        TooLarge,
        /// Too many were waiting.
        Busy,
        /// Known from another request; nothing was tokenized.
        Remembered,
    }
}

label! {
    /// How counts came about.
    MethodLabels, method: CountMethod {
        /// The texts of the blocks, for a model without a chat template.
        BlockTexts,
        /// The rendered prompt: as the engine counts.
        Rendered,
        /// Rendered, but the prompt shows a prefix otherwise than its own rendering does: the
        /// template moves or drops what came earlier.
        Moved,
        /// The template refuses the conversation or costs too much: the texts of the blocks, at
        /// least for some.
        Refused,
        /// A prompt that no template touches: as the engine counts.
        Plain,
    }
}

label! {
    /// What became of a tokenizer that was to be loaded while the service runs.
    ModelLoadLabels, outcome: ModelLoadOutcome {
        /// In use.
        Loaded,
        /// Not loadable; an older one stays in use, if there is one.
        Failed,
    }
}

label! {
    /// What became of an entry that a commit brought.
    CommitLabels, outcome: CommitOutcome {
        /// Written, or already there.
        Written,
        /// Its life was over before it came.
        Expired,
        /// The model has no policy.
        UnknownModel,
        /// The principal is refused.
        UnknownPrincipal,
        /// Counted by another tokenizer version.
        OtherVersion,
        /// The tier is not enabled for the model.
        TierDisabled,
        /// The store failed; the filter will deliver it again.
        StoreError,
    }
}

label! {
    /// What became of a refresh.
    RefreshLabels, outcome: RefreshOutcome {
        /// Handed to the store.
        Written,
        /// Would have gained under 1 % of the window.
        Skipped,
        /// The queue was full.
        Dropped,
        /// The store failed.
        StoreError,
    }
}

label! {
    /// Why a request was refused to protect the service.
    ShedLabels, reason: Shed {
        /// `concurrency_max` requests were running.
        Concurrency,
        /// `tokenize_queue_max` prompts were waiting, or those that were would take too long.
        TokenizeQueue,
        /// `text_bytes_in_flight_max` were held.
        TextBytes,
        /// `request_timeout_ms` had passed.
        Timeout,
        /// `connections_max` were open: a quiet one was closed for a new one, or the new one.
        Connections,
    }
}

label! {
    /// How a look at changed accounts ended.
    ReloadLabels, result: Reload {
        /// The new map is in use.
        Ok,
        /// It could not be read; the old one stays.
        Error,
    }
}

label! {
    /// What the store was asked.
    StoreLabels, operation: StoreOperation {
        /// A look-up.
        LookUp,
        /// A commit.
        Write,
        /// A refresh.
        Refresh,
        /// A sweep.
        Sweep,
        /// A read of the epoch.
        Epoch,
        /// A purge.
        Purge,
        /// A probe.
        Ping,
    }
}

/// A configured model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ModelLabels {
    /// Its name; never one that is not in the configuration.
    pub model: String,
}

/// A configured model and a tier.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TierLabels {
    /// The model.
    pub model: String,
    /// The tier's name.
    pub tier: &'static str,
}

/// A configured model and the state of its counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabels {
    /// The model.
    pub model: String,
    /// The state's name.
    pub state: &'static str,
}

/// `StoreError` → `store_error`.
fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for (i, letter) in name.char_indices() {
        if i > 0 && letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_snake_case() {
        assert_eq!(snake("StoreError"), "store_error");
        assert_eq!(snake("Ok"), "ok");
    }
}
