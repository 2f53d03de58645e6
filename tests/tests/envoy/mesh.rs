//! The mesh manifests at work: their patches, applied to a plain Envoy as Istio's and Envoy Gateway's
//! control planes would, give a proxy that caches.

use std::{collections::BTreeMap, path::Path};

use prompt_cache_e2e::{
    layout::Layout,
    world::{CHAT, Options, World, cache_of, chat, completion, long_prefix, marked, sized},
};
use serde_json::{Value, json};

use crate::{envoy_takes, yaml};

/// Larger than what Envoy buffers by default, smaller than what we allow.
const LARGE_BODY_BYTES: usize = 3 << 20;

/// Each way into a mesh and the Envoy it makes.
pub fn all(layout: &Layout) -> Vec<(&'static str, Value)> {
    vec![
        ("istio/gateway.yaml", istio(layout, "gateway").0),
        ("istio/sidecar.yaml", istio(layout, "sidecar").0),
        ("gateway/prompt-cache.yaml", envoy_gateway(layout)),
    ]
}

/// The shipped Envoy without anything of ours: what a control plane starts from.
fn plain(layout: &Layout) -> Value {
    let mut config = yaml(&layout.standalone());
    remove(&mut config, "stats_config");
    remove(listener(&mut config), "per_connection_buffer_limit_bytes");
    let manager = &mut network_filter(&mut config)["typed_config"];
    remove(manager, "http2_protocol_options");
    remove(manager, "stream_idle_timeout");
    http_filters(&mut config).remove(0);
    config
}

/// What an EnvoyFilter makes, with the module in the listener and with it behind discovery.
fn istio(layout: &Layout, name: &str) -> (Value, Value) {
    let manifest = yaml(&layout.envoy_configs().join(format!("istio/{name}.yaml")));
    let mut config = plain(layout);
    let mut extensions = BTreeMap::new();
    for patch in manifest["spec"]["configPatches"].as_array().unwrap() {
        let value = &patch["patch"]["value"];
        let kind = patch["applyTo"].as_str().unwrap();
        match (kind, patch["patch"]["operation"].as_str().unwrap()) {
            ("EXTENSION_CONFIG", "ADD") => {
                let name = value["name"].as_str().unwrap();
                extensions.insert(name.to_owned(), value["typed_config"].clone());
            }
            ("HTTP_FILTER", "INSERT_BEFORE") => {
                let before = &patch["match"]["listener"]["filterChain"]["filter"];
                assert_eq!(before["name"], network_filter(&mut config)["name"]);
                insert_before(&mut config, &before["subFilter"]["name"], value.clone());
            }
            ("LISTENER", "MERGE") => merge(listener(&mut config), value),
            ("NETWORK_FILTER", "MERGE") => merge(network_filter(&mut config), value),
            ("BOOTSTRAP", "MERGE") => merge(&mut config, value),
            other => panic!("{other:?} is not known here"),
        }
    }
    let discovered = config.clone();
    for filter in http_filters(&mut config) {
        if filter.get("config_discovery").is_none() {
            continue;
        }
        let name = filter["name"].as_str().unwrap();
        let extension = extensions.remove(name).unwrap();
        let types = filter["config_discovery"]["type_urls"].as_array().unwrap();
        assert!(types.contains(&extension["@type"]));
        remove(filter, "config_discovery");
        filter["typed_config"] = extension;
        // The agent replaces the image by the file it holds.
        let code = &mut filter["typed_config"]["config"]["vm_config"]["code"];
        let uri = code["remote"]["http_uri"]["uri"].as_str().unwrap();
        assert!(uri.starts_with("oci://"), "{uri}");
        *code = json!({"local": {"filename": ""}});
    }
    assert!(extensions.is_empty(), "{extensions:?} is in no listener");
    (config, discovered)
}

/// What the policies for Envoy Gateway make.
fn envoy_gateway(layout: &Layout) -> Value {
    let path = layout.envoy_configs().join("gateway/prompt-cache.yaml");
    let manifests: Vec<Value> =
        serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap();
    let of_kind = |kind: &str| {
        let found = manifests.iter().find(|manifest| manifest["kind"] == kind);
        &found.unwrap()["spec"]
    };
    let mut config = plain(layout);
    let clusters = config["static_resources"]["clusters"]
        .as_array_mut()
        .unwrap();
    clusters.retain(|cluster| cluster["name"] != "prompt_cache_index");

    // The filter itself, off until a route turns it on.
    let wasm = &of_kind("EnvoyExtensionPolicy")["wasm"][0];
    let filter = "envoy.filters.http.wasm/envoyextensionpolicy/llm/prompt-cache/wasm/0";
    let made = json!({
        "name": filter,
        "disabled": true,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": wasm["name"],
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": wasm["config"].to_string(),
                },
                "vm_config": {
                    "vm_id": "envoyextensionpolicy/llm/prompt-cache/wasm/0",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": ""}},
                },
            },
        },
    });
    insert_before(&mut config, &json!("envoy.filters.http.router"), made);
    let route = network_filter(&mut config)
        .pointer_mut("/typed_config/route_config/virtual_hosts/0/routes/0")
        .unwrap();
    route["typed_per_filter_config"] = json!({filter: {
        "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
        "config": {},
    }});

    for patch in of_kind("EnvoyPatchPolicy")["jsonPatches"]
        .as_array()
        .unwrap()
    {
        let operation = &patch["operation"];
        assert_eq!(operation["op"], "add");
        let kind = patch["type"].as_str().unwrap().rsplit('.').next().unwrap();
        match kind {
            "Listener" => {
                assert_eq!(patch["name"], "llm/llm/http");
                // The one form of JSONPath that is used.
                let wanted = format!("..http_filters[?(@.name=='{filter}')]");
                assert_eq!(operation["jsonPath"], wanted);
                let filters = http_filters(&mut config);
                let target = filters.iter_mut().find(|f| f["name"] == filter).unwrap();
                let path = operation["path"].as_str().unwrap();
                let (parent, member) = path.rsplit_once('/').unwrap();
                target.pointer_mut(parent).unwrap()[member] = operation["value"].clone();
            }
            "Cluster" => {
                assert_eq!(
                    (&patch["name"], &operation["path"]),
                    (&operation["value"]["name"], &json!(""))
                );
                let clusters = config["static_resources"]["clusters"]
                    .as_array_mut()
                    .unwrap();
                clusters.push(operation["value"].clone());
            }
            other => panic!("{other} is not known here"),
        }
    }

    let client = of_kind("ClientTrafficPolicy");
    listener(&mut config)["per_connection_buffer_limit_bytes"] =
        bytes(&client["connection"]["bufferLimit"]);
    network_filter(&mut config)["typed_config"]["http2_protocol_options"] = json!({
        "initial_stream_window_size": bytes(&client["http2"]["initialStreamWindowSize"]),
        "initial_connection_window_size": bytes(&client["http2"]["initialConnectionWindowSize"]),
    });
    let bootstrap = &of_kind("EnvoyProxy")["bootstrap"];
    assert_eq!(bootstrap["type"], "Merge");
    let merged: Value = serde_saphyr::from_str(bootstrap["value"].as_str().unwrap()).unwrap();
    merge(&mut config, &merged);
    config
}

fn bytes(quantity: &Value) -> Value {
    let mebibytes = quantity.as_str().unwrap().strip_suffix("Mi").unwrap();
    json!(mebibytes.parse::<u64>().unwrap() << 20)
}

/// As protobuf messages merge: members by name, lists one behind the other, the rest replaced.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from.iter().cloned()),
        (into, from) => *into = from.clone(),
    }
}

fn remove(object: &mut Value, member: &str) {
    object.as_object_mut().unwrap().remove(member).unwrap();
}

fn listener(config: &mut Value) -> &mut Value {
    &mut config["static_resources"]["listeners"][0]
}

fn network_filter(config: &mut Value) -> &mut Value {
    &mut listener(config)["filter_chains"][0]["filters"][0]
}

fn http_filters(config: &mut Value) -> &mut Vec<Value> {
    let filters = &mut network_filter(config)["typed_config"]["http_filters"];
    filters.as_array_mut().unwrap()
}

fn insert_before(config: &mut Value, name: &Value, filter: Value) {
    let filters = http_filters(config);
    let place = filters.iter().position(|f| f["name"] == *name).unwrap();
    filters.insert(place, filter);
}

async fn caches(base: Value) {
    let mut world = World::with(Options {
        base: Some(base),
        plugin: json!({"index_cluster": "prompt_cache_index"}),
        ..Options::default()
    })
    .await;
    let request = chat("a", &marked(&long_prefix("mesh")));
    let (response, seen) = world.exchange(&request, &completion(5000)).await;
    let written = cache_of(&response.usage());
    assert!(written.five_minutes > 1024, "{written:?}");
    assert!(!String::from_utf8_lossy(&seen.body).contains("cache_control"));
    world.await_commits(1).await;
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    assert_eq!(cache_of(&response.usage()).read, written.five_minutes);
    // The labels are there, and a large prompt passes.
    world
        .await_counter("promptcache_requests_total", &[("outcome", "read")], 1)
        .await;
    let body: Value = serde_json::from_str(&sized(LARGE_BODY_BYTES, false)).unwrap();
    let (response, seen) = world.exchange(&chat("a", &body), &completion(5000)).await;
    assert_eq!((response.status, seen.target.as_str()), (200, CHAT));
    world.assert_no_vm_lost().await;
}

#[tokio::test]
async fn the_istio_gateway_caches() {
    caches(istio(&Layout::of_tests(), "gateway").0).await;
}

#[tokio::test]
async fn the_istio_sidecar_caches() {
    caches(istio(&Layout::of_tests(), "sidecar").0).await;
}

#[tokio::test]
async fn envoy_gateway_caches() {
    caches(envoy_gateway(&Layout::of_tests())).await;
}

/// Envoy takes the entry by which it asks Istio for the filter; a file stands in for Istio.
#[tokio::test]
async fn discovery_is_one_that_envoy_takes() {
    let layout = Layout::of_tests();
    let folder = tempfile::tempdir().unwrap();
    for name in ["gateway", "sidecar"] {
        let (_, mut config) = istio(&layout, name);
        config["node"] = json!({"id": "tried", "cluster": "tried"});
        let discovery = &mut http_filters(&mut config)[0]["config_discovery"];
        let source = discovery["config_source"].as_object_mut().unwrap();
        source.remove("ads").unwrap();
        let path: &Path = &folder.path().join("extensions.json");
        std::fs::write(path, json!({"resources": []}).to_string()).unwrap();
        source.insert("path_config_source".to_owned(), json!({"path": path}));
        envoy_takes(&layout, folder.path(), &config).await;
    }
}
