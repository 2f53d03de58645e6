//! Envoy's listener in a file of its own, which it follows: a new plugin configuration arrives
//! while streams are in flight.

use std::{
    fs,
    path::{Path, PathBuf},
};

use prompt_cache_e2e::envoy::Stats;
use serde_json::{Value, json};

use crate::weather::Reload;

/// Where the plugin's configuration is in a listener.
const PLUGIN: &str = "/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config/configuration/value";
const LISTENER_TYPE: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

/// The file and what is in it.
pub struct Listener {
    file: PathBuf,
    listener: Value,
    version: u64,
    reloads: Reloads,
}

/// How often it was replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    pub good: u64,
    pub bad: u64,
}

impl Reloads {
    /// What Envoy says: the first configuration is none of ours.
    pub fn of(stats: &Stats) -> Self {
        let counter = |name| stats.counter(name, &[]);
        Self {
            good: counter("envoy_listener_manager_lds_update_success").saturating_sub(1),
            bad: counter("envoy_listener_manager_lds_update_rejected"),
        }
    }
}

impl Listener {
    /// Moves the listener of a rendered configuration to a file in `folder`.
    pub fn split(rendered: &str, folder: &Path) -> Result<(String, Self), String> {
        let mut config: Value = serde_json::from_str(rendered).map_err(|e| e.to_string())?;
        let resources = config["static_resources"].as_object_mut();
        let listeners = resources.and_then(|resources| resources.remove("listeners"));
        let listener = listeners.and_then(|all| all.get(0).cloned());
        let mut listener = listener.ok_or("a configuration without a listener")?;
        listener["@type"] = json!(LISTENER_TYPE);
        let file = folder.join("listener.json");
        config["node"] = json!({"id": "chaos", "cluster": "chaos"});
        config["dynamic_resources"] = json!({"lds_config": {
            "resource_api_version": "V3",
            "path_config_source": {"path": file},
        }});
        let split = Self {
            file,
            listener,
            version: 0,
            reloads: Reloads::default(),
        };
        split.write(&split.listener)?;
        Ok((config.to_string(), split))
    }

    /// Puts another configuration in place.
    pub fn reload(&mut self, reload: Reload) -> Result<(), String> {
        self.version += 1;
        match reload {
            Reload::Good => self.reloads.good += 1,
            Reload::Bad => self.reloads.bad += 1,
        }
        let mut listener = self.listener.clone();
        let plugin = listener.pointer_mut(PLUGIN).ok_or(PLUGIN)?;
        let text = plugin.as_str().unwrap_or_default();
        let mut members: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match reload {
            // Nothing that a request would notice, but another one each time.
            Reload::Good => members["commit_queue_max"] = json!(10_000 + self.version),
            Reload::Bad => members["no_such_key"] = json!(self.version),
        }
        *plugin = json!(members.to_string());
        self.write(&listener)
    }

    pub const fn reloads(&self) -> Reloads {
        self.reloads
    }

    fn write(&self, listener: &Value) -> Result<(), String> {
        let text = json!({"version_info": self.version.to_string(), "resources": [listener]});
        let new = self.file.with_extension("new");
        // Envoy looks when a file is moved to the name.
        fs::write(&new, text.to_string())
            .and_then(|()| fs::rename(&new, &self.file))
            .map_err(|e| e.to_string())
    }
}
