//! How filter and Envoy get along: bad configs, traps, Envoy's own answers, the shipped configs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod capabilities;
mod mesh;

use std::path::Path;

use prompt_cache_e2e::{
    deadline::{PATIENCE, poll},
    layout::Layout,
    world::{Options, World, cache_of, chat, completion, long_prefix, marked},
};
use serde_json::{Value, json};

#[tokio::test]
async fn a_bad_plugin_config_refuses_the_listener_and_names_the_key() {
    for (key, value) in [
        ("max_request_byte", json!(1)),
        ("tiers", json!(["5m", "2h"])),
        ("classify_deadline_ms", json!("soon")),
        ("index_cluster", Value::Null),
    ] {
        let mut plugin = json!({});
        plugin[key] = value.clone();
        match World::try_with(Options {
            plugin,
            ..Options::default()
        })
        .await
        {
            Ok(_) => panic!("{key}={value} was accepted"),
            Err(message) => {
                let said = message
                    .lines()
                    .any(|line| line.contains("wasm log") && line.contains(key));
                assert!(said, "{key}: {message}");
            }
        }
    }
}

#[tokio::test]
async fn after_a_trap_the_next_request_is_fine() {
    let mut world = World::with(Options {
        trapping: true,
        // One VM: a second worker's would answer the probes while the first one's is away.
        concurrency: Some(1),
        ..Options::default()
    })
    .await;
    let request = chat("a", &marked(&long_prefix("trap")));
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    let written = cache_of(&response.usage());
    world.await_commits(1).await;

    let trapped = world
        .client
        .call(&request.clone().header("x-prompt-cache-trap", "1"))
        .await;
    assert_eq!(trapped.status, 503);
    world.upstream.assert_untouched();

    // A refusal comes from the filter itself: once it is there, the new VM is at work.
    let refused = chat(
        "a",
        &json!({"model": "demo", "messages": [], "cache_control": 1}),
    );
    let back = poll(PATIENCE, async || {
        let answer = world.client.try_call(&refused).await.ok()?;
        (answer.status == 400).then_some(())
    });
    back.await.expect("the VM comes back");
    let (response, _) = poll(PATIENCE, async || {
        let (response, seen) = world.exchange(&request, &completion(5000)).await;
        // Until the new VM has its policy, requests pass uncached.
        response.json()["usage"].get("cache_read_input_tokens")?;
        Some((response, seen))
    })
    .await
    .expect("the new VM learns the policy");
    assert_eq!(cache_of(&response.usage()).read, written.five_minutes);
}

#[tokio::test]
async fn envoys_own_answers_pass() {
    let mut world = World::start().await;
    world.upstream.close().await;
    for body in [marked("short"), marked(&long_prefix("503"))] {
        let response = world.client.call(&chat("a", &body)).await;
        assert_eq!(response.status, 503);
    }
    assert!(world.stats().await.counter("promptcache_commit_total", &[]) == 0);
}

#[tokio::test]
async fn every_shipped_config_is_one_that_envoy_takes() {
    let layout = Layout::of_tests();
    let folder = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for within in ["", "docker"] {
        for entry in std::fs::read_dir(layout.envoy_configs().join(within)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let mut config = yaml(&path);
            if config.get("static_resources").is_none() {
                continue;
            }
            *filter_of(&mut config)
                .pointer_mut("/vm_config/code/local/filename")
                .unwrap() = json!(layout.filter());
            envoy_takes(&layout, folder.path(), &config).await;
            checked += 1;
        }
    }
    assert_eq!(checked, 3);
}

/// The one with four engines is the shipped one, but for the header, the hash and the engines.
#[test]
fn the_rings_config_is_the_shipped_one() {
    let layout = Layout::of_tests();
    let mut ours = yaml(&layout.envoy_configs().join("ring-hash.yaml"));
    let mut shipped = yaml(&layout.standalone());
    let plugin = |config: &mut Value| -> Value {
        let value = &mut filter_of(config)["configuration"]["value"];
        serde_json::from_str(value.take().as_str().unwrap()).unwrap()
    };
    let mut members = plugin(&mut ours);
    let header = members
        .as_object_mut()
        .unwrap()
        .remove("prefix_hash_header")
        .unwrap();
    assert_eq!(members, plugin(&mut shipped));
    let route = ours
        .pointer_mut("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes/0/route")
        .unwrap()
        .as_object_mut()
        .unwrap();
    let hashed = route.remove("hash_policy").unwrap();
    assert_eq!(hashed[0]["header"]["header_name"], header);
    route.remove("retry_policy").unwrap();
    for config in [&mut ours, &mut shipped] {
        config["static_resources"]["clusters"][0].take();
    }
    assert_eq!(ours, shipped);
}

/// The compose file's Envoy is the shipped one, but for what a container needs and who is a tenant.
#[test]
fn the_containers_config_is_the_shipped_one() {
    let layout = Layout::of_tests();
    let mut ours = yaml(&layout.envoy_configs().join("docker/envoy.yaml"));
    let mut shipped = yaml(&layout.standalone());
    for config in [&mut ours, &mut shipped] {
        for path in [
            "/admin/address/socket_address/address",
            "/static_resources/listeners/0/address/socket_address/address",
            "/static_resources/clusters/0/type",
            "/static_resources/clusters/1/type",
            "/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/address",
            "/static_resources/clusters/1/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/address",
        ] {
            *config.pointer_mut(path).unwrap() = Value::Null;
        }
        let filter = filter_of(config);
        filter["vm_config"]["code"] = Value::Null;
        let plugin = filter["configuration"]["value"].as_str().unwrap();
        let mut plugin: Value = serde_json::from_str(plugin).unwrap();
        let members = plugin.as_object_mut().unwrap();
        for own in ["index_token", "fingerprint_key"] {
            members.remove(own);
        }
        filter["configuration"]["value"] = plugin;
    }
    assert_eq!(ours, shipped);
}

fn yaml(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The plugin of a config whose first HTTP filter is ours.
fn filter_of(config: &mut Value) -> &mut Value {
    &mut config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        ["http_filters"][0]["typed_config"]["config"]
}

/// Envoy's own validation of a whole config.
async fn envoy_takes(layout: &Layout, folder: &Path, config: &Value) {
    let path = folder.join("validated.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let output = tokio::process::Command::new(layout.envoy())
        .args(["--mode", "validate", "--config-path"])
        .arg(&path)
        .current_dir(layout.root())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{config}: {said}");
}
