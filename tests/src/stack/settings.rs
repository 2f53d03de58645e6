//! The stack's settings, from the environment.

use std::{path::PathBuf, str::FromStr};

use crate::envoy::Address;

/// What `./just up` can be told. Port 0 takes a free one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `ENVOY_PORT`, where clients connect.
    pub envoy_port: u16,
    /// `ENVOY_ADMIN_PORT`.
    pub envoy_admin_port: u16,
    /// `INDEX_PORT`.
    pub index_port: u16,
    /// `UPSTREAM`, the LLM; without one the stand-in is started.
    pub upstream: Option<Address>,
    /// `INDEX_CONFIG`, the index service's config file; without one it serves the model `demo`.
    pub index_config: Option<PathBuf>,
    /// `DATA_DIR`, the ledger; without one it lives in a folder that goes with the stack.
    pub data_dir: Option<PathBuf>,
    /// `CONCURRENCY`, Envoy's worker threads.
    pub concurrency: u32,
}

impl Settings {
    /// Reads the settings with `get`; an empty value is an absent one.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let concurrency = number(&get, "CONCURRENCY", 1)?;
        if concurrency == 0 {
            return Err("CONCURRENCY must be at least 1".to_owned());
        }
        Ok(Self {
            envoy_port: number(&get, "ENVOY_PORT", 10000)?,
            envoy_admin_port: number(&get, "ENVOY_ADMIN_PORT", 9901)?,
            index_port: number(&get, "INDEX_PORT", 8088)?,
            upstream: get("UPSTREAM")
                .map(|text| text.parse().map_err(|e| format!("UPSTREAM: {e}")))
                .transpose()?,
            index_config: get("INDEX_CONFIG").map(PathBuf::from),
            data_dir: get("DATA_DIR").map(PathBuf::from),
            concurrency,
        })
    }

    /// Free ports, the stand-in LLM and a ledger of its own, whatever the environment says.
    pub fn isolated() -> Self {
        Self {
            envoy_port: 0,
            envoy_admin_port: 0,
            index_port: 0,
            upstream: None,
            index_config: None,
            data_dir: None,
            concurrency: 1,
        }
    }

    /// The ports, by the names of their settings.
    pub fn ports(&self) -> [(&'static str, u16); 3] {
        [
            ("ENVOY_PORT", self.envoy_port),
            ("ENVOY_ADMIN_PORT", self.envoy_admin_port),
            ("INDEX_PORT", self.index_port),
        ]
    }
}

fn number<T: FromStr>(
    get: &impl Fn(&str) -> Option<String>,
    name: &str,
    default: T,
) -> Result<T, String> {
    match get(name) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| format!("{name}: {text:?} is not a valid number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::read(|name| {
            pairs
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    fn defaults_and_values() {
        let settings = read(&[("UPSTREAM", ""), ("ENVOY_PORT", "1")]).unwrap();
        assert_eq!(settings.ports().map(|(_, port)| port), [1, 9901, 8088]);
        assert_eq!((settings.upstream, settings.concurrency), (None, 1));
        let settings = read(&[("UPSTREAM", "llm:80"), ("INDEX_CONFIG", "a.yaml")]).unwrap();
        assert_eq!(
            settings.upstream.map(|a| a.to_string()).as_deref(),
            Some("llm:80")
        );
        assert_eq!(settings.index_config, Some(PathBuf::from("a.yaml")));
    }

    #[test]
    fn errors_name_the_setting() {
        for (name, value) in [
            ("ENVOY_PORT", "x"),
            ("INDEX_PORT", "70000"),
            ("UPSTREAM", "x"),
            ("CONCURRENCY", "0"),
        ] {
            assert!(read(&[(name, value)]).unwrap_err().starts_with(name));
        }
    }
}
