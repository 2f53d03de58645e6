//! Envoy's listener in a file of its own, which Envoy follows: it is replaced while streams are in
//! flight on the old one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

const LISTENER_TYPE: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

/// The file.
pub struct ListenerFile {
    path: PathBuf,
    version: u64,
}

impl ListenerFile {
    /// Moves the listener of a rendered configuration to a file in `folder`. What is left for Envoy
    /// to start with, the listener, and the file.
    pub fn split(rendered: &str, folder: &Path) -> Result<(String, Value, Self), String> {
        let (mut config, listener) = take(rendered)?;
        let path = folder.join("listener.json");
        // Envoy asks for a name where something is not static.
        config["node"] = json!({"id": "tests", "cluster": "tests"});
        config["dynamic_resources"] = json!({"lds_config": {
            "resource_api_version": "V3",
            "path_config_source": {"path": path},
        }});
        let mut file = Self { path, version: 0 };
        file.replace(&listener)?;
        Ok((config.to_string(), listener, file))
    }

    /// Puts another listener in place. Where only its filters differ, its socket stays, and
    /// connections that are open go on with the old ones.
    pub fn replace(&mut self, listener: &Value) -> Result<(), String> {
        self.version += 1;
        let text = json!({"version_info": self.version.to_string(), "resources": [listener]});
        let new = self.path.with_extension("new");
        // Envoy looks when a file is moved to the name.
        fs::write(&new, text.to_string())
            .and_then(|()| fs::rename(&new, &self.path))
            .map_err(|e| e.to_string())
    }
}

/// The listener of a rendered configuration, as such a file has it.
pub fn listener_of(rendered: &str) -> Result<Value, String> {
    take(rendered).map(|(_, listener)| listener)
}

fn take(rendered: &str) -> Result<(Value, Value), String> {
    let mut config: Value = serde_json::from_str(rendered).map_err(|e| e.to_string())?;
    let resources = config["static_resources"].as_object_mut();
    let listeners = resources.and_then(|resources| resources.remove("listeners"));
    let listener = listeners.and_then(|all| all.get(0).cloned());
    let mut listener = listener.ok_or("a configuration without a listener")?;
    listener["@type"] = json!(LISTENER_TYPE);
    Ok((config, listener))
}
