//! The plugin's configuration is replaced while streams are in flight, by good ones and by ones
//! that Envoy must refuse.

use std::path::Path;

use prompt_cache_e2e::envoy::{ListenerFile, Stats};
use serde_json::{Value, json};

use crate::weather::Reload;

/// Where the plugin's configuration is in a listener.
const PLUGIN: &str = "/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config/configuration/value";

/// The file and what was in it at first.
pub struct Listener {
    file: ListenerFile,
    listener: Value,
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
        let (rest, listener, file) = ListenerFile::split(rendered, folder)?;
        let split = Self {
            file,
            listener,
            reloads: Reloads::default(),
        };
        Ok((rest, split))
    }

    /// Puts another configuration in place.
    pub fn reload(&mut self, reload: Reload) -> Result<(), String> {
        match reload {
            Reload::Good => self.reloads.good += 1,
            Reload::Bad => self.reloads.bad += 1,
        }
        let number = self.reloads.good + self.reloads.bad;
        let mut listener = self.listener.clone();
        let plugin = listener.pointer_mut(PLUGIN).ok_or(PLUGIN)?;
        let text = plugin.as_str().unwrap_or_default();
        let mut members: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match reload {
            // Nothing that a request would notice, but another one each time.
            Reload::Good => members["commit_queue_max"] = json!(10_000 + number),
            Reload::Bad => members["no_such_key"] = json!(number),
        }
        *plugin = json!(members.to_string());
        self.file.replace(&listener)
    }

    pub const fn reloads(&self) -> Reloads {
        self.reloads
    }
}
