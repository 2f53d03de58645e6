//! The shipped config with the values of one run in it.

use std::{fmt, path::Path, path::PathBuf, str::FromStr};

use serde_json::{Map, Value, json};

/// What differs from the shipped `standalone.yaml`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Another config than the shipped one, of the same names and order.
    pub base: Option<Value>,
    /// The module to load.
    pub filter: PathBuf,
    /// Port of the listener, 0 for any.
    pub port: u16,
    /// Port of the admin interface, 0 for any.
    pub admin_port: u16,
    /// The LLM.
    pub upstream: Address,
    /// The LLM speaks HTTP/2 with prior knowledge.
    pub upstream_http2: bool,
    /// The index service.
    pub index: Address,
    /// Worker threads.
    pub concurrency: u32,
    /// Envoy's `--log-level`.
    pub log_level: &'static str,
    /// The rest of its command line. As given by [`Config::new`] there is no shared memory between
    /// Envoys, so that any number runs side by side.
    pub arguments: Vec<String>,
    /// Members to set in the plugin's configuration; `null` removes one.
    pub plugin: Value,
    /// Envoy's own buffer limit, when it is not the shipped one; at least 65,535, the smallest
    /// HTTP/2 window.
    pub buffer_bytes_max: Option<u64>,
    /// Access log file; the shipped config logs to stdout.
    pub access_log: Option<PathBuf>,
    /// Members to set in Envoy's own configuration, by JSON pointer, after everything else. The
    /// parent must be there; `null` removes the member.
    pub members: Vec<(&'static str, Value)>,
}

/// A host (name or IP address) and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

impl FromStr for Address {
    type Err = String;

    /// `HOST:PORT`, an IPv6 address in brackets.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(wrong)?;
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() || host.contains(['/', '@', ' ']) {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl From<std::net::SocketAddr> for Address {
    fn from(address: std::net::SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Config {
    /// The shipped config on free ports.
    pub fn new(filter: PathBuf, upstream: Address, index: Address) -> Self {
        Self {
            base: None,
            filter,
            port: 0,
            admin_port: 0,
            upstream,
            upstream_http2: false,
            index,
            concurrency: 1,
            log_level: "info",
            arguments: vec!["--disable-hot-restart".into()],
            plugin: json!({}),
            buffer_bytes_max: None,
            access_log: None,
            members: vec![],
        }
    }

    /// The YAML file at `shipped`, or `base`, with this run's values, as JSON.
    pub fn render(&self, shipped: &Path) -> Result<String, String> {
        let name = shipped.display();
        let mut config: Value = match &self.base {
            Some(base) => base.clone(),
            None => {
                let text = std::fs::read_to_string(shipped).map_err(|e| format!("{name}: {e}"))?;
                serde_saphyr::from_str(&text).map_err(|e| format!("{name}: {e}"))?
            }
        };
        self.patch(&mut config)
            .map_err(|path| format!("{name} has no {path}"))?;
        serde_json::to_string_pretty(&config).map_err(|e| format!("{name}: {e}"))
    }

    /// `Err` is the path that was expected and not there.
    fn patch(&self, config: &mut Value) -> Result<(), String> {
        set(
            config,
            "/admin/address/socket_address/port_value",
            json!(self.admin_port),
        )?;
        let listener = at(config, "/static_resources/listeners/0")?;
        set(
            listener,
            "/address/socket_address/port_value",
            json!(self.port),
        )?;
        if let Some(bytes) = self.buffer_bytes_max {
            set(listener, "/per_connection_buffer_limit_bytes", json!(bytes))?;
        }
        let manager = at(listener, "/filter_chains/0/filters/0/typed_config")?;
        if let Some(bytes) = self.buffer_bytes_max {
            let window = "/http2_protocol_options/initial_stream_window_size";
            set(manager, window, json!(bytes))?;
        }
        if let Some(path) = &self.access_log {
            let log = at(manager, "/access_log/0")?;
            set(log, "/name", json!("envoy.access_loggers.file"))?;
            let kind = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
            set(log, "/typed_config/@type", json!(kind))?;
            log["typed_config"]["path"] = json!(path);
        }
        let wasm = at(manager, "/http_filters/0/typed_config/config")?;
        set(wasm, "/vm_config/code/local/filename", json!(self.filter))?;
        merge_json(at(wasm, "/configuration/value")?, &self.plugin)?;
        for (name, address) in [
            ("upstream", &self.upstream),
            ("prompt_cache_index", &self.index),
        ] {
            let cluster = at(config, "/static_resources/clusters")?
                .as_array_mut()
                .and_then(|all| all.iter_mut().find(|cluster| cluster["name"] == name))
                .ok_or_else(|| format!("cluster {name}"))?;
            if address.host.parse::<std::net::IpAddr>().is_err() {
                set(cluster, "/type", json!("STRICT_DNS"))?;
            }
            if name == "upstream" && self.upstream_http2 {
                cluster["typed_extension_protocol_options"] = http2_options();
            }
            let socket =
                "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
            let socket = at(cluster, socket)?;
            set(socket, "/address", json!(address.host))?;
            set(socket, "/port_value", json!(address.port))?;
        }
        for (path, value) in &self.members {
            set_member(config, path, value)?;
        }
        Ok(())
    }
}

/// HTTP/2 to a cluster, without asking the peer.
fn http2_options() -> Value {
    const NAME: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({NAME: {
        "@type": format!("type.googleapis.com/{NAME}"),
        "explicit_http_config": {"http2_protocol_options": {}},
    }})
}

fn at<'a>(value: &'a mut Value, path: &str) -> Result<&'a mut Value, String> {
    value.pointer_mut(path).ok_or_else(|| path.to_owned())
}

fn set(value: &mut Value, path: &str, new: Value) -> Result<(), String> {
    *at(value, path)? = new;
    Ok(())
}

/// Adds, replaces or (`null`) removes one member of an object.
fn set_member(value: &mut Value, path: &str, new: &Value) -> Result<(), String> {
    let (parent, name) = path.rsplit_once('/').ok_or_else(|| path.to_owned())?;
    let object = at(value, parent)?
        .as_object_mut()
        .ok_or_else(|| path.to_owned())?;
    if new.is_null() {
        object.remove(name).ok_or_else(|| path.to_owned())?;
    } else {
        object.insert(name.to_owned(), new.clone());
    }
    Ok(())
}

/// Changes members of the JSON object that `text` holds as a string.
fn merge_json(text: &mut Value, changes: &Value) -> Result<(), String> {
    let wrong = || "JSON object as the plugin's configuration".to_owned();
    let mut object: Map<String, Value> = text
        .as_str()
        .and_then(|json| serde_json::from_str(json).ok())
        .ok_or_else(wrong)?;
    for (key, change) in changes.as_object().into_iter().flatten() {
        if change.is_null() {
            object.remove(key);
        } else {
            object.insert(key.clone(), change.clone());
        }
    }
    *text = Value::String(Value::Object(object).to_string());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in [
            "127.0.0.1:9000",
            "localhost:1",
            "[::1]:80",
            "llm.internal:65535",
        ] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            ":80",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "http://host:80",
            "a b:1",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_shipped_config_takes_a_runs_values() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/standalone.yaml");
        let mut config = Config::new(
            "filter.wasm".into(),
            "llm.internal:81".parse().unwrap(),
            "127.0.0.1:82".parse().unwrap(),
        );
        config.plugin = json!({"max_request_bytes": 7, "default_tier": null});
        config.access_log = Some("access.log".into());
        config.members = vec![
            (
                "/static_resources/listeners/0/per_connection_buffer_limit_bytes",
                json!(null),
            ),
            ("/static_resources/clusters/0/alt_stat_name", json!("llm")),
        ];
        let config: Value = serde_json::from_str(&config.render(&shipped).unwrap()).unwrap();
        let listener = &config["static_resources"]["listeners"][0];
        assert_eq!(listener["address"]["socket_address"]["port_value"], 0);
        assert_eq!(listener.get("per_connection_buffer_limit_bytes"), None);
        let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
        assert_eq!(
            manager["access_log"][0]["typed_config"]["path"],
            "access.log"
        );
        let plugin = &manager["http_filters"][0]["typed_config"]["config"];
        assert_eq!(
            plugin["vm_config"]["code"]["local"]["filename"],
            "filter.wasm"
        );
        let plugin = plugin["configuration"]["value"].as_str().unwrap();
        let plugin: Value = serde_json::from_str(plugin).unwrap();
        assert_eq!(plugin["max_request_bytes"], 7);
        assert_eq!(plugin.get("default_tier"), None);
        let clusters = &config["static_resources"]["clusters"];
        assert_eq!(clusters[0]["alt_stat_name"], "llm");
        assert_eq!(
            [&clusters[0]["type"], &clusters[1]["type"]],
            ["STRICT_DNS", "STATIC"]
        );
    }
}
