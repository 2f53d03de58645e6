//! Raw configuration to validated configuration: everything a type cannot say.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use prompt_cache_core::ledger::{Fingerprint, Tier};

use super::accounts_file::AccountsFile;
use super::observe;
use super::raw::{
    Raw, RawDrift, RawImageTokens, RawLimits, RawModel, RawPrincipal, UnknownPrincipal,
};
use super::source::source;
use super::{
    AccountsConfig, AuthToken, Config, ConfigError, DriftConfig, Limits, LogConfig,
    MODEL_NAME_BYTES_MAX, ModelConfig, PrincipalsConfig, StoreConfig,
};
use crate::tokens::{ImageTokens, Tiles};

/// Models one service may serve: each is a set of metric labels.
pub(super) const MODELS_MAX: usize = 1000;
/// Shortest and longest pause between two rounds of something that recurs.
pub(super) const PAUSE_MS_MIN: u64 = 10;
pub(super) const PAUSE_MS_MAX: u64 = 3_600_000;
/// Longest wait.
pub(super) const WAIT_MS_MAX: u64 = 600_000;
/// Most of anything that is counted.
pub(super) const COUNT_MAX: u64 = 1 << 20;
/// Longest shared token.
const AUTH_TOKEN_BYTES_MAX: usize = 4096;

/// The key and the reason.
pub(super) type Invalid = (String, String);

pub(super) fn validate(raw: Raw, path: &Path) -> Result<Config, ConfigError> {
    build(raw, path).map_err(|(key, reason)| ConfigError::new(path, Some(&key), reason))
}

fn build(raw: Raw, path: &Path) -> Result<Config, Invalid> {
    let listen = raw.listen.parse().map_err(|_| {
        invalid(
            "listen",
            format!(
                "{:?} is not an address and port like 127.0.0.1:8088",
                raw.listen
            ),
        )
    })?;
    let auth_token = token(
        "auth_token",
        raw.auth_token,
        raw.auth_token_file.as_deref(),
        path,
    )?;
    let admin_token = token(
        "admin_token",
        raw.admin_token,
        raw.admin_token_file.as_deref(),
        path,
    )?;
    let store = raw.store.validate(path)?;
    let accounts = accounts(
        raw.accounts_file.as_deref(),
        raw.accounts_table,
        &store,
        path,
    )?;
    between(
        "sweep_interval_ms",
        raw.sweep_interval_ms,
        PAUSE_MS_MIN,
        PAUSE_MS_MAX,
    )?;
    between(
        "tokenizer_poll_ms",
        raw.tokenizer_poll_ms,
        PAUSE_MS_MIN,
        PAUSE_MS_MAX,
    )?;
    Ok(Config {
        listen,
        auth_token,
        admin_token,
        store,
        models: models(raw.models, path)?,
        principals: principals(
            raw.unknown_principal,
            &raw.principals,
            accounts != AccountsConfig::None,
        )?,
        accounts,
        drift: drift(&raw.drift)?,
        limits: limits(&raw.limits)?,
        sweep_interval_ms: raw.sweep_interval_ms,
        tokenizer_poll_ms: raw.tokenizer_poll_ms,
        log: LogConfig {
            format: raw.log.format,
            level: raw.log.level,
        },
        telemetry: observe::telemetry(raw.telemetry)?,
        currency: observe::currency(raw.currency)?,
    })
}

/// A token from the key `name`, or from the file that `name_file` names.
fn token(
    name: &str,
    inline: Option<String>,
    file: Option<&Path>,
    config: &Path,
) -> Result<Option<AuthToken>, Invalid> {
    let file_key = format!("{name}_file");
    let (key, token) = match (inline, file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            let reason = format!("{name} is given as well; keep one");
            return Err((file_key, reason));
        }
        (Some(token), None) => (name.to_owned(), token),
        (None, Some(file)) => {
            let file = beside(config, file);
            let token = std::fs::read_to_string(&file).map_err(|error| {
                let reason = format!("{} cannot be read: {error}", file.display());
                (file_key.clone(), reason)
            })?;
            (file_key, token)
        }
    };
    let token = token.trim();
    if token.is_empty() {
        return Err((key, "the token is empty".to_owned()));
    }
    if token.len() > AUTH_TOKEN_BYTES_MAX || !token.bytes().all(|b| b.is_ascii_graphic()) {
        let reason = format!("not a token: printable ASCII, at most {AUTH_TOKEN_BYTES_MAX} bytes");
        return Err((key, reason));
    }
    Ok(Some(AuthToken(token.to_owned())))
}

/// A file name of the configuration: a relative one starts from its directory.
pub(super) fn beside(config: &Path, file: &Path) -> PathBuf {
    config
        .parent()
        .map_or_else(|| file.to_owned(), |dir| dir.join(file))
}

/// Where accounts are kept. A file must be good at the start; a database may be away.
fn accounts(
    file: Option<&Path>,
    table: bool,
    store: &StoreConfig,
    config: &Path,
) -> Result<AccountsConfig, Invalid> {
    const TABLE: &str = "accounts_table";
    match (file, table, store) {
        (None, false, _) => Ok(AccountsConfig::None),
        (Some(file), false, _) => {
            let file = beside(config, file);
            AccountsFile::load(&file)
                .map_err(|error| invalid("accounts_file", error.to_string()))?;
            Ok(AccountsConfig::File(file))
        }
        (None, true, StoreConfig::Postgres(postgres)) => {
            Ok(AccountsConfig::Table(postgres.clone()))
        }
        (None, true, _) => Err(invalid(TABLE, "needs store.postgres")),
        (Some(_), true, _) => Err(invalid(TABLE, "accounts_file is given as well; keep one")),
    }
}

fn models(raw: Vec<RawModel>, path: &Path) -> Result<Vec<ModelConfig>, Invalid> {
    if raw.is_empty() || raw.len() > MODELS_MAX {
        return Err(invalid(
            "models",
            format!("1 to {MODELS_MAX} models are possible"),
        ));
    }
    let mut names = HashSet::new();
    let mut models = Vec::with_capacity(raw.len());
    for (i, mut model) in raw.into_iter().enumerate() {
        let key = |field: &str| format!("models[{i}].{field}");
        let name = &model.model;
        if name.is_empty() || name.len() > MODEL_NAME_BYTES_MAX {
            let reason = format!("must be 1 to {MODEL_NAME_BYTES_MAX} bytes");
            return Err((key("model"), reason));
        }
        if !names.insert(name.clone()) {
            return Err((key("model"), format!("{name:?} is configured twice")));
        }
        if u32::try_from(model.min_prefix_tokens).is_err() {
            return Err((
                key("min_prefix_tokens"),
                "more than an entry can hold".to_owned(),
            ));
        }
        let default_tier = default_tier(&model, &key)?;
        let prices = observe::prices(model.prices.as_ref())
            .map_err(|(field, reason)| (key(&field), reason))?;
        let source = source(&mut model, path).map_err(|(field, reason)| (key(field), reason))?;
        let images = images(&model.image_tokens)
            .map_err(|(field, reason)| (key(&format!("image_tokens.{field}")), reason))?;
        models.push(ModelConfig {
            model: model.model,
            source,
            images,
            min_prefix_tokens: model.min_prefix_tokens,
            tiers: model.tiers,
            default_tier,
            auto: model.auto,
            prices,
        });
    }
    Ok(models)
}

/// What an image may count at most, or have as a side: an entry holds 32 bits of tokens.
pub(super) const IMAGE_MAX: u64 = 100_000;

fn images(raw: &RawImageTokens) -> Result<ImageTokens, Invalid> {
    let tiles = match raw {
        RawImageTokens::Ignore => return Ok(ImageTokens::Ignore),
        RawImageTokens::Fixed(tokens) => {
            between("fixed", u64::from(*tokens), 0, IMAGE_MAX)?;
            return Ok(ImageTokens::Fixed(*tokens));
        }
        RawImageTokens::Tiles(tiles) => tiles,
    };
    let bounds = [
        ("tiles.tile_px", tiles.tile_px, 1),
        ("tiles.tokens_per_tile", tiles.tokens_per_tile, 0),
        ("tiles.base_tokens", tiles.base_tokens, 0),
        ("tiles.long_side_px_max", tiles.long_side_px_max, 1),
        ("tiles.short_side_px_max", tiles.short_side_px_max, 1),
    ];
    for (key, value, least) in bounds {
        between(key, u64::from(value), least, IMAGE_MAX)?;
    }
    let tiles = Tiles {
        tile_px: tiles.tile_px,
        tokens_per_tile: tiles.tokens_per_tile,
        base_tokens: tiles.base_tokens,
        long_side_px_max: tiles.long_side_px_max,
        short_side_px_max: tiles.short_side_px_max,
    };
    if tiles.most() > IMAGE_MAX {
        let reason = format!("an image could count more than {IMAGE_MAX} tokens");
        return Err(invalid("tiles", reason));
    }
    Ok(ImageTokens::Tiles(tiles))
}

fn default_tier(model: &RawModel, key: &dyn Fn(&str) -> String) -> Result<Tier, Invalid> {
    let mut seen = HashSet::new();
    if let Some(tier) = model.tiers.iter().find(|tier| !seen.insert(**tier)) {
        return Err((key("tiers"), format!("{} is listed twice", tier.as_str())));
    }
    let Some(shortest) = model.tiers.iter().min() else {
        return Err((key("tiers"), "at least one tier is needed".to_owned()));
    };
    let default_tier = model.default_tier.unwrap_or(*shortest);
    let named = [("default_tier", Some(default_tier)), ("auto", model.auto)];
    for (name, tier) in named {
        if let Some(tier) = tier.filter(|tier| !seen.contains(tier)) {
            let reason = format!("{} is not among the tiers", tier.as_str());
            return Err((key(name), reason));
        }
    }
    Ok(default_tier)
}

fn principals(
    unknown: UnknownPrincipal,
    raw: &[RawPrincipal],
    accounts: bool,
) -> Result<PrincipalsConfig, Invalid> {
    if unknown == UnknownPrincipal::Accept {
        return if raw.is_empty() {
            Ok(PrincipalsConfig::Any)
        } else {
            Err(invalid(
                "principals",
                "has no effect with unknown_principal: accept",
            ))
        };
    }
    if raw.is_empty() && !accounts {
        return Err(invalid(
            "principals",
            "unknown_principal: inactive needs a list of principals, or accounts",
        ));
    }
    let mut known = HashSet::with_capacity(raw.len());
    for (i, principal) in raw.iter().enumerate() {
        let key = || format!("principals[{i}].fingerprint");
        let fingerprint = prompt_cache_core::PrefixHash::from_hex(&principal.fingerprint)
            .map(|bytes| Fingerprint::new(*bytes.as_bytes()))
            .ok_or_else(|| (key(), "must be 64 hex digits".to_owned()))?;
        if !known.insert(fingerprint) {
            return Err((key(), "is listed twice".to_owned()));
        }
    }
    Ok(PrincipalsConfig::Known(known))
}

fn drift(raw: &RawDrift) -> Result<DriftConfig, Invalid> {
    if !(1.0..=10.0).contains(&raw.max_ratio) {
        let reason = format!("{} is not between 1 and 10", raw.max_ratio);
        return Err(invalid("drift.max_ratio", reason));
    }
    Ok(DriftConfig {
        max_ratio_permille: (raw.max_ratio * 1000.0).round() as u32,
        stop_writes: raw.stop_writes,
    })
}

fn limits(raw: &RawLimits) -> Result<Limits, Invalid> {
    at_least(
        "limits.classify_body_bytes_max",
        raw.classify_body_bytes_max as u64,
        16 << 10,
    )?;
    at_least(
        "limits.text_body_bytes_max",
        raw.text_body_bytes_max as u64,
        64 << 10,
    )?;
    at_least(
        "limits.text_bytes_in_flight_max",
        raw.text_bytes_in_flight_max as u64,
        raw.text_body_bytes_max as u64,
    )?;
    at_least(
        "limits.commit_body_bytes_max",
        raw.commit_body_bytes_max as u64,
        16 << 10,
    )?;
    let tokenize_concurrency_max = raw
        .tokenize_concurrency_max
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let counts = [
        ("limits.connections_max", raw.connections_max),
        ("limits.concurrency_max", raw.concurrency_max),
        ("limits.tokenize_concurrency_max", tokenize_concurrency_max),
    ];
    for (key, value) in counts {
        between(key, value as u64, 1, COUNT_MAX)?;
    }
    between(
        "limits.tokenize_queue_max",
        raw.tokenize_queue_max as u64,
        0,
        COUNT_MAX,
    )?;
    between(
        "limits.tokenize_timeout_ms",
        raw.tokenize_timeout_ms,
        1,
        WAIT_MS_MAX,
    )?;
    between(
        "limits.request_timeout_ms",
        raw.request_timeout_ms,
        1,
        WAIT_MS_MAX,
    )?;
    between(
        "limits.shutdown_delay_ms",
        raw.shutdown_delay_ms,
        0,
        WAIT_MS_MAX,
    )?;
    between(
        "limits.shutdown_grace_ms",
        raw.shutdown_grace_ms,
        0,
        WAIT_MS_MAX,
    )?;
    Ok(Limits {
        classify_body_bytes_max: raw.classify_body_bytes_max,
        text_body_bytes_max: raw.text_body_bytes_max,
        text_bytes_in_flight_max: raw.text_bytes_in_flight_max,
        commit_body_bytes_max: raw.commit_body_bytes_max,
        connections_max: raw.connections_max,
        concurrency_max: raw.concurrency_max,
        tokenize_concurrency_max,
        tokenize_queue_max: raw.tokenize_queue_max,
        tokenize_timeout_ms: raw.tokenize_timeout_ms,
        request_timeout_ms: raw.request_timeout_ms,
        shutdown_delay_ms: raw.shutdown_delay_ms,
        shutdown_grace_ms: raw.shutdown_grace_ms,
    })
}

pub(super) fn invalid(key: &str, reason: impl Into<String>) -> Invalid {
    (key.to_owned(), reason.into())
}

pub(super) fn at_least(key: &str, value: u64, least: u64) -> Result<(), Invalid> {
    if value < least {
        return Err(invalid(key, format!("{value} is below {least}")));
    }
    Ok(())
}

pub(super) fn between(key: &str, value: u64, least: u64, most: u64) -> Result<(), Invalid> {
    if !(least..=most).contains(&value) {
        return Err(invalid(
            key,
            format!("{value} is not between {least} and {most}"),
        ));
    }
    Ok(())
}
