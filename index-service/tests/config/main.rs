//! The configuration: the example, the defaults, and every refusal on one line with file, key
//! and reason; through the binary, exit code 2.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod reference;
mod refusals;

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
    // The files of a model are read when the service starts.
    std::fs::create_dir(dir.path().join("files")).unwrap();
    std::fs::write(dir.path().join("files/tokenizer.json"), "{").unwrap();
    let table: [(String, &[&str], &str); 2] = [
        (
            format!("{MODEL}limits: {{concurrency_max: 0}}"),
            &["check-config", "serve"],
            "bad.yaml: limits.concurrency_max: 0 is not",
        ),
        (
            "listen: 127.0.0.1:0\nmodels: [{model: m, tokenizer: {dir: files}}]".to_owned(),
            &["check-config", "serve"],
            "bad.yaml: models[0].tokenizer",
        ),
    ];
    for (text, commands, part) in table {
        std::fs::write(&path, text).unwrap();
        for command in commands {
            let output = Command::new(env!("CARGO_BIN_EXE_prompt-cache-index"))
                .args([command, "--config"])
                .arg(&path)
                .current_dir(&dir)
                .output()
                .unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{command}: {stderr}");
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
            assert!(stderr.contains(part), "{stderr}");
        }
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
