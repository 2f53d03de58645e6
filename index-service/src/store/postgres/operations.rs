//! What requests ask of the database: each one round trip on a connection that has prepared it.
//!
//! Rows are locked in the order of their keys, so that two operations never wait for each other in
//! a circle.

use std::collections::HashMap;

use deadpool_postgres::ClientWrapper;
use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::LiveEntry;
use tokio_postgres::{Error, Row};

use super::batch::{RefreshBatch, Round};
use crate::store::Scope;
use crate::store::tier::tier_of;

/// Something to do on a connection. May be done twice, so it must be the same as once.
pub trait Operation: Sync {
    type Answer: Send;

    fn run(
        &self,
        client: &ClientWrapper,
    ) -> impl Future<Output = Result<Self::Answer, Error>> + Send;
}

/// A time or a count as the database holds it.
pub fn bigint(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// `Store::look_up`.
pub struct LookUp<'a> {
    pub scope: &'a Scope,
    pub hashes: &'a [PrefixHash],
    pub now_ms: u64,
}

impl Operation for LookUp<'_> {
    type Answer = Vec<Option<LiveEntry>>;

    async fn run(&self, client: &ClientWrapper) -> Result<Self::Answer, Error> {
        let statement = client
            .prepare_cached(
                "SELECT hash, tokens, tier, expires_at_ms FROM entries
                 WHERE scope = $1 AND hash = ANY ($2) AND expires_at_ms > $3",
            )
            .await?;
        let hashes: Vec<&[u8]> = self.hashes.iter().map(|h| &h.as_bytes()[..]).collect();
        let scope = &self.scope.as_bytes()[..];
        let rows = client
            .query(&statement, &[&scope, &hashes, &bigint(self.now_ms)])
            .await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            let hash: &[u8] = row.try_get(0)?;
            found.insert(hash, entry(row)?);
        }
        Ok(hashes
            .iter()
            .map(|hash| found.get(hash).copied().flatten())
            .collect())
    }
}

/// The entry of a row's columns 1 to 3; one of a tier or a count that this version does not know
/// reads as none.
pub fn entry(row: &Row) -> Result<Option<LiveEntry>, Error> {
    let (tokens, tier, expires_at_ms): (i64, i16, i64) =
        (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    let tier = u8::try_from(tier).ok().and_then(tier_of);
    Ok(
        match (u32::try_from(tokens), tier, u64::try_from(expires_at_ms)) {
            (Ok(tokens), Some(tier), Ok(expires_at_ms)) => Some(LiveEntry {
                tokens,
                tier,
                expires_at_ms,
            }),
            _ => None,
        },
    )
}

/// One round of `Store::write`: every key at most once. This is [`crate::store::merge`] in SQL.
pub struct WriteRound<'a> {
    pub round: &'a Round,
    pub now_ms: u64,
}

impl Operation for WriteRound<'_> {
    type Answer = ();

    async fn run(&self, client: &ClientWrapper) -> Result<(), Error> {
        let statement = client
            .prepare_cached(
                "INSERT INTO entries AS e (scope, hash, tokens, tier, expires_at_ms, due_s)
                 SELECT scope, hash, tokens, tier, expires_at_ms, (expires_at_ms + 999) / 1000
                 FROM unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::smallint[], $5::bigint[])
                     AS new (scope, hash, tokens, tier, expires_at_ms)
                 ORDER BY scope, hash
                 ON CONFLICT (scope, hash) DO UPDATE SET
                     tokens = CASE WHEN e.expires_at_ms > $6
                         THEN e.tokens ELSE excluded.tokens END,
                     tier = CASE WHEN e.expires_at_ms > $6
                         THEN greatest(e.tier, excluded.tier) ELSE excluded.tier END,
                     expires_at_ms = CASE WHEN e.expires_at_ms > $6
                         THEN greatest(e.expires_at_ms, excluded.expires_at_ms)
                         ELSE excluded.expires_at_ms END
                 WHERE e.expires_at_ms <= $6
                     OR e.tier < excluded.tier
                     OR e.expires_at_ms < excluded.expires_at_ms",
            )
            .await?;
        let Round {
            scopes,
            hashes,
            tokens,
            tiers,
            expires_at_ms,
        } = self.round;
        let now_ms = bigint(self.now_ms);
        client
            .execute(
                &statement,
                &[scopes, hashes, tokens, tiers, expires_at_ms, &now_ms],
            )
            .await?;
        Ok(())
    }
}

impl Operation for RefreshBatch {
    type Answer = ();

    /// The rows are locked in order before they are changed: an update alone takes them in the
    /// order of its plan.
    async fn run(&self, client: &ClientWrapper) -> Result<(), Error> {
        let statement = client
            .prepare_cached(
                "WITH held AS MATERIALIZED (
                     SELECT stored.scope, stored.hash, asked.expires_at_ms
                     FROM unnest($1::bytea[], $2::bytea[], $3::bigint[])
                         AS asked (scope, hash, expires_at_ms)
                     JOIN entries AS stored USING (scope, hash)
                     WHERE stored.expires_at_ms < asked.expires_at_ms
                     ORDER BY stored.scope, stored.hash
                     FOR NO KEY UPDATE OF stored
                 )
                 UPDATE entries AS e SET expires_at_ms = held.expires_at_ms
                 FROM held
                 WHERE e.scope = held.scope AND e.hash = held.hash
                     AND e.expires_at_ms < held.expires_at_ms",
            )
            .await?;
        client
            .execute(
                &statement,
                &[&self.scopes, &self.hashes, &self.expires_at_ms],
            )
            .await?;
        Ok(())
    }
}
