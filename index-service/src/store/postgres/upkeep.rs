//! What keeps the tables in order, and what looks at all of them.

use deadpool_postgres::ClientWrapper;
use prompt_cache_core::PrefixHash;
use prompt_cache_core::ledger::{Fingerprint, NewEntry};
use tokio_postgres::Error;
use tokio_postgres::types::ToSql;

use super::operations::{Operation, bigint, entry};
use crate::store::{Cursor, Epoch, Page, SCOPE_BYTES, Scope, ScopeInfo, Stats, Swept, Write};

/// Entries up to which `stats` counts; beyond, PostgreSQL's own estimate is used.
const COUNTED_ENTRIES_MAX: i64 = 10_000;

/// `Store::sweep`: removes what has expired among the rows that are due, and moves the others'
/// next look on to their expiry. Rows that somebody else
/// holds are left for the next sweep.
pub struct Sweep {
    pub now_ms: u64,
    pub limit: usize,
}

impl Operation for Sweep {
    type Answer = Swept;

    async fn run(&self, client: &ClientWrapper) -> Result<Swept, Error> {
        let statement = client
            .prepare_cached(
                "WITH due AS MATERIALIZED (
                     SELECT scope, hash, expires_at_ms FROM entries
                     WHERE due_s <= $1::bigint / 1000
                     ORDER BY due_s LIMIT $2
                     FOR UPDATE SKIP LOCKED
                 ), removed AS (
                     DELETE FROM entries AS e USING due
                     WHERE e.scope = due.scope AND e.hash = due.hash AND due.expires_at_ms <= $1
                     RETURNING 1
                 ), moved AS (
                     UPDATE entries AS e SET due_s = (due.expires_at_ms + 999) / 1000 FROM due
                     WHERE e.scope = due.scope AND e.hash = due.hash AND due.expires_at_ms > $1
                 )
                 SELECT (SELECT count(*) FROM removed), (SELECT count(*) FROM due)",
            )
            .await?;
        let limit = bigint(self.limit as u64);
        let row = client
            .query_one(&statement, &[&bigint(self.now_ms), &limit])
            .await?;
        let (removed, found): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Swept {
            removed: usize::try_from(removed).unwrap_or_default(),
            more: found >= limit,
        })
    }
}

/// `Store::stats` without its retries. Counting millions of rows takes seconds, and a scrape
/// must not.
pub struct Measure;

impl Operation for Measure {
    type Answer = Stats;

    async fn run(&self, client: &ClientWrapper) -> Result<Stats, Error> {
        let statement = client
            .prepare_cached(
                "SELECT (SELECT count(*) FROM (SELECT 1 FROM entries LIMIT $1::bigint + 1) AS counted),
                     greatest(reltuples, 0)::bigint, pg_total_relation_size(oid)
                 FROM pg_class WHERE oid = 'entries'::regclass",
            )
            .await?;
        let row = client
            .query_one(&statement, &[&COUNTED_ENTRIES_MAX])
            .await?;
        let (counted, estimated, bytes): (i64, i64, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let entries = if counted > COUNTED_ENTRIES_MAX {
            estimated.max(counted)
        } else {
            counted
        };
        Ok(Stats {
            entries: u64::try_from(entries).unwrap_or_default(),
            disk_bytes: u64::try_from(bytes).unwrap_or_default(),
            retries: 0,
        })
    }
}

/// `Store::ping`: whether the server takes writes, which a standby does not.
pub struct Ping;

impl Operation for Ping {
    type Answer = bool;

    async fn run(&self, client: &ClientWrapper) -> Result<bool, Error> {
        let statement = client
            .prepare_cached(
                "SELECT NOT pg_is_in_recovery()
                     AND NOT current_setting('transaction_read_only')::boolean",
            )
            .await?;
        client.query_one(&statement, &[]).await?.try_get(0)
    }
}

/// `Store::register`.
pub struct Register {
    scopes: Vec<Vec<u8>>,
    accounts: Vec<Vec<u8>>,
    models: Vec<String>,
    tokenizer_versions: Vec<String>,
}

impl Register {
    pub fn new(infos: &[ScopeInfo]) -> Self {
        let column = |of: fn(&ScopeInfo) -> Vec<u8>| infos.iter().map(of).collect();
        Self {
            scopes: column(|info| info.scope().as_bytes().to_vec()),
            accounts: column(|info| info.account.as_bytes().to_vec()),
            models: infos.iter().map(|info| info.model.clone()).collect(),
            tokenizer_versions: infos
                .iter()
                .map(|info| info.tokenizer_version.clone())
                .collect(),
        }
    }
}

impl Operation for Register {
    type Answer = ();

    async fn run(&self, client: &ClientWrapper) -> Result<(), Error> {
        let statement = client
            .prepare_cached(
                "INSERT INTO scopes (scope, account, model, tokenizer_version)
                 SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::text[], $4::text[])
                     AS new (scope, account, model, tokenizer_version)
                 ORDER BY scope
                 ON CONFLICT DO NOTHING",
            )
            .await?;
        let Self {
            scopes,
            accounts,
            models,
            tokenizer_versions,
        } = self;
        client
            .execute(&statement, &[scopes, accounts, models, tokenizer_versions])
            .await?;
        Ok(())
    }
}

/// `Store::scopes`, in the order of the scopes.
pub struct Scopes {
    pub from: Cursor,
    pub limit: usize,
}

impl Operation for Scopes {
    type Answer = Page<ScopeInfo>;

    async fn run(&self, client: &ClientWrapper) -> Result<Self::Answer, Error> {
        let statement = client
            .prepare_cached(
                "SELECT scope, account, model, tokenizer_version FROM scopes
                 WHERE scope > $1 ORDER BY scope LIMIT $2",
            )
            .await?;
        let limit = self.limit.max(1);
        let parameters: [&(dyn ToSql + Sync); 2] = [&self.from.as_bytes(), &bigint(limit as u64)];
        let rows = client.query(&statement, &parameters).await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in &rows {
            let Some(account) = fixed(row.try_get(1)?) else {
                continue;
            };
            items.push(ScopeInfo {
                account: Fingerprint::new(account),
                model: row.try_get(2)?,
                tokenizer_version: row.try_get(3)?,
            });
        }
        let next = match rows.last().filter(|_| rows.len() == limit) {
            Some(row) => Some(Cursor::new(row.try_get(0)?)),
            None => None,
        };
        Ok(Page { items, next })
    }
}

/// One step of `Store::purge`: removes at most `limit` entries and says how many.
pub struct Remove<'a> {
    pub scopes: &'a [Scope],
    pub limit: usize,
}

impl Operation for Remove<'_> {
    type Answer = u64;

    async fn run(&self, client: &ClientWrapper) -> Result<u64, Error> {
        let statement = client
            .prepare_cached(
                "WITH gone AS MATERIALIZED (
                     SELECT scope, hash FROM entries WHERE scope = ANY ($1)
                     ORDER BY scope, hash LIMIT $2
                     FOR UPDATE
                 )
                 DELETE FROM entries AS e USING gone
                 WHERE e.scope = gone.scope AND e.hash = gone.hash",
            )
            .await?;
        let scopes: Vec<&[u8]> = self.scopes.iter().map(|s| &s.as_bytes()[..]).collect();
        client
            .execute(&statement, &[&scopes, &bigint(self.limit as u64)])
            .await
    }
}

/// The end of `Store::purge`.
pub struct ReplaceEpoch(pub Epoch);

impl Operation for ReplaceEpoch {
    type Answer = ();

    async fn run(&self, client: &ClientWrapper) -> Result<(), Error> {
        let statement = client.prepare_cached("UPDATE epoch SET value = $1").await?;
        let value = &self.0.as_bytes()[..];
        client.execute(&statement, &[&value]).await?;
        Ok(())
    }
}

/// `Store::epoch`; `None` for a value that no version has written.
pub struct ReadEpoch;

impl Operation for ReadEpoch {
    type Answer = Option<Epoch>;

    async fn run(&self, client: &ClientWrapper) -> Result<Self::Answer, Error> {
        let statement = client.prepare_cached("SELECT value FROM epoch").await?;
        let row = client.query_one(&statement, &[]).await?;
        Ok(fixed(row.try_get(0)?).map(Epoch::from_bytes))
    }
}

/// `Store::scan`, in the order of the keys.
pub struct Scan {
    pub from: Cursor,
    pub limit: usize,
}

impl Operation for Scan {
    type Answer = Page<Write>;

    async fn run(&self, client: &ClientWrapper) -> Result<Self::Answer, Error> {
        let statement = client
            .prepare_cached(
                "SELECT hash, tokens, tier, expires_at_ms, scope FROM entries
                 WHERE (scope, hash) > ($1, $2) ORDER BY scope, hash LIMIT $3",
            )
            .await?;
        let limit = self.limit.max(1);
        let place = self.from.as_bytes();
        // At the beginning both are empty, which is before every key.
        let (scope, hash) = place.split_at(place.len().min(SCOPE_BYTES));
        let rows = client
            .query(&statement, &[&scope, &hash, &bigint(limit as u64)])
            .await?;
        let mut page = Page {
            items: Vec::with_capacity(rows.len()),
            next: None,
        };
        for row in &rows {
            let (hash, scope): (&[u8], &[u8]) = (row.try_get(0)?, row.try_get(4)?);
            if rows.len() == limit {
                page.next = Some(Cursor::new([scope, hash].concat()));
            }
            if let (Some(entry), Some(hash), Some(scope)) = (entry(row)?, fixed(hash), fixed(scope))
            {
                page.items.push(Write {
                    scope: Scope::from_bytes(scope),
                    entry: NewEntry {
                        hash: PrefixHash::new(hash),
                        tokens: entry.tokens,
                        tier: entry.tier,
                    },
                    expires_at_ms: entry.expires_at_ms,
                });
            }
        }
        Ok(page)
    }
}

/// Bytes of the expected length.
fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}
