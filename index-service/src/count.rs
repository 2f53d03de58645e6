//! Counts the new prefixes of a prompt: remembered, counted by another request that is under way,
//! or by the model's tokenizer.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use prompt_cache_core::api::Api;
use tracing::{Instrument as _, info_span};

use crate::metrics::{Shed, Tally, TokenizeOutcome};
use crate::policy::ActiveModel;
use crate::state::Service;
use crate::store::Scope;
use crate::tokens::memory::Wanted;
use crate::tokens::pool::PoolError;
use crate::tokens::{BadPrompt, CountError, Counted, PromptBody};

const NO_REQUEST: &str = "the body is not a request of its API";

/// The tokens of new prefixes.
pub struct Tokens {
    /// Cumulative, of each prefix.
    pub prefixes: Vec<u64>,
    /// Of the whole prompt, where a pass of this request's own told.
    pub prompt: Option<u64>,
}

/// Why there is no count.
#[derive(Clone, Copy, Debug)]
pub enum Uncounted {
    /// The request contradicts the prompt it brought.
    Invalid(&'static str),
    /// The tokenizer gave up.
    GaveUp,
    /// Too many prompts wait.
    Full,
}

/// Cumulative tokens at each of `wanted`, and of the whole prompt where this request's own pass
/// told.
///
/// # Errors
/// See [`Uncounted`].
pub async fn count(
    service: &Service,
    model: &ActiveModel,
    scope: Scope,
    from: Option<Counted>,
    wanted: &[Wanted],
    (api, body): (Api, Bytes),
) -> Result<Tokens, Uncounted> {
    let prompt = OnceLock::new();
    let passes = OnceLock::new();
    let counts = service.memory.counts(scope, from, wanted, |from, blocks| {
        let _ = passes.set(());
        tokenize(service, model, from, blocks, (api, body.clone()), &prompt)
            .instrument(info_span!("tokenize"))
    });
    let counted = counts.await;
    if passes.get().is_none() {
        service.metrics.tokenize.count(TokenizeOutcome::Remembered);
    }
    let prefixes = counted.map_err(|why| *why)?;
    Ok(Tokens {
        prefixes,
        prompt: prompt.into_inner(),
    })
}

/// What has no prompt: the caller's mistake, or nobody's.
const fn bad<T>(error: BadPrompt) -> Result<Result<T, &'static str>, CountError> {
    match error {
        BadPrompt::NoRequest => Ok(Err(NO_REQUEST)),
        BadPrompt::Uncountable => Err(CountError::Failed),
    }
}

/// One pass of the tokenizer; leaves the count of the whole prompt in `whole`.
async fn tokenize(
    service: &Service,
    model: &ActiveModel,
    from: Option<Counted>,
    boundaries: Vec<u32>,
    (api, body): (Api, Bytes),
    whole: &OnceLock<u64>,
) -> Result<Vec<u64>, Uncounted> {
    let tokens = Arc::clone(&model.tokens);
    let start = Instant::now();
    let counted = service.pool.run(body.len(), move |deadline| {
        let form = match PromptBody::of(api, &body) {
            Ok(form) => form,
            Err(error) => return bad(error),
        };
        let prompt = match form.prompt() {
            Ok(prompt) => prompt,
            Err(error) => return bad(error),
        };
        let deepest = boundaries.last().map_or(0, |block| *block as usize);
        if deepest >= prompt.block_count() {
            return Ok(Err("a breakpoint's block is not in the body"));
        }
        tokens
            .count(&prompt, from, &boundaries, &|| deadline.go_on())
            .map(Ok)
    });
    let counted = counted.await;
    service
        .metrics
        .tokenize_seconds
        .observe(start.elapsed().as_secs_f64());
    let (outcome, result) = match counted {
        Ok(Ok(counts)) => {
            service.metrics.counted.count(counts.method);
            if let Some(tokens) = counts.prompt {
                let _ = whole.set(tokens);
            }
            (TokenizeOutcome::Ok, Ok(counts.prefixes))
        }
        Ok(Err(why)) => (TokenizeOutcome::Failed, Err(Uncounted::Invalid(why))),
        Err(PoolError::Full) => {
            service.metrics.shed.count(Shed::TokenizeQueue);
            (TokenizeOutcome::Busy, Err(Uncounted::Full))
        }
        Err(PoolError::Count(error)) => {
            let outcome = match error {
                CountError::TooSlow => TokenizeOutcome::Timeout,
                CountError::TooLarge => TokenizeOutcome::TooLarge,
                CountError::Failed => TokenizeOutcome::Failed,
            };
            (outcome, Err(Uncounted::GaveUp))
        }
    };
    service.metrics.tokenize.count(outcome);
    result
}
