//! The commit: what successful requests earned becomes readable.

use std::sync::Arc;
use std::time::Instant;

use prompt_cache_core::ledger::Fingerprint;
use prompt_cache_core::wire::{Commit, CommitAnswer, CommitBatch, LeasedRead};
use tracing::{Instrument as _, Span, info_span};

use crate::leased;
use crate::metrics::{CommitOutcome, RefreshOutcome, StoreOperation, Tally};
use crate::policy::ActiveModel;
use crate::state::Service;
use crate::store::{Scope, ScopeInfo, StoreError, Write};

/// Writes a batch that has passed `http::checks`. Returns once it is durable.
///
/// # Errors
/// When the store fails; then nothing is acknowledged and the filter delivers again, which is
/// harmless because commits are idempotent.
pub async fn commit(service: &Service, batch: &CommitBatch) -> Result<CommitAnswer, StoreError> {
    let start = Instant::now();
    service.principals.check_loaded()?;
    let now_ms = service.clock.now_ms();
    let mut answer = CommitAnswer {
        // Before the writes: what a purge removes of them is not leased in the epoch after it.
        epoch: service.announcer.epoch().as_ref().to_owned(),
        ..CommitAnswer::default()
    };
    let mut writes = Vec::new();
    let mut unregistered = Vec::new();
    for commit in &batch.commits {
        match admit(service, commit) {
            Ok((model, account)) => {
                record_drift(service, commit);
                let scope = Scope::of(&account, &commit.model, &commit.tokenizer_version);
                if !service.registry.knows(&scope) {
                    unregistered.push(ScopeInfo {
                        account,
                        model: commit.model.clone(),
                        tokenizer_version: commit.tokenizer_version.clone(),
                    });
                }
                for entry in &commit.writes {
                    let admitted = write_of(&model, scope, commit.age_ms, *entry, now_ms);
                    match admitted {
                        Ok(write) => writes.push(write),
                        Err(outcome) => drop_entries(service, &mut answer, outcome, 1),
                    }
                }
            }
            Err(outcome) => {
                drop_entries(service, &mut answer, outcome, commit.writes.len() as u64);
            }
        }
    }
    let written = writes.len() as u64;
    let stored = if writes.is_empty() {
        Ok(())
    } else {
        store(service, &unregistered, writes, now_ms).await
    };
    service
        .metrics
        .commit_seconds
        .observe(start.elapsed().as_secs_f64());
    if let Err(error) = stored {
        tracing::warn!(%error, entries = written, "commit failed");
        service.metrics.store_errors.count(StoreOperation::Write);
        service
            .metrics
            .commit_entries
            .count_by(CommitOutcome::StoreError, written);
        return Err(error);
    }
    service
        .metrics
        .commit_entries
        .count_by(CommitOutcome::Written, written);
    answer.written = written;
    answer.reads_dropped = refresh(service, &batch.reads, now_ms).await?;
    let span = Span::current();
    span.record("commits", batch.commits.len());
    span.record("reads", batch.reads.len());
    span.record("written", written);
    span.record("dropped", answer.dropped);
    tracing::debug!(written, dropped = answer.dropped, "committed");
    Ok(answer)
}

/// Extends the lives of what was read; returns how many reads were dropped.
async fn refresh(service: &Service, reads: &[LeasedRead], now_ms: u64) -> Result<u64, StoreError> {
    let read = async {
        let mut looked = leased::refreshes(service, reads, now_ms).await?;
        let refreshes = std::mem::take(&mut looked.refreshes);
        let count = refreshes.len() as u64;
        if count > 0 {
            let span = info_span!("store.refresh", entries = refreshes.len());
            service.store.refresh(refreshes).instrument(span).await?;
        }
        Ok((count, looked))
    };
    let (count, looked) = read.await.inspect_err(|error: &StoreError| {
        tracing::warn!(%error, reads = reads.len(), "leased reads failed");
        service.metrics.store_errors.count(StoreOperation::Refresh);
    })?;
    service
        .metrics
        .refreshes
        .count_by(RefreshOutcome::Written, count);
    leased::count(service, reads, &looked, now_ms);
    Ok(looked.dropped)
}

/// A scope is known before it has entries, so that a purge misses none.
async fn store(
    service: &Service,
    unregistered: &[ScopeInfo],
    writes: Vec<Write>,
    now_ms: u64,
) -> Result<(), StoreError> {
    let registry = &service.registry;
    if !unregistered.is_empty() {
        let span = info_span!("store.register", scopes = unregistered.len());
        let registered = registry.register(&*service.store, unregistered);
        registered.instrument(span).await?;
    }
    let span = info_span!("store.write", entries = writes.len());
    service.store.write(writes, now_ms).instrument(span).await
}

/// The model and account of a commit that is served, or why it is not.
fn admit(
    service: &Service,
    commit: &Commit,
) -> Result<(Arc<ActiveModel>, Fingerprint), CommitOutcome> {
    let model = service
        .models
        .get(&commit.model)
        .ok_or(CommitOutcome::UnknownModel)?;
    if commit.tokenizer_version != model.policy.tokenizer_version {
        return Err(CommitOutcome::OtherVersion);
    }
    let account = service
        .principals
        .account_of(&commit.principal)
        .ok_or(CommitOutcome::UnknownPrincipal)?;
    Ok((model, account))
}

/// The write of one entry. Its life counts from the end of the response, not from the delivery
/// of the commit: a repeated delivery never lengthens it.
fn write_of(
    model: &ActiveModel,
    scope: Scope,
    age_ms: u64,
    entry: prompt_cache_core::ledger::NewEntry,
    now_ms: u64,
) -> Result<Write, CommitOutcome> {
    if !model.policy.tiers.contains(&entry.tier) {
        return Err(CommitOutcome::TierDisabled);
    }
    let born_ms = now_ms.saturating_sub(age_ms);
    let expires_at_ms = born_ms.saturating_add(entry.tier.duration_ms());
    if expires_at_ms <= now_ms {
        return Err(CommitOutcome::Expired);
    }
    Ok(Write {
        scope,
        entry,
        expires_at_ms,
    })
}

fn drop_entries(
    service: &Service,
    answer: &mut CommitAnswer,
    outcome: CommitOutcome,
    entries: u64,
) {
    answer.dropped += entries;
    service.metrics.commit_entries.count_by(outcome, entries);
}

/// What the filter saw of a whole prompt, both counts.
fn record_drift(service: &Service, commit: &Commit) {
    if let (Some(ours), Some(theirs)) = (commit.counted_prompt_tokens, commit.prompt_tokens) {
        service
            .drift
            .compare(&service.metrics, &commit.model, ours, theirs);
    }
}
