//! What is shipped for operators is true: alerts and dashboard speak of metrics that exist, with
//! labels and values that exist, and leave none of ours out; the threat model names tests that exist.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use prompt_cache_e2e::{
    envoy::Stats,
    layout::Layout,
    world::{Options, World, chat, completion, long_prefix, marked},
};
use serde_json::{Value, json};

/// What our programs' metrics are called, and Envoy's about the filter.
const PREFIXES: [&str; 3] = ["promptcache_", "prompt_cache_index_", "envoy_wasm_"];
/// Labels that Prometheus adds.
const ADDED: [&str; 2] = ["instance", "job"];
/// On no dashboard: it is for joins and for the list of instances.
const UNSEEN: &str = "prompt_cache_index_build_info";

/// The values of each label, by the name of a sample.
type Known = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// A name in an expression and what is demanded of its labels.
#[derive(Debug, PartialEq, Eq)]
struct Reference {
    name: String,
    /// Label and the values asked for; none where it is a variable or a pattern.
    matchers: Vec<(String, Vec<String>)>,
}

#[tokio::test]
async fn alerts_and_dashboard_know_every_metric() {
    // A read that the service answers shows the counters it has by model.
    let mut world = World::with(Options {
        plugin: json!({"lease_bytes_max": 0}),
        ..Options::default()
    })
    .await;
    let request = chat("a", &marked(&long_prefix("watched")));
    for _ in 0..2 {
        world.exchange(&request, &completion(5000)).await;
        world.await_commits(1).await;
    }
    let index = world.index.stats().await.unwrap();
    let mut known = Known::new();
    note(&mut known, &world.stats().await);
    note(&mut known, &index);

    let layout = Layout::of_tests();
    let alerts = read(&layout, "envoy/alerts.yaml");
    let dashboard = read(&layout, "envoy/grafana/prompt-cache.json");
    let mut alerts_seen = BTreeSet::new();
    let mut panels_seen = BTreeSet::new();
    for (file, text, seen) in [
        ("alerts", &alerts, &mut alerts_seen),
        ("dashboard", &dashboard, &mut panels_seen),
    ] {
        let parsed: Value = serde_saphyr::from_str(text).unwrap();
        let mut expressions = vec![];
        collect(&parsed, &["expr", "definition"], &mut expressions);
        assert!(expressions.len() > 10, "{file}");
        for expression in expressions {
            let references = references(&expression);
            assert!(!references.is_empty(), "{file}: {expression}");
            for label in grouped_by(&expression) {
                let has = |reference: &Reference| {
                    known
                        .get(&reference.name)
                        .is_some_and(|l| l.contains_key(label))
                };
                assert!(references.iter().any(has), "{file}: {expression}: {label}");
            }
            for reference in references {
                check(&known, &reference)
                    .unwrap_or_else(|why| panic!("{file}: {expression}: {why}"));
                seen.insert(family(&reference.name).to_owned());
            }
        }
    }

    let docs = read(&layout, "docs/operations.md") + &read(&layout, "docs/configuration-index.md");
    let ours = known.keys().filter(|name| !name.starts_with("envoy_"));
    for name in ours.map(|name| family(name)) {
        assert!(docs.contains(name), "{name} is not documented");
        assert!(
            panels_seen.contains(name) || name == UNSEEN,
            "{name} is on no panel"
        );
    }
    for reason in &known["promptcache_bypass_total"]["reason"] {
        assert!(
            docs.contains(&format!("`{reason}`")),
            "{reason} is not explained"
        );
    }
    let mut names = vec![];
    collect(
        &serde_saphyr::from_str(&alerts).unwrap(),
        &["alert"],
        &mut names,
    );
    for name in names {
        assert!(
            docs.contains(&format!("`{name}`")),
            "{name} is not explained"
        );
    }
}

fn read(layout: &Layout, path: &str) -> String {
    std::fs::read_to_string(layout.root().join(path)).unwrap()
}

fn note(known: &mut Known, stats: &Stats) {
    for (name, labels) in stats.samples() {
        if !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let of_name = known.entry(name.to_owned()).or_default();
        for (label, value) in labels {
            of_name
                .entry(label.clone())
                .or_default()
                .insert(value.clone());
        }
    }
}

/// All texts under the given keys, however deep.
fn collect(value: &Value, keys: &[&str], found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                match value {
                    Value::String(text) if keys.contains(&key.as_str()) => found.push(text.clone()),
                    _ => collect(value, keys, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, keys, found)),
        _ => {}
    }
}

fn check(known: &Known, reference: &Reference) -> Result<(), String> {
    let Reference { name, matchers } = reference;
    let labels = known.get(name).ok_or(format!("no {name}"))?;
    for (label, wanted) in matchers {
        if ADDED.contains(&label.as_str()) {
            continue;
        }
        let values = labels
            .get(label)
            .ok_or(format!("{name} has no label {label}"))?;
        for value in wanted {
            if !values.contains(value) {
                return Err(format!("{name} has no {label}={value:?}: {values:?}"));
            }
        }
    }
    Ok(())
}

/// A histogram's own name.
fn family(name: &str) -> &str {
    ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name)
}

/// Reads the names of metrics, and their matchers, out of a PromQL expression.
fn references(expression: &str) -> Vec<Reference> {
    let mut found = vec![];
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
        let word = rest[start..]
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .next()
            .unwrap();
        rest = &rest[start + word.len()..];
        if !PREFIXES.iter().any(|prefix| word.starts_with(prefix)) {
            continue;
        }
        let selector = rest
            .strip_prefix('{')
            .and_then(|selector| selector.split_once('}'));
        let mut matchers = vec![];
        if let Some((selector, after)) = selector {
            rest = after;
            for matcher in selector.split(',').filter(|matcher| !matcher.is_empty()) {
                let (label, value) = matcher.split_once('=').unwrap();
                let value = value.trim_start_matches('~').trim_matches('"');
                let literal = !value.contains(['$', '.', '*']);
                let values = value.split('|').filter(|_| literal).map(str::to_owned);
                matchers.push((label.trim_end_matches('!').to_owned(), values.collect()));
            }
        }
        found.push(Reference {
            name: word.to_owned(),
            matchers,
        });
    }
    found
}

/// The labels of all `by (…)`, but those that are not ours.
fn grouped_by(expression: &str) -> impl Iterator<Item = &str> {
    let lists = expression.split("by (").skip(1);
    lists
        .flat_map(|rest| rest.split(')').next().unwrap().split(", "))
        .filter(|label| !ADDED.contains(label))
}

#[test]
fn expressions_are_read() {
    let expression = r#"sum by (le) (rate(promptcache_a_bucket{r=~"x|y",instance=~"$proxy"}[5m])) / prompt_cache_index_b > up"#;
    let reference = |name: &str, matchers: &[(&str, &[&str])]| Reference {
        name: name.to_owned(),
        matchers: matchers
            .iter()
            .map(|(label, values)| {
                let values = values.iter().map(|value| (*value).to_owned());
                ((*label).to_owned(), values.collect())
            })
            .collect(),
    };
    assert_eq!(
        references(expression),
        [
            reference(
                "promptcache_a_bucket",
                &[("r", &["x", "y"]), ("instance", &[])]
            ),
            reference("prompt_cache_index_b", &[]),
        ]
    );
}

/// `docs/security.md` names the tests that show its claims.
#[test]
fn every_test_that_the_threat_model_names_exists() {
    let layout = Layout::of_tests();
    let text = read(&layout, "docs/security.md");
    let mut checked = 0;
    for named in text.split('`').skip(1).step_by(2) {
        let Some((file, test)) = named.split_once(".rs::") else {
            continue;
        };
        let source = read(&layout, &format!("{file}.rs"));
        assert!(source.contains(&format!("fn {test}(")), "{named}");
        checked += 1;
    }
    assert!(checked > 20, "{checked}");
}
