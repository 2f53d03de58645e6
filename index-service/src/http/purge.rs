//! `POST /v1/purge`: asks for the admin token, not the filter's.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use prompt_cache_core::ledger::Fingerprint;
use serde::Deserialize;

use super::checks::{self, Versioned};
use super::limits::read_body;
use super::{Failure, json};
use crate::metrics::{StoreOperation, Tally};
use crate::purge::{Selection, purge};
use crate::state::Service;

/// Largest request.
const BODY_BYTES_MAX: usize = 4096;

/// What to purge: everything that is given must match, and something must be given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PurgeRequest {
    v: u32,
    account: Option<String>,
    principal: Option<Fingerprint>,
    model: Option<String>,
}

impl Versioned for PurgeRequest {
    fn version(&self) -> u32 {
        self.v
    }
}

/// Purges and says how much.
pub async fn purge_entries(
    State(service): State<Arc<Service>>,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let Some(admin) = &service.admin else {
        let message = "no admin_token is configured";
        return Err(Failure::new(StatusCode::FORBIDDEN, "disabled", message));
    };
    if !admin.admits(parts.headers.get(header::AUTHORIZATION)) {
        tracing::warn!("purge refused: wrong admin token");
        let message = "the admin token is needed";
        return Err(Failure::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            message,
        ));
    }
    let bytes = read_body(&parts.headers, body, BODY_BYTES_MAX).await?;
    let request: PurgeRequest = checks::parse(&bytes)?;
    if let Err(error) = service.principals.check_loaded() {
        return Err(Failure::unavailable("store_unavailable", error.to_string()));
    }
    let selection = select(&service, &request)?;
    // On a task of its own: a caller that goes away does not stop half-way.
    let task = tokio::spawn({
        let service = Arc::clone(&service);
        async move { run(&service, &selection, &request).await }
    });
    match task.await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::unavailable(
            "store_unavailable",
            "the purge broke off",
        )),
    }
}

async fn run(
    service: &Service,
    selection: &Selection,
    request: &PurgeRequest,
) -> Result<Response, Failure> {
    let outcome = purge(&*service.store, selection).await;
    service.announcer.expire();
    // The audit line: who asked is the token's holder; fingerprints are not logged.
    let (account, model) = (request.account.as_deref(), request.model.as_deref());
    let by_principal = request.principal.is_some();
    match outcome {
        Ok(purged) => {
            let (scopes, entries) = (purged.scopes, purged.entries);
            tracing::info!(account, by_principal, model, scopes, entries, "purged");
            service.metrics.purged_entries.inc_by(entries);
            Ok(json(&purged))
        }
        Err(error) => {
            tracing::warn!(%error, account, by_principal, model, "purge failed");
            service.metrics.store_errors.count(StoreOperation::Purge);
            let message = "the store did not answer; part of the purge may be done";
            Err(Failure::unavailable("store_unavailable", message))
        }
    }
}

fn select(service: &Service, request: &PurgeRequest) -> Result<Selection, Failure> {
    let principals = &service.principals;
    let owners = match (&request.account, &request.principal) {
        (Some(_), Some(_)) => {
            return Err(Failure::invalid("account and principal: give one of them"));
        }
        (Some(name), None) => Some(
            principals
                .owned_by_account(name)
                .ok_or_else(|| Failure::invalid("there is no such account"))?,
        ),
        (None, Some(principal)) => Some(principals.owned_by(principal)),
        (None, None) => None,
    };
    if owners.is_none() && request.model.is_none() {
        return Err(Failure::invalid("give an account, a principal or a model"));
    }
    Ok(Selection {
        owners,
        model: request.model.clone(),
    })
}
