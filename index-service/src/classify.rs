//! The classification: look up, find the hit, count what is new, split it over the breakpoints.

use std::time::Instant;

use bytes::Bytes;
use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{Found, LiveEntry, Split, Tier, find_hit, split_writes};
use prompt_cache_core::wire::{Classified, ClassifyAnswer, ClassifyRequest, Lease, Uncached};
use tracing::{Instrument as _, Span, info_span};

use crate::count::{Tokens, Uncounted, count};
use crate::metrics::{ClassifyOutcome, ModelLabels, StoreOperation, Tally, TierLabels};
use crate::policy::ActiveModel;
use crate::state::Service;
use crate::status::Seen;
use crate::store::{Scope, StoreError};
use crate::tokens::Counted;
use crate::tokens::memory::Wanted;

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
    service.status.asked(service.clock.now_ms());
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
            reason: Uncached::UnknownPrincipal | Uncached::Other,
        }) => ClassifyOutcome::UnknownPrincipal,
        Err(error) => error.outcome(),
    };
    service.metrics.classify.count(outcome);
    let span = Span::current();
    span.record("outcome", tracing::field::debug(outcome));
    span.record("candidates", request.candidates.len());
    if let Ok(ClassifyAnswer::Ok(classified)) = &answer {
        span.record("read_tokens", classified.split.read);
        span.record("created_tokens", classified.split.creation.total());
    }
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
    // Only here it is known to be one of the configuration's.
    Span::current().record("model", request.model.as_str());
    service.principals.check_loaded()?;
    let Some(holder) = service.principals.holder_of(&request.principal) else {
        return Ok(ClassifyAnswer::Inactive {
            reason: Uncached::UnknownPrincipal,
        });
    };
    let scope = Scope::of(
        &holder.owner,
        &request.model,
        &model.policy.tokenizer_version,
    );
    // Before the look-up: what a purge in between removes is not leased in the epoch after it.
    let epoch = service.announcer.epoch();
    let now_ms = service.clock.now_ms();
    let found = look_up(service, request, scope, now_ms).await?;
    let mut classified = if found.deeper.is_empty() {
        pure_read(model, &found)
    } else {
        let Some(body) = body else {
            return Ok(ClassifyAnswer::TextNeeded { read: found.read() });
        };
        let wanted = wanted(request, &found)?;
        let from = found.hit.map(|(at, entry)| Counted {
            block: at.block,
            tokens: entry.tokens.into(),
        });
        let span = info_span!("count", text_bytes = body.len(), prefixes = wanted.len());
        let prompt = (request.api, body);
        let counts = count(service, model, scope, from, &wanted, prompt)
            .instrument(span)
            .await;
        match counts {
            Ok(counts) => split(service, model, &found, &wanted, &counts),
            Err(Uncounted::GaveUp) => pure_read(model, &found),
            Err(Uncounted::Invalid(why)) => return Err(ClassifyError::Invalid(why)),
            Err(Uncounted::Full) => return Err(ClassifyError::Busy),
        }
    };
    let seen = Seen {
        model: &request.model,
        account: holder.account,
        split: &classified.split,
        tier: found.hit.map(|(_, entry)| entry.tier),
        requests: 1,
    };
    record(service, &seen, now_ms);
    if classified.short_of_floor.is_some() {
        service.status.fell_below_floor();
    }
    classified.leases = leases(&found, now_ms);
    epoch.as_ref().clone_into(&mut classified.epoch);
    Ok(ClassifyAnswer::Ok(classified))
}

/// Looks the candidates up, finds the hit and sends the refreshes on their way.
async fn look_up(
    service: &Service,
    request: &ClassifyRequest,
    scope: Scope,
    now_ms: u64,
) -> Result<Found, ClassifyError> {
    let (breakpoints, candidates) = (&request.breakpoints, &request.candidates);
    let start = Instant::now();
    let live = service
        .store
        .find(&scope, breakpoints, candidates, now_ms)
        .instrument(info_span!("look_up", candidates = candidates.len()))
        .await;
    service
        .metrics
        .look_up_seconds
        .observe(start.elapsed().as_secs_f64());
    let live = live.inspect_err(|error| {
        tracing::warn!(%error, "look-up failed");
        service.metrics.store_errors.count(StoreOperation::LookUp);
    })?;
    let found = find_hit(breakpoints, candidates, &live);
    service.refreshes.push(scope, &found.refresh, now_ms);
    Ok(found)
}

/// What was found live, for the edge to remember. The expiry is the one before this read.
fn leases(found: &Found, now_ms: u64) -> Vec<Lease> {
    let lease = |(hash, entry): &(PrefixHash, LiveEntry)| Lease {
        hash: *hash,
        tokens: entry.tokens,
        tier: entry.tier,
        ttl_ms: entry.expires_at_ms.saturating_sub(now_ms),
    };
    found.refresh.iter().map(lease).collect()
}

/// What is answered when nothing is written: the read, if any.
fn pure_read(model: &ActiveModel, found: &Found) -> Classified {
    Classified {
        tokenizer_version: model.policy.tokenizer_version.clone(),
        split: Split {
            read: found.read(),
            ..Split::default()
        },
        ..Classified::default()
    }
}

/// The prefixes whose tokens are needed: one for each breakpoint after the hit.
fn wanted(request: &ClassifyRequest, found: &Found) -> Result<Vec<Wanted>, ClassifyError> {
    let candidates = &request.candidates;
    let hash_of = |block| candidates.iter().find(|c| c.block == block).map(|c| c.hash);
    found
        .deeper
        .iter()
        .map(|breakpoint| {
            let block = breakpoint.block;
            let hash = hash_of(block).ok_or(ClassifyError::Invalid(
                "a breakpoint is not among the candidates",
            ))?;
            Ok(Wanted { block, hash })
        })
        .collect()
}

/// The split of what was counted. A model whose counts have drifted writes nothing, if the
/// configuration says so, and goes on comparing.
fn split(
    service: &Service,
    model: &ActiveModel,
    found: &Found,
    wanted: &[Wanted],
    counts: &Tokens,
) -> Classified {
    let policy = &model.policy;
    let counted: Vec<(PrefixHash, u64)> = wanted
        .iter()
        .map(|wanted| wanted.hash)
        .zip(counts.prefixes.iter().copied())
        .collect();
    let (split, writes) = split_writes(found, &counted, policy.min_prefix_tokens);
    let deepest = counted.last().map(|(_, tokens)| *tokens);
    let short_of_floor =
        deepest.filter(|tokens| split.read == 0 && *tokens < policy.min_prefix_tokens);
    // Below the floor there is nothing to commit, and a comparison is not worth a call.
    let counted_prompt_tokens = counts.prompt.filter(|_| !writes.is_empty());
    let (split, writes) = if service.drift.stops_writes(&policy.model) {
        service.status.stopped_write();
        (pure_read(model, found).split, Vec::new())
    } else {
        (split, writes)
    };
    Classified {
        tokenizer_version: policy.tokenizer_version.clone(),
        split,
        writes,
        counted_prompt_tokens,
        short_of_floor,
        ..Classified::default()
    }
}

/// Counts what was read and created.
pub(crate) fn record(service: &Service, seen: &Seen<'_>, now_ms: u64) {
    let Seen { model, split, .. } = *seen;
    service.status.saw(seen, now_ms);
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
