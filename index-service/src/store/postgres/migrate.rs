//! Brings a schema up to this version's tables, one process at a time.

use deadpool_postgres::ClientWrapper;
use tokio_postgres::Error;

/// A step from one version of the schema to the next.
struct Step {
    sql: &'static str,
    /// The oldest version of the schema whose programs can go on after it: 1 where the step only
    /// adds what they do not look at. Kept in the schema, so that they learn it.
    needs: i32,
}

/// Every step so far, in order; a schema's version is how many it has behind it.
const STEPS: &[Step] = &[
    Step {
        sql: include_str!("migrations/0001_ledger.sql"),
        needs: 1,
    },
    Step {
        sql: include_str!("migrations/0002_accounts.sql"),
        needs: 1,
    },
];

/// How a migration ended.
pub enum Outcome {
    /// The tables are those of this version.
    Ready,
    /// A newer version of the service has been here, and this one cannot live with its rules.
    Newer(i32),
}

/// Creates the schema or runs what is missing, in one transaction under an advisory lock: of
/// several processes that start at once, one works and the others wait and find it done.
pub async fn migrate(client: &mut ClientWrapper, schema: &str) -> Result<Outcome, Error> {
    let transaction = client.transaction().await?;
    // A new index on a large table takes longer than any operation may.
    transaction
        .batch_execute("SET LOCAL statement_timeout = 0")
        .await?;
    transaction
        .execute("SELECT pg_advisory_xact_lock($1)", &[&lock_key(schema)])
        .await?;
    let exists = transaction
        .query_one("SELECT to_regnamespace($1) IS NOT NULL", &[&schema])
        .await?;
    // `IF NOT EXISTS` would ask for the right to create schemas even where there is nothing to do.
    if !exists.try_get::<_, bool>(0)? {
        transaction
            .batch_execute(&format!("CREATE SCHEMA {schema}"))
            .await?;
    }
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS migrations (
                version integer PRIMARY KEY,
                applied_at timestamptz NOT NULL DEFAULT now(),
                needs integer
            )",
        )
        .await?;
    let says_needs = "SELECT EXISTS (SELECT FROM pg_attribute
                      WHERE attrelid = 'migrations'::regclass AND attname = 'needs')";
    let row = transaction.query_one(says_needs, &[]).await?;
    if !row.try_get::<_, bool>(0)? {
        // The table of a release that did not say it. Such releases go on without the column.
        transaction
            .batch_execute("ALTER TABLE migrations ADD COLUMN needs integer")
            .await?;
    }
    let found = "SELECT coalesce(max(version), 0), coalesce(max(coalesce(needs, version)), 0)
                 FROM migrations";
    let row = transaction.query_one(found, &[]).await?;
    let (found, needs): (i32, i32) = (row.try_get(0)?, row.try_get(1)?);
    for (version, step) in (1..).zip(STEPS) {
        if version > found {
            transaction.batch_execute(step.sql).await?;
            let insert = "INSERT INTO migrations (version, needs) VALUES ($1, $2)";
            transaction
                .execute(insert, &[&version, &step.needs])
                .await?;
            tracing::info!(version, "migrated the ledger's schema");
        }
    }
    transaction.commit().await?;
    let known = i32::try_from(STEPS.len()).unwrap_or(i32::MAX);
    Ok(if needs > known {
        Outcome::Newer(found)
    } else {
        Outcome::Ready
    })
}

/// The lock of one schema's migrations, apart from other users of advisory locks.
fn lock_key(schema: &str) -> i64 {
    let digest = blake3::hash(format!("prompt-cache-index migrations of {schema}").as_bytes());
    let (head, _) = digest
        .as_bytes()
        .split_first_chunk::<8>()
        .unwrap_or((&[0; 8], &[]));
    i64::from_le_bytes(*head)
}
