//! The configuration: the example, the defaults, and every refusal on one line with file, key
//! and reason; through the binary, exit code 2.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod reference;

use std::path::{Path, PathBuf};
use std::process::Command;

use prompt_cache_core::ledger::Tier;
use prompt_cache_index::config::{Config, PrincipalsConfig, StoreConfig};
use prompt_cache_index::tokens::source::SourceConfig;
use prompt_cache_index::tokens::{Encoding, ImageTokens, Tiles};

const MODEL: &str = "models: [{model: m, encoding: o200k_base}]\n";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("c.yaml")).map_err(|error| error.to_string())
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.yaml")
}

#[test]
fn the_example_is_the_built_in_default() {
    assert_eq!(
        Config::load(&example()).unwrap(),
        Config::builtin().unwrap()
    );
}

#[test]
fn the_built_in_default_is_the_documented_one() {
    let config = Config::builtin().unwrap();
    assert_eq!(config.listen, "127.0.0.1:8088".parse().unwrap());
    assert_eq!(config.auth_token, None);
    assert_eq!(config.principals, PrincipalsConfig::Any);
    let [demo] = &config.models[..] else {
        panic!("one model")
    };
    assert_eq!(
        (demo.model.as_str(), &demo.source),
        ("demo", &SourceConfig::Encoding(Encoding::O200kBase))
    );
    assert_eq!(demo.tiers, [Tier::FiveMinutes, Tier::OneHour]);
    assert_eq!(
        (demo.default_tier, demo.min_prefix_tokens),
        (Tier::FiveMinutes, 1024)
    );
}

#[test]
fn images_count_by_the_model_s_rule() {
    let images = |rule: &str| {
        let text = format!("models: [{{model: m, encoding: o200k_base, image_tokens: {rule}}}]");
        parse(&text).unwrap().models[0].images
    };
    assert_eq!(parse(MODEL).unwrap().models[0].images, ImageTokens::Ignore);
    assert_eq!(images("ignore"), ImageTokens::Ignore);
    assert_eq!(images("{fixed: 576}"), ImageTokens::Fixed(576));
    assert_eq!(images("{tiles: {}}"), ImageTokens::Tiles(Tiles::default()));
    let patches = Tiles {
        tile_px: 28,
        tokens_per_tile: 1,
        base_tokens: 0,
        long_side_px_max: 3584,
        short_side_px_max: 3584,
    };
    let documented = "{tiles: {tile_px: 28, tokens_per_tile: 1, base_tokens: 0, \
                      long_side_px_max: 3584, short_side_px_max: 3584}}";
    assert_eq!(images(documented), ImageTokens::Tiles(patches));
}

#[test]
fn the_shortest_tier_is_the_default_tier() {
    let config = parse("models: [{model: m, encoding: cl100k_base, tiers: [24h, 1h]}]").unwrap();
    assert_eq!(config.models[0].default_tier, Tier::OneHour);
    assert_eq!(config.models[0].tiers, [Tier::Day, Tier::OneHour]);
}

#[test]
fn unmarked_requests_are_cached_only_where_a_model_says_so() {
    let auto = |rest: &str| {
        let text = format!("models: [{{model: m, encoding: cl100k_base{rest}}}]");
        parse(&text).unwrap().models[0].auto
    };
    assert_eq!(auto(""), None);
    assert_eq!(auto(", auto: 1h"), Some(Tier::OneHour));
    assert_eq!(auto(", tiers: [24h], auto: 24h"), Some(Tier::Day));
}

/// What is wrong → what the one line starts with and contains.
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

#[test]
fn a_token_file_is_trimmed_and_starts_from_the_configs_directory() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), " sesame\n").unwrap();
    let path = dir.path().join("c.yaml");
    std::fs::write(&path, format!("{MODEL}auth_token_file: token")).unwrap();
    let from_file = Config::load(&path).unwrap().auth_token;
    assert_eq!(
        from_file,
        parse(&format!("{MODEL}auth_token: sesame"))
            .unwrap()
            .auth_token
    );
    assert!(
        !format!("{from_file:?}").contains("sesame"),
        "a token is never printed"
    );
}

/// The commented stores of the example, each as it would be without `#`: all keys, all defaults.
#[test]
fn the_example_shows_the_other_stores_with_their_defaults() {
    let text = std::fs::read_to_string(example()).unwrap();
    let stores = [
        (
            "postgres",
            "url: postgresql://ledger:secret@db.example/ledger",
        ),
        ("redis", "url: redis://user:secret@redis.example:6379"),
    ];
    for (kind, url) in stores {
        let shown: String = text
            .lines()
            .skip_while(|line| *line != format!("  # {kind}:"))
            .take_while(|line| line.starts_with("  # "))
            .enumerate()
            .take_while(|(i, line)| *i == 0 || line.starts_with("  #   "))
            .map(|(_, line)| format!("  {}\n", line.strip_prefix("  # ").unwrap()))
            .collect();
        let shown = parse(&format!("{MODEL}store:\n{shown}")).unwrap();
        let default = parse(&format!("{MODEL}store: {{{kind}: {{{url}}}}}")).unwrap();
        assert_eq!(shown, default);
        assert_eq!(shown.store.kind(), kind);
    }
}

#[test]
fn a_store_url_comes_from_a_file_or_the_environment_and_is_never_printed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("url"), "postgresql://u:sesame@h/d\n").unwrap();
    let path = dir.path().join("c.yaml");
    let text = format!("{MODEL}store: {{postgres: {{url_file: url, ca_file: ca.pem}}}}");
    let StoreConfig::Postgres(from_file) = Config::parse(&text, &path).unwrap().store else {
        panic!("another store")
    };
    assert_eq!(from_file.url.expose(), "postgresql://u:sesame@h/d");
    assert_eq!(from_file.ca_file, Some(dir.path().join("ca.pem")));
    assert!(!format!("{from_file:?}").contains("sesame"));
    // cargo sets this one: not a URL, but found.
    let error = parse(&format!(
        "{MODEL}store: {{postgres: {{url_env: CARGO_PKG_NAME}}}}"
    ));
    assert!(
        error
            .unwrap_err()
            .starts_with("c.yaml: store.postgres.url_env: not a URL")
    );
    let wrong = "host=h password='sesame sesame=1";
    for key in ["url", "url_secret"] {
        let error = parse(&format!(
            "{MODEL}store: {{postgres: {{{key}: \"{wrong}\"}}}}"
        ));
        assert!(!error.unwrap_err().contains("sesame"));
    }
}

#[test]
fn a_data_dir_for_another_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yaml");
    std::fs::write(
        &path,
        format!("{MODEL}store: {{postgres: {{url: 'postgresql://h/d'}}}}"),
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_prompt-cache-index"))
        .args(["serve", "--data-dir", "x", "--config"])
        .arg(&path)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        stderr,
        "prompt-cache-index: --data-dir: the store is postgres\n"
    );
}

#[test]
fn the_binary_exits_with_2_and_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.yaml");
    std::fs::write(&path, format!("{MODEL}limits: {{concurrency_max: 0}}")).unwrap();
    for command in ["check-config", "serve"] {
        let output = Command::new(env!("CARGO_BIN_EXE_prompt-cache-index"))
            .args([command, "--config"])
            .arg(&path)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(
            stderr.contains("bad.yaml: limits.concurrency_max: 0 is not"),
            "{stderr}"
        );
    }
    let good = Command::new(env!("CARGO_BIN_EXE_prompt-cache-index"))
        .args(["check-config", "--config"])
        .arg(example())
        .output()
        .unwrap();
    assert_eq!(good.status.code(), Some(0));
}

/// What `check-config --filter` is given → its exit code, and a part of its line.
#[test]
fn the_filter_s_configuration_is_checked_wherever_it_stands() {
    let good = r#"{"index_cluster": "i", "cache_salt": true}"#;
    let typo = r#"{"index_cluster": "i", "cache_slat": true}"#;
    let envoy = |json: &str| {
        format!(
            "static_resources:\n- configuration:\n    \"@type\": \
             type.googleapis.com/google.protobuf.StringValue\n    value: |\n      {json}\n"
        )
    };
    let istio = |json: &str| format!("kind: Service\n---\nspec:\n  pluginConfig: {json}\n");
    let salt = "cache_slat: unknown field `cache_slat`; did you mean `cache_salt`?";
    let table = [
        (good.to_owned(), 0, "1 configuration of the filter"),
        (envoy(good), 0, "1 configuration"),
        (istio(good) + "---\n" + &istio(good), 0, "2 configurations"),
        (typo.to_owned(), 2, salt),
        (envoy(typo), 2, salt),
        (istio(typo), 2, salt),
        ("a: 1".to_owned(), 2, "holds no configuration"),
        ("a: [".to_owned(), 2, ""),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.yaml");
    for (text, code, part) in table {
        std::fs::write(&path, &text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_prompt-cache-index"))
            .args(["check-config", "--filter"])
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}: {said}");
        assert!(said.contains("f.yaml: ") && said.contains(part), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// Each configuration of the filter that ships, in whatever it is wrapped.
#[test]
fn every_shipped_configuration_of_the_filter_is_good() {
    let envoy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy");
    let shipped = [
        "standalone.yaml",
        "docker/envoy.yaml",
        "istio/gateway.yaml",
        "istio/sidecar.yaml",
        "gateway/prompt-cache.yaml",
    ];
    for file in shipped {
        let output = Command::new(env!("CARGO_BIN_EXE_prompt-cache-index"))
            .args(["check-config", "--filter"])
            .arg(envoy.join(file))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{file}: {said}");
    }
}
