//! The accounts in PostgreSQL: tables beside the ledger's, edited with SQL or by the `accounts`
//! command.

use std::collections::HashMap;

use deadpool_postgres::ClientWrapper;
use prompt_cache_core::ledger::Fingerprint;
use tokio_postgres::{Error, GenericClient, Row, Transaction};

use super::connection::{Connector, failed};
use super::operations::Operation;
use crate::accounts::{Account, AccountMap};
use crate::config::PostgresConfig;
use crate::store::StoreError;

/// Longest time to read all accounts, or to change one: there may be a million of them.
const ACCOUNTS_TIMEOUT_MS: u64 = 30_000;
/// Keys, and accounts without one, that are read.
const ROWS_MAX: usize = 4_000_000;

/// The accounts tables, on one connection of their own: reading many accounts takes none from
/// the requests.
pub struct AccountsTable {
    connector: Connector,
}

/// Why accounts were not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The change is not possible, in words.
    #[error("{0}")]
    Refused(String),
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AccountsTable {
    /// The accounts beside the ledger of that configuration. Connects when it is first used.
    ///
    /// # Errors
    /// When the configured certificate authorities cannot be read.
    pub fn open(config: &PostgresConfig) -> Result<Self, StoreError> {
        let connector = Connector::new(&PostgresConfig {
            connections_max: 1,
            operation_timeout_ms: ACCOUNTS_TIMEOUT_MS,
            ..config.clone()
        })?;
        Ok(Self { connector })
    }

    /// Changes whenever the accounts may have changed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn version(&self) -> Result<String, StoreError> {
        self.connector.perform(&ReadVersion).await
    }

    /// All accounts, by name.
    ///
    /// # Errors
    /// When the database does not answer, or holds too many.
    pub async fn read(&self) -> Result<Vec<Account>, StoreError> {
        accounts(&self.connector.perform(&ReadAccounts).await?)
    }

    /// Changes accounts, all of it or nothing. Others who do so wait; the outcome follows the
    /// rules of a map. Not tried again: whether it happened is not known when the connection breaks.
    ///
    /// # Errors
    /// [`EditError`]; `change` gives the words of its refusal.
    pub async fn edit(
        &self,
        change: impl FnOnce(&mut Vec<Account>) -> Result<(), String>,
    ) -> Result<(), EditError> {
        let work = async |transaction: Transaction<'_>| {
            let sql = |error| EditError::Store(failed(&error));
            transaction
                .execute("SELECT 1 FROM accounts_version FOR UPDATE", &[])
                .await
                .map_err(sql)?;
            let before = accounts(&read(&transaction).await.map_err(sql)?)?;
            let mut after = before.clone();
            change(&mut after).map_err(EditError::Refused)?;
            AccountMap::new(after.clone()).map_err(|(_, reason)| EditError::Refused(reason))?;
            for account in missing(&before, &after) {
                remove(&transaction, account).await.map_err(sql)?;
            }
            for account in missing(&after, &before) {
                insert(&transaction, account).await.map_err(sql)?;
            }
            transaction.commit().await.map_err(sql)
        };
        self.connector.transact(work).await
    }
}

struct ReadVersion;

impl Operation for ReadVersion {
    type Answer = String;

    async fn run(&self, client: &ClientWrapper) -> Result<String, Error> {
        let statement = client
            .prepare_cached("SELECT value FROM accounts_version")
            .await?;
        client.query_one(&statement, &[]).await?.try_get(0)
    }
}

struct ReadAccounts;

impl Operation for ReadAccounts {
    type Answer = Vec<Row>;

    async fn run(&self, client: &ClientWrapper) -> Result<Vec<Row>, Error> {
        read(&**client).await
    }
}

/// One row per key, and one per account without a key, those of an account together.
async fn read(client: &impl GenericClient) -> Result<Vec<Row>, Error> {
    let limit = i64::try_from(ROWS_MAX).unwrap_or(i64::MAX);
    client
        .query(
            "SELECT account, continues, fingerprint
             FROM accounts LEFT JOIN account_keys USING (account)
             ORDER BY account, fingerprint LIMIT $1 + 1::bigint",
            &[&limit],
        )
        .await
}

fn accounts(rows: &[Row]) -> Result<Vec<Account>, StoreError> {
    if rows.len() > ROWS_MAX {
        let reason = format!("more than {ROWS_MAX} keys of accounts");
        return Err(StoreError::Failed(reason));
    }
    let mut accounts: Vec<Account> = Vec::new();
    for row in rows {
        let name: &str = row.try_get(0).map_err(|error| failed(&error))?;
        let key = fingerprint(row, 2)?;
        match accounts.last_mut().filter(|last| last.name == name) {
            Some(account) => account.keys.extend(key),
            None => accounts.push(Account {
                name: name.to_owned(),
                keys: key.into_iter().collect(),
                continues: fingerprint(row, 1)?,
            }),
        }
    }
    Ok(accounts)
}

fn fingerprint(row: &Row, column: usize) -> Result<Option<Fingerprint>, StoreError> {
    let bytes: Option<&[u8]> = row.try_get(column).map_err(|error| failed(&error))?;
    bytes
        .map(|bytes| {
            let bytes = bytes.try_into();
            bytes.map(Fingerprint::new).map_err(|_| {
                let reason = "a fingerprint of an account has not 32 bytes";
                StoreError::Failed(reason.to_owned())
            })
        })
        .transpose()
}

/// Those of `accounts` that are not, or not the same, among `others`.
fn missing<'a>(
    accounts: &'a [Account],
    others: &'a [Account],
) -> impl Iterator<Item = &'a Account> {
    let others: HashMap<&str, &Account> = others
        .iter()
        .map(|account| (account.name.as_str(), account))
        .collect();
    accounts
        .iter()
        .filter(move |account| others.get(account.name.as_str()) != Some(account))
}

async fn remove(transaction: &Transaction<'_>, account: &Account) -> Result<(), Error> {
    let statement = "DELETE FROM accounts WHERE account = $1";
    transaction.execute(statement, &[&account.name]).await?;
    Ok(())
}

async fn insert(transaction: &Transaction<'_>, account: &Account) -> Result<(), Error> {
    let continues = account.continues.as_ref().map(|key| &key.as_bytes()[..]);
    let statement = "INSERT INTO accounts (account, continues) VALUES ($1, $2)";
    transaction
        .execute(statement, &[&account.name, &continues])
        .await?;
    let keys: Vec<&[u8]> = account.keys.iter().map(|key| &key.as_bytes()[..]).collect();
    let statement = "INSERT INTO account_keys (fingerprint, account)
                     SELECT fingerprint, $2 FROM unnest($1::bytea[]) AS new (fingerprint)";
    transaction
        .execute(statement, &[&keys, &account.name])
        .await?;
    Ok(())
}
