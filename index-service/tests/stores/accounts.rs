//! Accounts in PostgreSQL: edited by command and by SQL, and how a running service follows.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use prompt_cache_core::ledger::Fingerprint;
use prompt_cache_index::accounts::Account;
use prompt_cache_index::config::{Config, StoreConfig};
use prompt_cache_index::store::postgres::{AccountsTable, EditError};
use prompt_cache_test_servers::fresh_name;
use prompt_cache_test_servers::postgres::Postgres;
use tokio_postgres::{Client, NoTls};

use crate::service::{Caller, Service, hex};

const INACTIVE: &str = "accounts_table: true\nunknown_principal: inactive\n";

const ACCEPT: &str = "accounts_table: true\nadmin_token: sesame\n";

fn url() -> String {
    std::env::var("TEST_POSTGRES_URL").expect("./just test-stores sets it")
}

fn store(schema: &str) -> String {
    format!(
        "{{postgres: {{url_env: TEST_POSTGRES_URL, schema: {schema}, \
         connect_timeout_ms: 20000, acquire_timeout_ms: 20000, operation_timeout_ms: 20000}}}}"
    )
}

fn table(schema: &str) -> AccountsTable {
    let yaml = format!(
        "models: [{{model: m, encoding: o200k_base}}]\nstore: {}",
        store(schema)
    );
    match Config::parse(&yaml, "test.yaml".as_ref()).unwrap().store {
        StoreConfig::Postgres(postgres) => AccountsTable::open(&postgres).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Somebody with SQL, and with the search path of everybody.
async fn psql() -> Client {
    let (client, connection) = tokio_postgres::connect(&url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn psql_now(sql: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { psql().await.batch_execute(sql).await.unwrap() });
}

fn account(name: &str, keys: &[u8], continues: Option<u8>) -> Account {
    let key = |n: &u8| Fingerprint::new([*n; 32]);
    Account {
        name: name.to_owned(),
        keys: keys.iter().map(key).collect(),
        continues: continues.as_ref().map(key),
    }
}

/// `accounts …` with the service's configuration.
fn command(service: &Service, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_prompt-cache-index"))
        .args(["accounts", args[0], "--config"])
        .arg(service.config())
        .args(&args[1..])
        .output()
        .unwrap()
}

fn good(service: &Service, args: &[&str]) -> String {
    let output = command(service, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until a classification of entry 1 for `principal` is answered like this: the tokens
/// that are read, or the reason against it.
fn await_answer(caller: &Caller, principal: u8, wanted: Result<u64, &str>) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let (status, answer) = caller.classify_as(principal, 1);
        let is_wanted = match wanted {
            Ok(read) => {
                answer["split"]["read"] == read || read == 0 && answer["status"] == "text_needed"
            }
            Err(reason) => answer["reason"] == reason,
        };
        if status == 200 && is_wanted {
            return;
        }
        assert!(Instant::now() < end, "{principal}: {status} {answer}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn reloads(caller: &Caller, result: &str) -> u64 {
    let line = format!("prompt_cache_index_account_reloads_total{{result=\"{result}\"}} ");
    let metrics = caller.get("/metrics").1;
    let value = metrics.lines().find_map(|l| l.strip_prefix(&line));
    value.unwrap().parse().unwrap()
}

/// Before accounts are known: a credential would write under its own name, not its account's.
fn refuses_everybody(caller: &Caller, version: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let (status, answer) = caller.get("/readyz");
        assert_eq!(status, 503);
        if answer.contains("accounts have not been read") {
            break;
        }
        assert!(Instant::now() < end, "{answer}");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(caller.classify_as(1, 1).0, 503);
    assert_eq!(caller.commit_as(1, version, 1), 503);
    let account = serde_json::json!({"v": 1, "account": "acme"});
    assert_eq!(caller.post_as_admin("/v1/purge", &account).0, 503);
}

#[test]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
fn a_key_is_rotated_by_command_and_the_account_keeps_what_it_cached() {
    let service = Service::start_with(&store(&fresh_name()), INACTIVE);
    let caller = service.caller();
    caller.await_ready(200);
    await_answer(&caller, 1, Err("unknown_principal"));
    good(
        &service,
        &["add", "--account", "acme", "--fingerprint", &hex(1)],
    );
    await_answer(&caller, 1, Ok(0));
    let version = caller.tokenizer_version();
    assert_eq!(caller.commit_as(1, &version, 1), 200);
    await_answer(&caller, 1, Ok(2));
    good(
        &service,
        &["add", "--account", "acme", "--fingerprint", &hex(2)],
    );
    await_answer(&caller, 2, Ok(2));
    let list = || good(&service, &["list"]);
    assert_eq!(list(), format!("acme\t{}\nacme\t{}\n", hex(1), hex(2)));
    good(
        &service,
        &["remove", "--account", "acme", "--fingerprint", &hex(1)],
    );
    await_answer(&caller, 1, Err("unknown_principal"));
    await_answer(&caller, 2, Ok(2));

    for (args, says) in [
        (vec!["remove", "--account", "nobody"], "no such account"),
        (
            vec!["add", "--account", "b", "--fingerprint", &hex(2)],
            "a key is listed twice",
        ),
        (
            vec!["add", "--account", "acme", "--continues", &hex(9)],
            "would take its entries away",
        ),
    ] {
        let output = command(&service, &args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(1) && stderr.contains(says),
            "{args:?}: {stderr}"
        );
    }
    assert_eq!(list(), format!("acme\t{}\n", hex(2)));

    let purge = Command::new(env!("CARGO_BIN_EXE_prompt-cache-index"))
        .args(["purge", "--account", "acme", "--config"])
        .arg(service.config())
        .output()
        .unwrap();
    let said = String::from_utf8(purge.stdout).unwrap();
    assert_eq!(said, "purged 1 entries of 1 scopes\n");
    await_answer(&caller, 2, Ok(0));
    good(&service, &["remove", "--account", "acme"]);
    await_answer(&caller, 2, Err("unknown_principal"));
    assert_eq!(list(), "");
}

#[test]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
fn rows_that_break_a_rule_keep_the_last_good_accounts_and_are_counted() {
    let schema = fresh_name();
    let service = Service::start_with(&store(&schema), INACTIVE);
    let caller = service.caller();
    caller.await_ready(200);
    psql_now(&format!(
        "INSERT INTO {schema}.accounts VALUES ('acme');
         INSERT INTO {schema}.account_keys VALUES ('\\x{}', 'acme'), ('\\x{}', 'acme')",
        hex(1),
        hex(2)
    ));
    await_answer(&caller, 1, Ok(0));
    let version = caller.tokenizer_version();
    assert_eq!(caller.commit_as(1, &version, 1), 200);
    assert_eq!(reloads(&caller, "error"), 0);
    // What no constraint sees: the entries of acme's first key would be read by both.
    psql_now(&format!(
        "INSERT INTO {schema}.accounts VALUES ('thief', '\\x{}');
         DELETE FROM {schema}.account_keys WHERE fingerprint = '\\x{}'",
        hex(1),
        hex(2)
    ));
    let end = Instant::now() + Duration::from_secs(60);
    while reloads(&caller, "error") == 0 {
        assert!(Instant::now() < end, "never looked");
        std::thread::sleep(Duration::from_millis(10));
    }
    await_answer(&caller, 2, Ok(2));
    // One that starts now knows nobody, although its ledger answers.
    let second = Service::start_with(&store(&schema), ACCEPT);
    refuses_everybody(&second.caller(), &version);
    let log = service.log();
    assert!(
        log.contains("continues a key of another one") && !log.contains(&hex(1)),
        "{log}"
    );
    psql_now(&format!(
        "DELETE FROM {schema}.accounts WHERE account = 'thief'"
    ));
    await_answer(&caller, 2, Err("unknown_principal"));
    await_answer(&caller, 1, Ok(2));
    second.caller().await_ready(200);
    await_answer(&second.caller(), 1, Ok(2));
}

#[test]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
fn before_the_accounts_are_known_nobody_is_served_and_an_outage_keeps_them() {
    let mut server = Postgres::start();
    let store = format!(
        "{{postgres: {{url: '{}', connect_timeout_ms: 500, operation_timeout_ms: 1000}}}}",
        server.url()
    );
    let first = Service::start_with(&store, "accounts_table: true\n");
    first.caller().await_ready(200);
    good(
        &first,
        &["add", "--account", "acme", "--fingerprint", &hex(1)],
    );
    server.kill();
    let second = Service::start_with(&store, ACCEPT);
    let caller = second.caller();
    let version = caller.tokenizer_version();
    refuses_everybody(&caller, &version);
    server.start_again();
    caller.await_ready(200);
    assert_eq!(caller.commit_as(1, &version, 1), 200);
    good(
        &second,
        &["add", "--account", "acme", "--fingerprint", &hex(2)],
    );
    await_answer(&caller, 2, Ok(2));
    server.kill();
    let failed = reloads(&caller, "error");
    let end = Instant::now() + Duration::from_secs(60);
    while reloads(&caller, "error") == failed {
        assert!(Instant::now() < end, "never looked");
        std::thread::sleep(Duration::from_millis(10));
    }
    server.start_again();
    caller.await_ready(200);
    await_answer(&caller, 2, Ok(2));
    let (_, metrics) = caller.get("/metrics");
    assert!(
        metrics.contains("\nprompt_cache_index_accounts 1\n"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
async fn accounts_read_as_they_were_written_and_every_change_shows_in_the_version() {
    let schema = fresh_name();
    let table = table(&schema);
    assert_eq!(table.read().await.unwrap(), []);
    let accounts = vec![
        account("a", &[1, 2], None),
        account("b", &[], Some(9)),
        account("Z: \"quotes\" \u{e9}", &[3], None),
    ];
    let mut seen = vec![table.version().await.unwrap()];
    assert_eq!(table.version().await.unwrap(), seen[0]);
    let written = accounts.clone();
    table
        .edit(|accounts| {
            *accounts = written;
            Ok(())
        })
        .await
        .unwrap();
    let mut sorted = accounts;
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(table.read().await.unwrap(), sorted);
    seen.push(table.version().await.unwrap());

    let refused = table
        .edit(|accounts| {
            accounts.push(account("c", &[1], None));
            Ok(())
        })
        .await;
    assert!(matches!(refused, Err(EditError::Refused(_))), "{refused:?}");
    let refused = table.edit(|_| Err("no".to_owned())).await;
    assert!(matches!(refused, Err(EditError::Refused(_))), "{refused:?}");
    assert_eq!(table.version().await.unwrap(), seen[1]);

    let sql = psql().await;
    for change in [
        "INSERT INTO {}.account_keys VALUES (decode(repeat('0b', 32), 'hex'), 'b')",
        "UPDATE {}.account_keys SET account = 'a' WHERE account = 'b'",
        "UPDATE {}.accounts SET account = 'c' WHERE account = 'b'",
        "DELETE FROM {}.accounts WHERE account = 'c'",
        "TRUNCATE {}.accounts CASCADE",
    ] {
        sql.batch_execute(&change.replace("{}", &schema))
            .await
            .unwrap();
        let version = table.version().await.unwrap();
        assert!(!seen.contains(&version), "{change}");
        seen.push(version);
    }
    assert_eq!(table.read().await.unwrap(), []);
    for wrong in [
        "INSERT INTO {}.accounts VALUES ('')",
        "INSERT INTO {}.accounts VALUES (repeat('n', 257))",
        "INSERT INTO {}.accounts VALUES (E'a\\n')",
        "INSERT INTO {}.accounts VALUES ('a', '\\xab')",
        "INSERT INTO {}.account_keys VALUES (decode(repeat('0b', 32), 'hex'), 'nobody')",
    ] {
        let refused = sql.batch_execute(&wrong.replace("{}", &schema)).await;
        assert!(refused.is_err(), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server: ./just test-stores"]
async fn two_who_edit_at_once_wait_for_each_other() {
    let schema = fresh_name();
    let edits: Vec<_> = (0..8)
        .map(|n| {
            let table = table(&schema);
            tokio::spawn(async move {
                table
                    .edit(|accounts| {
                        accounts.push(account(&format!("a{n}"), &[n], None));
                        Ok(())
                    })
                    .await
            })
        })
        .collect();
    for edit in edits {
        edit.await.unwrap().unwrap();
    }
    let names: Vec<_> = table(&schema).read().await.unwrap();
    assert_eq!(names.len(), 8);
}
