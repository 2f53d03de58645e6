//! What the module may call and be called for: the shipped lists are what it uses, and no more.

use std::collections::BTreeSet;

use prompt_cache_e2e::{
    layout::Layout,
    world::{Options, World, chat, completion, long_prefix, marked},
};
use serde_json::Value;
use wasmparser::{Parser, Payload};

use crate::{mesh, yaml};

/// The ABI's name for each host call that `src/host.rs` makes.
const HOST_CALLS: [(&str, &str); 18] = [
    ("define_metric", "proxy_define_metric"),
    ("dispatch_http_call", "proxy_http_call"),
    ("get_buffer", "proxy_get_buffer_bytes"),
    ("get_map_bytes", "proxy_get_header_map_pairs"),
    ("get_map_value_bytes", "proxy_get_header_map_value"),
    ("get_property", "proxy_get_property"),
    ("increment_metric", "proxy_increment_metric"),
    ("record_metric", "proxy_record_metric"),
    ("remove_map_value", "proxy_remove_header_map_value"),
    ("resume_http_response", "proxy_continue_stream"),
    ("send_http_response", "proxy_send_local_response"),
    ("set_buffer", "proxy_set_buffer_bytes"),
    ("set_map_value", "proxy_replace_header_map_value"),
    ("set_map_value_bytes", "proxy_replace_header_map_value"),
    ("set_property", "proxy_set_property"),
    ("set_tick_period", "proxy_set_tick_period_milliseconds"),
    // Not in host.rs: the SDK's logger, and its way to the root context when a callout answers.
    ("log", "proxy_log"),
    ("set_effective_context", "proxy_set_effective_context"),
];

/// Made by the SDK and not in `src/host.rs`.
const BY_THE_SDK: [&str; 2] = ["log", "set_effective_context"];

/// What Rust's standard library asks of WASI: clocks and hash seeds; when it panics, the environment,
/// which is empty, a place for the message, and the end.
const WASI: [&str; 6] = [
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_write",
    "proc_exit",
    "random_get",
];

/// Callbacks in which the SDK keeps its books, beside those that our contexts implement.
const SDK_CALLBACKS: [&str; 2] = ["proxy_on_context_create", "proxy_on_delete"];

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// The words that follow `before` in `text`.
fn words_after<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    let rests = text.split(before).skip(1);
    rests.filter_map(|rest| {
        rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .next()
    })
}

/// What the sources use.
fn used(layout: &Layout) -> BTreeSet<String> {
    let source =
        |name: &str| std::fs::read_to_string(layout.root().join("src").join(name)).unwrap();
    let host = source("host.rs");
    let calls: BTreeSet<_> = words_after(&host, "hostcalls::").collect();
    let known = HOST_CALLS
        .iter()
        .filter(|(call, _)| !BY_THE_SDK.contains(call));
    assert_eq!(
        calls,
        known.map(|(call, _)| *call).collect(),
        "src/host.rs: give the call its ABI name here, and allow it in every config"
    );
    let mut used = set(HOST_CALLS
        .iter()
        .map(|(_, abi)| *abi)
        .chain(WASI)
        .chain(SDK_CALLBACKS));
    for file in ["root.rs", "stream.rs"] {
        for callback in words_after(&source(file), "fn on_") {
            // `on_http_request_body` of the SDK is `proxy_on_request_body` of the ABI.
            let name = if callback == "http_call_response" {
                callback
            } else {
                callback.trim_start_matches("http_")
            };
            used.insert(format!("proxy_on_{name}"));
        }
    }
    used
}

/// Imports and exports of the built module.
fn in_the_module(layout: &Layout) -> BTreeSet<String> {
    let bytes = std::fs::read(layout.filter()).unwrap();
    let mut names = BTreeSet::new();
    for payload in Parser::new(0).parse_all(&bytes) {
        match payload.unwrap() {
            Payload::ImportSection(imports) => {
                names.extend(imports.into_imports().map(|i| i.unwrap().name.to_owned()));
            }
            Payload::ExportSection(exports) => {
                names.extend(exports.into_iter().map(|e| e.unwrap().name.to_owned()));
            }
            _ => {}
        }
    }
    names
}

#[test]
fn every_list_is_what_the_module_uses() {
    let layout = Layout::of_tests();
    let used = used(&layout);
    let module = in_the_module(&layout);
    assert!(used.is_subset(&module), "{:?}", used.difference(&module));
    assert!(
        module.contains("proxy_grpc_call"),
        "the lists keep nothing out"
    );
    let configs = layout.envoy_configs();
    let mut plugins = vec![];
    for path in ["standalone.yaml", "ring-hash.yaml", "docker/envoy.yaml"] {
        let mut config = yaml(&configs.join(path));
        plugins.push((path.to_owned(), crate::filter_of(&mut config).clone()));
    }
    for (name, mut config) in mesh::all(&layout) {
        plugins.push((name.to_owned(), crate::filter_of(&mut config).clone()));
    }
    assert_eq!(plugins.len(), 6);
    for (name, plugin) in plugins {
        let allowed = &plugin["capability_restriction_config"]["allowed_capabilities"];
        let allowed = set(allowed.as_object().unwrap().keys().map(String::as_str));
        assert_eq!(allowed, used, "{name}");
    }
}

#[tokio::test]
async fn what_is_not_allowed_does_not_happen() {
    const ALLOWED: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config/capability_restriction_config/allowed_capabilities/proxy_on_log";
    let mut world = World::with(Options {
        members: vec![(ALLOWED, Value::Null)],
        ..Options::default()
    })
    .await;
    let request = chat("a", &marked(&long_prefix("denied")));
    let (response, _) = world.exchange(&request, &completion(5000)).await;
    assert_eq!(response.status, 200);
    // The outcome is counted, and logged, when the stream's end is reported: which is denied.
    let line = world.await_access_log(|line| line["status"] == 200).await;
    assert!(!line["prompt_cache"].is_object(), "{line}");
    world.assert_no_vm_lost().await;
}
