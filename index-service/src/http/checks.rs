//! What a request must satisfy beyond its types, before anything is looked up.

use axum::http::StatusCode;
use prompt_cache_core::ledger::{MAX_BREAKPOINTS, MAX_CANDIDATES};
use prompt_cache_core::wire::{
    ClassifyRequest, CommitBatch, MAX_COMMITS_PER_BATCH, MAX_READS_PER_BATCH, WIRE_VERSION,
};
use serde::Deserialize;

use super::Failure;
use crate::config::MODEL_NAME_BYTES_MAX;

/// Longest tokenizer version that is looked at.
const TOKENIZER_VERSION_BYTES_MAX: usize = 128;

/// A request that names the protocol version it speaks.
pub trait Versioned {
    /// Its `v`.
    fn version(&self) -> u32;
}

impl Versioned for ClassifyRequest {
    fn version(&self) -> u32 {
        self.v
    }
}

impl Versioned for CommitBatch {
    fn version(&self) -> u32 {
        self.v
    }
}

/// Parses a request of this protocol version. One of another version hears that, and not which
/// of its new fields is unknown here.
///
/// # Errors
/// 400 that says what is wrong.
pub fn parse<'a, T: Deserialize<'a> + Versioned>(json: &'a [u8]) -> Result<T, Failure> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let request = serde_json::from_slice::<T>(json);
    let version = match &request {
        Ok(request) => Some(request.version()),
        Err(_) => serde_json::from_slice::<Version>(json)
            .ok()
            .map(|version| version.v),
    };
    match version {
        Some(v) if v != WIRE_VERSION => Err(Failure::new(
            StatusCode::BAD_REQUEST,
            "unsupported_version",
            format!("protocol version {v} is not served, {WIRE_VERSION} is"),
        )),
        _ => request.map_err(|error| malformed(&error)),
    }
}

fn malformed(error: &serde_json::Error) -> Failure {
    Failure::invalid(format!("malformed request: {error}"))
}

/// Checks a classification.
///
/// # Errors
/// 400 with the rule that is broken.
pub fn classify(request: &ClassifyRequest) -> Result<(), Failure> {
    check_model(&request.model)?;
    let breakpoints = &request.breakpoints;
    let candidates = &request.candidates;
    if breakpoints.is_empty() {
        return Err(Failure::invalid("no breakpoints"));
    }
    if breakpoints.len() > MAX_BREAKPOINTS {
        return Err(Failure::invalid(format!(
            "more than {MAX_BREAKPOINTS} breakpoints"
        )));
    }
    if candidates.len() > MAX_CANDIDATES {
        return Err(Failure::invalid(format!(
            "more than {MAX_CANDIDATES} candidates"
        )));
    }
    if !breakpoints.is_sorted_by(|a, b| a.block < b.block) {
        return Err(Failure::invalid("breakpoints must ascend without repeats"));
    }
    if !candidates.is_sorted_by(|a, b| a.block < b.block) {
        return Err(Failure::invalid("candidates must ascend without repeats"));
    }
    let is_candidate = |block| candidates.binary_search_by_key(&block, |c| c.block).is_ok();
    if !breakpoints.iter().all(|b| is_candidate(b.block)) {
        return Err(Failure::invalid("a breakpoint is not among the candidates"));
    }
    if candidates.last().map(|c| c.block) != breakpoints.last().map(|b| b.block) {
        return Err(Failure::invalid(
            "a candidate lies after the last breakpoint",
        ));
    }
    Ok(())
}

/// Checks a commit batch.
///
/// # Errors
/// 400 with the rule that is broken.
pub fn commit(batch: &CommitBatch) -> Result<(), Failure> {
    if batch.commits.len() > MAX_COMMITS_PER_BATCH {
        return Err(Failure::invalid(format!(
            "more than {MAX_COMMITS_PER_BATCH} commits"
        )));
    }
    if batch.reads.len() > MAX_READS_PER_BATCH {
        return Err(Failure::invalid(format!(
            "more than {MAX_READS_PER_BATCH} reads"
        )));
    }
    for read in &batch.reads {
        check_model(&read.model)?;
        check_version(&read.tokenizer_version)?;
        if read.hashes.len() > MAX_BREAKPOINTS {
            return Err(Failure::invalid(format!(
                "more than {MAX_BREAKPOINTS} hashes of a read"
            )));
        }
    }
    for commit in &batch.commits {
        check_model(&commit.model)?;
        check_version(&commit.tokenizer_version)?;
        if commit.writes.len() > MAX_BREAKPOINTS {
            return Err(Failure::invalid(format!(
                "more than {MAX_BREAKPOINTS} writes"
            )));
        }
    }
    Ok(())
}

fn check_version(version: &str) -> Result<(), Failure> {
    if version.len() > TOKENIZER_VERSION_BYTES_MAX {
        return Err(Failure::invalid("tokenizer_version is too long"));
    }
    Ok(())
}

fn check_model(model: &str) -> Result<(), Failure> {
    if model.is_empty() || model.len() > MODEL_NAME_BYTES_MAX {
        let message = format!("model must be 1 to {MODEL_NAME_BYTES_MAX} bytes");
        return Err(Failure::invalid(message));
    }
    Ok(())
}
