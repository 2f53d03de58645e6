//! The classification: look up, find the hit, count what is new, split it over the breakpoints.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{Found, Split, Tier, find_hit, split_writes};
use prompt_cache_core::wire::{Classified, ClassifyAnswer, ClassifyRequest, Uncached};

use crate::metrics::{
    ClassifyOutcome, ModelLabels, Shed, StoreOperation, Tally, TierLabels, TokenizeOutcome,
};
use crate::policy::ActiveModel;
use crate::state::Service;
use crate::store::{Scope, StoreError};
use crate::tokens::pool::PoolError;
use crate::tokens::{CountError, Counted, Prompt};

/// Why a classification has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClassifyError {
    /// The request contradicts itself or the prompt it brought.
    #[error("{0}")]
    Invalid(&'static str),
    /// The store did not answer.
    #[error("the store did not answer")]
    Store(#[from] StoreError),
    /// Too many prompts wait for a tokenizer.
    #[error("too many prompts are waiting")]
    Busy,
}

impl ClassifyError {
    fn outcome(&self) -> ClassifyOutcome {
        match self {
            Self::Invalid(_) => ClassifyOutcome::Invalid,
            Self::Store(_) => ClassifyOutcome::StoreError,
            Self::Busy => ClassifyOutcome::Busy,
        }
    }
}

/// Classifies a request that has passed `http::checks`; `body` is the chat request when the
/// filter has sent it.
///
/// # Errors
/// See [`ClassifyError`].
pub async fn classify(
    service: &Service,
    request: &ClassifyRequest,
    body: Option<Bytes>,
) -> Result<ClassifyAnswer, ClassifyError> {
    let start = Instant::now();
    let answer = answer(service, request, body).await;
    service
        .metrics
        .classify_seconds
        .observe(start.elapsed().as_secs_f64());
    let outcome = match &answer {
        Ok(ClassifyAnswer::Ok(_)) => ClassifyOutcome::Ok,
        Ok(ClassifyAnswer::TextNeeded { .. }) => ClassifyOutcome::TextNeeded,
        Ok(ClassifyAnswer::Inactive {
            reason: Uncached::UnknownModel,
        }) => ClassifyOutcome::UnknownModel,
        Ok(ClassifyAnswer::Inactive {
            reason: Uncached::UnknownPrincipal,
        }) => ClassifyOutcome::UnknownPrincipal,
        Err(error) => error.outcome(),
    };
    service.metrics.classify.count(outcome);
    tracing::debug!(
        ?outcome,
        candidates = request.candidates.len(),
        "classified"
    );
    answer
}

async fn answer(
    service: &Service,
    request: &ClassifyRequest,
    body: Option<Bytes>,
) -> Result<ClassifyAnswer, ClassifyError> {
    let Some(active) = service.models.get(&request.model) else {
        return Ok(ClassifyAnswer::Inactive {
            reason: Uncached::UnknownModel,
        });
    };
    let model = active.as_ref();
    let Some(account) = service.principals.account_of(&request.principal) else {
        return Ok(ClassifyAnswer::Inactive {
            reason: Uncached::UnknownPrincipal,
        });
    };
    let scope = Scope::of(&account, &request.model, &model.policy.tokenizer_version);
    let found = look_up(service, request, scope).await?;
    let classified = if found.deeper.is_empty() {
        pure_read(model, &found)
    } else {
        let Some(body) = body else {
            return Ok(ClassifyAnswer::TextNeeded { read: found.read() });
        };
        match count(service, model, &found, body).await? {
            Some(counts) => split(request, model, &found, &counts)?,
            None => pure_read(model, &found),
        }
    };
    record(service, &request.model, &classified.split);
    Ok(ClassifyAnswer::Ok(classified))
}

/// Looks the candidates up, finds the hit and sends the refreshes on their way.
async fn look_up(
    service: &Service,
    request: &ClassifyRequest,
    scope: Scope,
) -> Result<Found, ClassifyError> {
    let now_ms = service.clock.now_ms();
    let hashes: Vec<PrefixHash> = request.candidates.iter().map(|c| c.hash).collect();
    let start = Instant::now();
    let live = service.store.look_up(&scope, &hashes, now_ms).await;
    service
        .metrics
        .look_up_seconds
        .observe(start.elapsed().as_secs_f64());
    let live = live.inspect_err(|error| {
        tracing::warn!(%error, "look-up failed");
        service.metrics.store_errors.count(StoreOperation::LookUp);
    })?;
    let found = find_hit(&request.breakpoints, &request.candidates, &live);
    service.refreshes.push(scope, &found.refresh, now_ms);
    Ok(found)
}

/// What is answered when nothing is written: the read, if any.
fn pure_read(model: &ActiveModel, found: &Found) -> Classified {
    Classified {
        tokenizer_version: model.policy.tokenizer_version.clone(),
        split: Split {
            read: found.read(),
            ..Split::default()
        },
        writes: Vec::new(),
    }
}

/// Cumulative tokens at each breakpoint after the hit; `None` when they cannot be counted.
async fn count(
    service: &Service,
    model: &ActiveModel,
    found: &Found,
    body: Bytes,
) -> Result<Option<Vec<u64>>, ClassifyError> {
    let boundaries: Vec<u32> = found.deeper.iter().map(|b| b.block).collect();
    let from = found.hit.map(|(at, entry)| Counted {
        block: at.block,
        tokens: entry.tokens.into(),
    });
    let tokens = Arc::clone(&model.tokens);
    let start = Instant::now();
    let counted = service
        .pool
        .run(body.len(), move |deadline| {
            let Ok(prompt) = Prompt::parse(&body) else {
                return Ok(Err("the body is not a chat request"));
            };
            let deepest = boundaries.last().map_or(0, |block| *block as usize);
            if deepest >= prompt.block_count() {
                return Ok(Err("a breakpoint's block is not in the body"));
            }
            tokens
                .count(&prompt, from, &boundaries, &|| deadline.go_on())
                .map(|counts| Ok(counts.prefixes))
        })
        .await;
    service
        .metrics
        .tokenize_seconds
        .observe(start.elapsed().as_secs_f64());
    let (outcome, result) = match counted {
        Ok(Ok(counts)) => (TokenizeOutcome::Ok, Ok(Some(counts))),
        Ok(Err(why)) => (TokenizeOutcome::Failed, Err(ClassifyError::Invalid(why))),
        Err(PoolError::Count(CountError::TooSlow)) => (TokenizeOutcome::Timeout, Ok(None)),
        Err(PoolError::Count(CountError::TooLarge)) => (TokenizeOutcome::TooLarge, Ok(None)),
        Err(PoolError::Count(CountError::Failed)) => (TokenizeOutcome::Failed, Ok(None)),
        Err(PoolError::Full) => {
            service.metrics.shed.count(Shed::TokenizeQueue);
            (TokenizeOutcome::Busy, Err(ClassifyError::Busy))
        }
    };
    service.metrics.tokenize.count(outcome);
    result
}

fn split(
    request: &ClassifyRequest,
    model: &ActiveModel,
    found: &Found,
    counts: &[u64],
) -> Result<Classified, ClassifyError> {
    let mut counted = Vec::with_capacity(counts.len());
    for (breakpoint, tokens) in found.deeper.iter().zip(counts) {
        let candidate = request
            .candidates
            .iter()
            .find(|c| c.block == breakpoint.block);
        let Some(candidate) = candidate else {
            return Err(ClassifyError::Invalid(
                "a breakpoint is not among the candidates",
            ));
        };
        counted.push((candidate.hash, *tokens));
    }
    let (split, writes) = split_writes(found, &counted, model.policy.min_prefix_tokens);
    Ok(Classified {
        tokenizer_version: model.policy.tokenizer_version.clone(),
        split,
        writes,
    })
}

fn record(service: &Service, model: &str, split: &Split) {
    if split.read > 0 {
        let labels = ModelLabels {
            model: model.to_owned(),
        };
        service
            .metrics
            .read_tokens
            .get_or_create(&labels)
            .inc_by(split.read);
    }
    for tier in Tier::ALL {
        let tokens = split.creation.get(tier);
        if tokens > 0 {
            let labels = TierLabels {
                model: model.to_owned(),
                tier: tier.as_str(),
            };
            service
                .metrics
                .created_tokens
                .get_or_create(&labels)
                .inc_by(tokens);
        }
    }
}
