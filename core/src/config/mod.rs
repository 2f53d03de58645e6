//! The filter's configuration: raw JSON of the Envoy plugin → validated settings.

mod nearest;

use std::fmt;

use serde::Deserialize;

pub use nearest::with_nearest;

use crate::{
    ledger::Tier,
    object::{items, members, slice},
    request::MixedTtlOrder,
};

/// Largest body any setting may allow: the VM's linear memory is 1 GiB.
pub const REQUEST_BYTES_LIMIT: usize = 256 << 20;
/// Most memory leases may take, in bytes, for the same reason.
pub const LEASE_BYTES_LIMIT: usize = 256 << 20;
/// Largest event that may be edited, and most bytes of a response that may be held.
const HELD_BYTES_LIMIT: usize = 64 << 20;
/// Longest of most waits.
const DAY_MS: u64 = 86_400_000;
/// Longest tick: deadlines are kept by it.
const COMMIT_FLUSH_MS_LIMIT: u64 = 60_000;
/// Largest of the other counts.
const COUNT_LIMIT: u64 = 1_000_000;

/// The validated plugin configuration: one JSON object. Every key but `index_cluster` has a
/// default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FilterConfig {
    /// Envoy cluster of the index service.
    #[cfg_attr(feature = "schema", schemars(length(min = 1), extend("x-default" = "required")))]
    pub index_cluster: String,
    /// `:authority` of the callouts.
    pub index_authority: String,
    /// Bearer token of the callouts: the service's `auth_token`. None: no `authorization` header.
    pub index_token: Option<String>,
    /// Key of the principal fingerprints. Set it, the same on every proxy of a mesh. Changing it
    /// starts every tenant afresh.
    pub fingerprint_key: String,
    /// Where the principal comes from, the first that is present.
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub principal: Vec<PrincipalSource>,
    /// Enabled tiers, in the order in which refusals name them, for models that the service does
    /// not know. A model's own come from the service.
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub tiers: Vec<Tier>,
    /// Tier of a marker without `ttl`, likewise; one of `tiers`.
    pub default_tier: Tier,
    /// Whether a longer tier may follow a shorter one, or (`longest_first`) is refused.
    pub mixed_ttl_order: MixedTtlOrder,
    /// Top-level members of the request that shape the prompt: part of every prefix hash.
    pub prefix_params: Vec<String>,
    /// Largest request body, in bytes; larger ones are refused with 400. Keep Envoy's buffer limit
    /// at the same value.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = REQUEST_BYTES_LIMIT)))]
    pub max_request_bytes: usize,
    /// Largest SSE event that is edited, in bytes; larger ones pass unedited.
    #[cfg_attr(feature = "schema", schemars(range(min = 1024, max = HELD_BYTES_LIMIT)))]
    pub max_event_bytes: usize,
    /// Most bytes of a response held back; beyond it they are released unedited.
    #[cfg_attr(feature = "schema", schemars(range(min = 1024, max = HELD_BYTES_LIMIT)))]
    pub max_held_bytes: usize,
    /// From the request's departure to the last moment a terminal usage frame waits.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = DAY_MS)))]
    pub classify_deadline_ms: u64,
    /// From a success to the last attempt to commit it.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = DAY_MS)))]
    pub commit_deadline_ms: u64,
    /// How often a worker sends what it has to commit; also the tick of the root context.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = COMMIT_FLUSH_MS_LIMIT)))]
    pub commit_flush_ms: u64,
    /// Commits a worker keeps while the service is away; the oldest goes first.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = COUNT_LIMIT)))]
    pub commit_queue_max: usize,
    /// How often a worker asks for the policy: which models are active.
    #[cfg_attr(feature = "schema", schemars(range(min = 100, max = DAY_MS)))]
    pub policy_refresh_ms: u64,
    /// Memory of a worker for leases, in bytes, 128 each; 0: every marked request makes a callout.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = LEASE_BYTES_LIMIT)))]
    pub lease_bytes_max: usize,
    /// How long leases are trusted since the service last confirmed its policy. Give it several
    /// times `policy_refresh_ms`.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = DAY_MS)))]
    pub lease_trust_ms: u64,
    /// Largest prompt, in bytes, that goes along with the first callout where no lease knows it:
    /// most such prompts are new, and one callout costs less than two. 0: the prompt is only sent
    /// when the service asks for it.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = REQUEST_BYTES_LIMIT)))]
    pub text_at_once_bytes_max: usize,
    /// Failed classifications in a row that open the breaker.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = COUNT_LIMIT)))]
    pub breaker_failures: u32,
    /// How long an open breaker waits before its probe of `/readyz`.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = DAY_MS)))]
    pub breaker_open_ms: u64,
    /// Remove the upstream's own cache fields from responses that are not cached here.
    pub scrub_upstream_cache_fields: bool,
    /// Request header that gets the prefix hash of the first breakpoint, for consistent-hash
    /// routing; lower case. None: no header.
    pub prefix_hash_header: Option<String>,
    /// Add a per-tenant `cache_salt` member to the forwarded body of active models.
    pub cache_salt: bool,
    /// How the text of a *volatile* `system` block starts: one that changes with every request
    /// although the prompt does not. Without a marker, and beside others, it is no part of the
    /// prefix.
    pub volatile_prefixes: Vec<String>,
    /// Forward volatile blocks all the same.
    pub forward_volatile_blocks: bool,
}

/// One place a principal may come from: `"authorization_bearer"`, `"x_api_key"`,
/// `{"header": "x-tenant"}` or `{"attribute": ["connection", "uri_san_peer_certificate"]}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
pub enum PrincipalSource {
    /// The token of `authorization: Bearer …`.
    AuthorizationBearer,
    /// The value of `x-api-key`.
    XApiKey,
    /// The value of a named request header, in lower case.
    Header(String),
    /// An Envoy attribute, as path segments: `["connection", "uri_san_peer_certificate"]`.
    Attribute(Vec<String>),
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The offending key, as a path.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin configuration: {}: {}", self.key, self.reason)
    }
}

impl Default for FilterConfig {
    fn default() -> Self {
        Self {
            index_cluster: String::new(),
            index_authority: "prompt-cache-index".into(),
            index_token: None,
            fingerprint_key: String::new(),
            principal: vec![PrincipalSource::AuthorizationBearer],
            tiers: vec![Tier::FiveMinutes, Tier::OneHour],
            default_tier: Tier::FiveMinutes,
            mixed_ttl_order: MixedTtlOrder::Any,
            prefix_params: [
                "chat_template",
                "chat_template_kwargs",
                "reasoning_effort",
                "documents",
            ]
            .map(String::from)
            .to_vec(),
            max_request_bytes: 32 << 20,
            max_event_bytes: 1 << 20,
            max_held_bytes: 256 << 10,
            classify_deadline_ms: 5_000,
            commit_deadline_ms: 30_000,
            commit_flush_ms: 10,
            commit_queue_max: 10_000,
            policy_refresh_ms: 5_000,
            lease_bytes_max: 8 << 20,
            lease_trust_ms: 30_000,
            text_at_once_bytes_max: 16 << 10,
            breaker_failures: 5,
            breaker_open_ms: 10_000,
            scrub_upstream_cache_fields: false,
            prefix_hash_header: None,
            cache_salt: false,
            volatile_prefixes: vec!["x-anthropic-billing-header:".into()],
            forward_volatile_blocks: false,
        }
    }
}

impl FilterConfig {
    /// Reads and validates the plugin's JSON. The error names the first offending key.
    // Inline: compiled where it is called, for size, not as fast as the rest of `core`.
    #[inline]
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let config: Self = serde_json::from_slice(json).map_err(|e| ConfigError {
            key: key_at(json, &e).unwrap_or_else(|| "(top level)".into()),
            reason: with_nearest(e.to_string()),
        })?;
        config.validated()
    }

    fn validated(self) -> Result<Self, ConfigError> {
        let between = |key: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            refuse(key, format!("must be between {low} and {high}, is {value}"))
        };
        if self.index_cluster.is_empty() {
            return refuse(
                "index_cluster",
                "is required: the Envoy cluster of the index service",
            );
        }
        if self.principal.is_empty() {
            return refuse("principal", "needs at least one source");
        }
        for source in &self.principal {
            match source {
                PrincipalSource::Header(name) => check_header_name("principal", name)?,
                PrincipalSource::Attribute(path) if path.is_empty() => {
                    return refuse("principal", "an attribute needs at least one path segment");
                }
                _ => {}
            }
        }
        if self.volatile_prefixes.iter().any(String::is_empty) {
            return refuse(
                "volatile_prefixes",
                "every text starts with an empty prefix",
            );
        }
        if self.tiers.is_empty() {
            return refuse("tiers", "needs at least one tier");
        }
        if Tier::ALL
            .iter()
            .any(|tier| self.tiers.iter().filter(|t| *t == tier).count() > 1)
        {
            return refuse("tiers", "names a tier twice");
        }
        if !self.tiers.contains(&self.default_tier) {
            return refuse("default_tier", "must be one of tiers");
        }
        if let Some(name) = &self.prefix_hash_header {
            check_header_name("prefix_hash_header", name)?;
        }
        between(
            "max_request_bytes",
            self.max_request_bytes as u64,
            1,
            REQUEST_BYTES_LIMIT as u64,
        )?;
        between(
            "max_event_bytes",
            self.max_event_bytes as u64,
            1_024,
            HELD_BYTES_LIMIT as u64,
        )?;
        between(
            "max_held_bytes",
            self.max_held_bytes as u64,
            1_024,
            HELD_BYTES_LIMIT as u64,
        )?;
        between("classify_deadline_ms", self.classify_deadline_ms, 1, DAY_MS)?;
        between("commit_deadline_ms", self.commit_deadline_ms, 1, DAY_MS)?;
        between(
            "commit_flush_ms",
            self.commit_flush_ms,
            1,
            COMMIT_FLUSH_MS_LIMIT,
        )?;
        between(
            "commit_queue_max",
            self.commit_queue_max as u64,
            1,
            COUNT_LIMIT,
        )?;
        between("policy_refresh_ms", self.policy_refresh_ms, 100, DAY_MS)?;
        between(
            "lease_bytes_max",
            self.lease_bytes_max as u64,
            0,
            LEASE_BYTES_LIMIT as u64,
        )?;
        between("lease_trust_ms", self.lease_trust_ms, 1, DAY_MS)?;
        between(
            "text_at_once_bytes_max",
            self.text_at_once_bytes_max as u64,
            0,
            REQUEST_BYTES_LIMIT as u64,
        )?;
        between(
            "breaker_failures",
            u64::from(self.breaker_failures),
            1,
            COUNT_LIMIT,
        )?;
        between("breaker_open_ms", self.breaker_open_ms, 1, DAY_MS)?;
        Ok(self)
    }
}

/// The member, and the item of its array, in which an error was met. Found afterwards: a
/// deserializer that keeps track of its path would be a twentieth of the filter's module.
fn key_at(json: &[u8], error: &serde_json::Error) -> Option<String> {
    let lines = json.split_inclusive(|byte| *byte == b'\n');
    let line_start: usize = lines
        .take(error.line().checked_sub(1)?)
        .map(<[u8]>::len)
        .sum();
    // The column is that of the last byte that was read.
    let at = line_start.checked_add(error.column())?.checked_sub(1)?;
    let member = members(json)?
        .into_iter()
        .find(|member| (member.key.start..member.value.end).contains(&at))?;
    let key: String = serde_json::from_slice(slice(json, member.key)).ok()?;
    let in_value = at.checked_sub(member.value.start);
    let item = items(slice(json, member.value))
        .iter()
        .position(|item| in_value.is_some_and(|at| item.contains(&at)));
    Some(match item {
        Some(item) => format!("{key}[{item}]"),
        None => key,
    })
}

fn refuse<T>(key: &str, reason: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError {
        key: key.into(),
        reason: reason.into(),
    })
}

fn check_header_name(key: &str, name: &str) -> Result<(), ConfigError> {
    let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    if !name.is_empty() && name.bytes().all(token) {
        return Ok(());
    }
    refuse(
        key,
        "a header name is lower-case letters, digits, '-', '_' and '.'",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<FilterConfig, ConfigError> {
        FilterConfig::parse(json.as_bytes())
    }

    #[test]
    fn defaults_need_only_the_cluster() {
        let config = parse(r#"{"index_cluster":"i"}"#).unwrap();
        assert_eq!(
            config,
            FilterConfig {
                index_cluster: "i".into(),
                ..Default::default()
            }
        );
        assert_eq!(config.max_request_bytes, 33_554_432);
        assert_eq!(config.max_held_bytes, 262_144);
    }

    #[test]
    fn an_error_is_a_line_for_the_log() {
        let error = parse("{}").unwrap_err();
        let line = format!("plugin configuration: index_cluster: {}", error.reason);
        assert_eq!(error.to_string(), line);
        assert!(!error.reason.is_empty());
    }

    #[test]
    fn every_source_of_a_principal_parses() {
        let json = r#"{"index_cluster":"i","principal":["authorization_bearer","x_api_key",
            {"header":"x-tenant"},{"attribute":["connection","uri_san_peer_certificate"]}]}"#;
        assert_eq!(parse(json).unwrap().principal.len(), 4);
    }

    #[test]
    fn refusals_name_the_key() {
        let cases = [
            ("", "(top level)"),
            ("{}", "index_cluster"),
            (
                r#"{"index_cluster":"i","classify_dedline_ms":1}"#,
                "classify_dedline_ms",
            ),
            (r#"{"index_cluster":"i","tiers":["5m","2h"]}"#, "tiers[1]"),
            (
                "{\"index_cluster\":\"i\",\n \"principal\":[\n\"x_api_key\",\n{\"header\":3}\n]}",
                "principal[1]",
            ),
            (
                r#"{"index_cluster":"i","cache_salt":1,"tiers":7}"#,
                "cache_salt",
            ),
            (r#"{"index_cluster":"i","tiers":{}}"#, "tiers"),
            (r#"{"index_cluster":"i","tiers":[]}"#, "tiers"),
            (r#"{"index_cluster":"i","tiers":["5m","5m"]}"#, "tiers"),
            (
                r#"{"index_cluster":"i","default_tier":"24h"}"#,
                "default_tier",
            ),
            (r#"{"index_cluster":"i","principal":[]}"#, "principal"),
            (
                r#"{"index_cluster":"i","principal":[{"header":"X Y"}]}"#,
                "principal",
            ),
            (
                r#"{"index_cluster":"i","principal":[{"attribute":[]}]}"#,
                "principal",
            ),
            (
                r#"{"index_cluster":"i","commit_flush_ms":0}"#,
                "commit_flush_ms",
            ),
            (
                r#"{"index_cluster":"i","max_request_bytes":"1"}"#,
                "max_request_bytes",
            ),
            (r#"{"index_cluster":"i"} x"#, "(top level)"),
        ];
        for (json, key) in cases {
            let error = parse(json).unwrap_err();
            assert!(
                error.key == key || error.reason.contains(key),
                "{json}: {error}"
            );
        }
    }
}
