//! `docs/architecture.md` is true to the code: its layers, its map and its invariants, as far as
//! the code's text can show them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod document;
mod modules;

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use document::{Layers, code_map, layers};
use modules::{Module, sources};
use prompt_cache_e2e::layout::Layout;
use serde_json::Value;

/// Lines a file of code may have.
const LINES_MAX: usize = 500;
/// What of the standard library `core/` must not touch: time, and everything outside the process.
const OUTSIDE: [&str; 8] = [
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];
/// Who may implement Envoy's callbacks.
const CALLBACKS: [&str; 4] = ["bench", "lib", "root", "stream"];

fn root() -> std::path::PathBuf {
    Layout::of_tests().root().to_owned()
}

/// Every source file below these folders, outside what is built.
fn code(folders: &[&str]) -> Vec<std::path::PathBuf> {
    let root = root();
    folders
        .iter()
        .flat_map(|folder| sources(&root.join(folder)))
        .collect()
}

#[test]
fn a_module_uses_only_those_of_the_layers_above_it() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let tables = layers(&text);
    let crates: Vec<&str> = tables.iter().map(|table| table.folder.as_str()).collect();
    assert_eq!(crates, ["core/src", "src", "index-service/src"]);
    for Layers { folder, rows } in &tables {
        let modules = Module::all(&root().join(folder));
        let written: Vec<&String> = rows.iter().flatten().collect();
        let there: BTreeSet<&String> = modules.iter().map(|module| &module.name).collect();
        assert_eq!(
            written.iter().copied().collect::<BTreeSet<_>>(),
            there,
            "{folder}: the modules in the table, and those that are there"
        );
        assert_eq!(written.len(), there.len(), "{folder}: one is listed twice");
        let layer = |name: &str| rows.iter().position(|row| row.iter().any(|m| m == name));
        for module in &modules {
            for used in &module.uses {
                assert!(
                    layer(used) < layer(&module.name),
                    "{folder}: {} uses {used}, which is not above it",
                    module.name
                );
            }
        }
    }
}

#[test]
fn the_map_names_what_is_there_and_all_of_it() {
    let root = root();
    let text = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let map = code_map(&text);
    for place in &map {
        assert!(root.join(place).exists(), "{place} is on the map only");
    }
    let on_map = |folder: &str| map.iter().any(|place| place.starts_with(folder));
    for entry in fs::read_dir(&root).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let ours = entry.path().is_dir()
            && !["target", "dist", "docs"].contains(&name.as_str())
            && (!name.starts_with('.') || name == ".ci");
        assert!(!ours || on_map(&name), "{name}/ is not on the map");
    }
}

#[test]
fn core_knows_no_time_and_nothing_outside_the_process() {
    for module in Module::all(&root().join("core/src")) {
        for path in &module.outside {
            assert!(
                !OUTSIDE.iter().any(|outside| path.starts_with(outside)),
                "core/src/{}: {path}",
                module.name
            );
        }
    }
}

#[test]
fn one_file_calls_envoy_and_three_are_called() {
    for module in Module::all(&root().join("src")) {
        let uses = |path: &str| module.outside.iter().any(|used| used.starts_with(path));
        assert!(
            !uses("proxy_wasm::hostcalls") || module.name == "host",
            "src/{} calls Envoy",
            module.name
        );
        assert!(
            !(uses("proxy_wasm::traits") || uses("proxy_wasm::set_"))
                || CALLBACKS.contains(&module.name.as_str()),
            "src/{} is called by Envoy",
            module.name
        );
    }
}

#[test]
fn programs_share_the_core_and_nothing_else() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ours = |package: &str| -> Vec<String> {
        let packages = metadata["packages"].as_array().unwrap();
        let package = packages.iter().find(|p| p["name"] == package).unwrap();
        let mut names: Vec<String> = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
            .filter(|name| name.starts_with("prompt-cache"))
            .collect();
        names.dedup();
        names
    };
    assert_eq!(ours("prompt-cache-filter"), ["prompt-cache-core"]);
    assert_eq!(ours("prompt-cache-index"), ["prompt-cache-core"]);
    assert!(ours("prompt-cache-core").is_empty());
}

#[test]
fn no_file_of_code_is_too_long_to_be_read() {
    let long: Vec<String> = code(&["core", "src", "index-service", "tests", "fuzz", "envoy"])
        .iter()
        .filter_map(|path| {
            let lines = fs::read_to_string(path).unwrap().lines().count();
            (lines > LINES_MAX).then(|| format!("{}: {lines}", shown(path)))
        })
        .collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines: {long:#?}");
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}
