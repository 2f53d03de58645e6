//! What a file must not say, and the one line that says so.

use super::{MODEL, parse};

#[test]
fn a_refusal_names_file_key_and_reason() {
    let m = |rest: &str| format!("models: [{{model: m, encoding: o200k_base, {rest}}}]");
    let postgres =
        |rest: &str| format!("{MODEL}store: {{postgres: {{url: 'postgresql://h/d', {rest}}}}}");
    let redis =
        |url: &str, rest: &str| format!("{MODEL}store: {{redis: {{url: '{url}', {rest}}}}}");
    let table: Vec<(String, &str, &str)> = vec![
        ("{}".into(), "c.yaml: ", "missing field `models`"),
        (String::new(), "c.yaml: ", ""),
        ("models: []".into(), "c.yaml: models: ", "1 to 1000"),
        ("models: 3".into(), "c.yaml: models: ", "sequence"),
        ("- a".into(), "c.yaml: ", ""),
        ("models: [".into(), "c.yaml: ", ""),
        (
            format!("{MODEL}modles: []"),
            "c.yaml: modles: ",
            "unknown field `modles`; did you mean `models`?",
        ),
        (format!("{MODEL}{MODEL}"), "c.yaml: duplicate", "`models`"),
        (
            format!("{MODEL}limits: {{concurrency: 3}}"),
            "c.yaml: limits.concurrency: ",
            "unknown field `concurrency`",
        ),
        (
            format!("{MODEL}limits: {{concurrency_max: 0}}"),
            "c.yaml: limits.concurrency_max: ",
            "0 is not between 1 and",
        ),
        (
            format!("{MODEL}limits: {{concurrency_max: -1}}"),
            "c.yaml: limits.concurrency_max: ",
            "",
        ),
        (
            format!("{MODEL}limits: {{concurrency_max: many}}"),
            "c.yaml: limits.concurrency_max: ",
            "not a whole number",
        ),
        (
            format!("{MODEL}store: {{mysql: {{}}}}"),
            "c.yaml: store.mysql: ",
            "unknown field `mysql`",
        ),
        (
            format!("{MODEL}store: {{embedded: {{}}, postgres: {{url: 'postgresql://h/d'}}}}"),
            "c.yaml: store: ",
            "keep one",
        ),
        (
            format!("{MODEL}store: {{postgres: }}"),
            "c.yaml: store.postgres: ",
            "",
        ),
        (
            format!("{MODEL}store: {{postgres: {{}}}}"),
            "c.yaml: store.postgres: ",
            "one of url, url_file and url_env",
        ),
        (
            format!("{MODEL}store: {{postgres: {{url: 'postgresql://h/d', url_env: X}}}}"),
            "c.yaml: store.postgres: ",
            "one of url, url_file and url_env",
        ),
        (
            format!("{MODEL}store: {{postgres: {{url_file: no-such-file}}}}"),
            "c.yaml: store.postgres.url_file: ",
            "cannot be read",
        ),
        (
            format!("{MODEL}store: {{postgres: {{url_env: NO_SUCH_VARIABLE}}}}"),
            "c.yaml: store.postgres.url_env: ",
            "\"NO_SUCH_VARIABLE\" is not set",
        ),
        (
            format!("{MODEL}store: {{postgres: {{url: ' '}}}}"),
            "c.yaml: store.postgres.url: ",
            "is empty",
        ),
        (
            format!("{MODEL}store: {{postgres: {{url: 'postgresql:///d'}}}}"),
            "c.yaml: store.postgres.url: ",
            "not a URL like",
        ),
        (
            postgres("schema: Ledger"),
            "c.yaml: store.postgres.schema: ",
            "lower-case",
        ),
        (
            postgres("schema: 'a; drop'"),
            "c.yaml: store.postgres.schema: ",
            "lower-case",
        ),
        (
            postgres("connections_max: 0"),
            "c.yaml: store.postgres.connections_max: ",
            "0 is not between",
        ),
        (
            postgres("operation_timeout_ms: 0"),
            "c.yaml: store.postgres.operation_timeout_ms: ",
            "0 is not between",
        ),
        (
            postgres("refresh_flush_ms: 0"),
            "c.yaml: store.postgres.refresh_flush_ms: ",
            "0 is not between",
        ),
        (
            redis("redis://h", "cluster: maybe"),
            "c.yaml: store.redis.cluster: ",
            "",
        ),
        (
            redis("http://h", "cluster: true"),
            "c.yaml: store.redis.url: ",
            "not a URL like",
        ),
        (
            redis("redis://h redis://i", "cluster: false"),
            "c.yaml: store.redis.url: ",
            "need cluster: true",
        ),
        (
            redis("redis://h", "key_prefix: 'a{b'"),
            "c.yaml: store.redis.key_prefix: ",
            "letters, digits",
        ),
        (
            redis("redis://h", "operation_timeout_ms: 60001"),
            "c.yaml: store.redis.operation_timeout_ms: ",
            "60001 is not between",
        ),
        (
            format!(
                "{MODEL}store: {{redis: {{url: 'redis://h'}}, postgres: {{url: 'postgresql://h/d'}}}}"
            ),
            "c.yaml: store: ",
            "keep one",
        ),
        (
            postgres("pool: 3"),
            "c.yaml: store.postgres.pool: ",
            "unknown field `pool`",
        ),
        (
            format!("{MODEL}store: {{embedded: {{data_dir: ''}}}}"),
            "c.yaml: store.embedded.data_dir: ",
            "empty",
        ),
        (
            format!("{MODEL}listen: nowhere"),
            "c.yaml: listen: ",
            "\"nowhere\" is not an address",
        ),
        (
            format!("{MODEL}log: {{format: xml}}"),
            "c.yaml: log.format: ",
            "unknown variant `xml`",
        ),
        (
            format!("{MODEL}unknown_principal: maybe"),
            "c.yaml: unknown_principal: ",
            "unknown variant `maybe`",
        ),
        (
            format!("{MODEL}unknown_principal: inactive"),
            "c.yaml: principals: ",
            "needs a list",
        ),
        (
            format!("{MODEL}accounts_table: true"),
            "c.yaml: accounts_table: ",
            "needs store.postgres",
        ),
        (
            format!(
                "{MODEL}accounts_table: true\naccounts_file: a\n\
                 store: {{postgres: {{url: 'postgresql://u@h/d'}}}}"
            ),
            "c.yaml: accounts_table: ",
            "keep one",
        ),
        (
            format!("{MODEL}principals: [{{fingerprint: ab}}]"),
            "c.yaml: principals: ",
            "no effect",
        ),
        (
            format!("{MODEL}unknown_principal: inactive\nprincipals: [{{fingerprint: ab}}]"),
            "c.yaml: principals[0].fingerprint: ",
            "64 hex digits",
        ),
        (
            format!("{MODEL}auth_token: ' '"),
            "c.yaml: auth_token: ",
            "empty",
        ),
        (
            format!("{MODEL}auth_token: a b"),
            "c.yaml: auth_token: ",
            "printable ASCII",
        ),
        (
            format!("{MODEL}auth_token_file: no-such-file"),
            "c.yaml: auth_token_file: ",
            "cannot be read",
        ),
        (
            format!("{MODEL}auth_token: a\nauth_token_file: b"),
            "c.yaml: auth_token_file: ",
            "keep one",
        ),
        (
            format!("{MODEL}sweep_interval_ms: 0"),
            "c.yaml: sweep_interval_ms: ",
            "0 is not between",
        ),
        (
            m("tiers: []"),
            "c.yaml: models[0].tiers: ",
            "at least one tier",
        ),
        (
            m("tiers: [5m, 5m]"),
            "c.yaml: models[0].tiers: ",
            "5m is listed twice",
        ),
        (
            m("tiers: [2h]"),
            "c.yaml: models[0].tiers[0]: ",
            "unknown variant `2h`",
        ),
        (
            m("default_tier: 24h"),
            "c.yaml: models[0].default_tier: ",
            "24h is not among",
        ),
        (
            m("auto: 24h"),
            "c.yaml: models[0].auto: ",
            "24h is not among the tiers",
        ),
        (
            m("auto: true"),
            "c.yaml: models[0].auto: ",
            "expected one of 5m, 1h, 24h",
        ),
        (
            m("prices: {input: -1, read: 0}"),
            "c.yaml: models[0].prices.input: ",
            "-1 is not between",
        ),
        (
            m("prices: {input: 1}"),
            "c.yaml: models[0].prices: ",
            "missing field `read`",
        ),
        (
            format!("{MODEL}currency: usd"),
            "c.yaml: currency: ",
            "not a code like USD",
        ),
        (
            format!("{MODEL}telemetry: {{otlp_endpoint: collector}}"),
            "c.yaml: telemetry.otlp_endpoint: ",
            "http://",
        ),
        (
            format!("{MODEL}telemetry: {{otlp_endpoint: 'http://u:p@h'}}"),
            "c.yaml: telemetry.otlp_endpoint: ",
            "OTEL_EXPORTER_OTLP_HEADERS",
        ),
        (
            format!("{MODEL}telemetry: {{sample_ratio: 1.5}}"),
            "c.yaml: telemetry.sample_ratio: ",
            "1.5 is not between 0 and 1",
        ),
        (
            m("min_prefix_tokens: 4294967296"),
            "c.yaml: models[0].min_prefix_tokens: ",
            "more than an entry",
        ),
        (
            m("image_tokens: guess"),
            "c.yaml: models[0].image_tokens",
            "unknown variant `guess`",
        ),
        (
            m("image_tokens: {fixed: 100001}"),
            "c.yaml: models[0].image_tokens.fixed: ",
            "100001 is not between 0 and 100000",
        ),
        (
            m("image_tokens: {fixed: -1}"),
            "c.yaml: models[0].image_tokens",
            "",
        ),
        (
            m("image_tokens: {tiles: {tile_px: 0}}"),
            "c.yaml: models[0].image_tokens.tiles.tile_px: ",
            "0 is not between 1 and 100000",
        ),
        (
            m("image_tokens: {tiles: {tile: 9}}"),
            "c.yaml: models[0].image_tokens",
            "unknown field `tile`",
        ),
        (
            m("image_tokens: {tiles: {tile_px: 1}}"),
            "c.yaml: models[0].image_tokens.tiles: ",
            "an image could count more than 100000 tokens",
        ),
        (
            "models: [{model: m, encoding: p50k_base}]".into(),
            "c.yaml: models[0].encoding: ",
            "unknown variant `p50k_base`",
        ),
        (
            m("tokenizer: {dir: x}"),
            "c.yaml: models[0].tokenizer: ",
            "keep one",
        ),
        (
            "models: [{model: m, tokenizer: {}}]".into(),
            "c.yaml: models[0].tokenizer: ",
            "one of dir and hub",
        ),
        (
            "models: [{model: m, tokenizer: {dir: x, hub: a/b}}]".into(),
            "c.yaml: models[0].tokenizer.dir: ",
            "keep one",
        ),
        (
            "models: [{model: m, tokenizer: {dir: x, offline: true}}]".into(),
            "c.yaml: models[0].tokenizer.offline: ",
            "no effect",
        ),
        (
            "models: [{model: m, tokenizer: {hub: ../up}}]".into(),
            "c.yaml: models[0].tokenizer.hub: ",
            "no repository",
        ),
        (
            "models: [{model: m, tokenizer: {hub: a/b, revision: 'x/../..'}}]".into(),
            "c.yaml: models[0].tokenizer.revision: ",
            "no branch",
        ),
        (
            "models: [{model: m, tokenizer: {hub: a/b, endpoint: hub}}]".into(),
            "c.yaml: models[0].tokenizer.endpoint: ",
            "no address",
        ),
        (
            "models: [{model: m}]".into(),
            "c.yaml: models[0].encoding: ",
            "one of encoding and tokenizer is needed",
        ),
        (
            "models: [{model: '', encoding: o200k_base}]".into(),
            "c.yaml: models[0].model: ",
            "1 to 256 bytes",
        ),
        (
            "models: [{model: a, encoding: o200k_base}, {model: a, encoding: cl100k_base}]".into(),
            "c.yaml: models[1].model: ",
            "\"a\" is configured twice",
        ),
    ];
    let mut wrong = Vec::new();
    for (text, start, part) in table {
        let error = parse(&text).expect_err(&text);
        if !error.starts_with(start) || !error.contains(part) || error.contains('\n') {
            wrong.push(format!(
                "{text:?}\n  wanted {start}…{part}\n  got    {error}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
