//! The JSON Schemas and the tables of keys in `docs/`: made from the types, and true to what the
//! validators accept. `UPDATE_DOCS=1` writes them anew.

use std::path::{Path, PathBuf};

use prompt_cache_core::config::FilterConfig;
use prompt_cache_index::config::{Config, schema};
use schemars::Schema;
use serde_json::{Value, json};

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name)
}

/// Holds the file to `text`, or writes it.
fn hold(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, text).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == text,
        "{} is not what the types say: run this test with UPDATE_DOCS=1",
        path.display()
    );
}

#[test]
fn schemas_and_tables_are_those_of_the_types() {
    let references = [
        ("index", schema::index(), "configuration-index.md"),
        ("filter", schema::filter(), "configuration.md"),
    ];
    for (name, schema, page) in references {
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        hold(&docs(&format!("schema/{name}.schema.json")), &text);
        let page = docs(page);
        let text = std::fs::read_to_string(&page).unwrap();
        let (before, rest) = text.split_once("<!-- keys -->\n").unwrap();
        let (_, after) = rest.split_once("<!-- end of keys -->").unwrap();
        let table = Table::of(&schema);
        let text = format!("{before}<!-- keys -->\n{table}<!-- end of keys -->{after}");
        hold(&page, &text);
    }
}

/// Rows of keys, the nested ones behind the one that holds them.
struct Table<'a> {
    definitions: &'a Value,
    rows: String,
}

impl Table<'_> {
    fn of(schema: &Schema) -> String {
        let schema = schema.as_value();
        let mut table = Table {
            definitions: &schema["$defs"],
            rows: "| key | takes | default | meaning |\n|---|---|---|---|\n".to_owned(),
        };
        table.keys("", schema);
        table.rows
    }

    /// The schema behind a reference, or behind "this or null".
    fn resolve<'s>(&'s self, schema: &'s Value) -> &'s Value {
        if let Some(choices) = schema["anyOf"].as_array() {
            let given = choices.iter().find(|it| it["type"] != "null").unwrap();
            return self.resolve(given);
        }
        match schema["$ref"].as_str() {
            Some(name) => &self.definitions[name.rsplit('/').next().unwrap()],
            None => schema,
        }
    }

    fn keys(&mut self, prefix: &str, schema: &Value) {
        let required = |key: &str| {
            let list = schema["required"].as_array();
            list.is_some_and(|list| list.iter().any(|it| it == key))
        };
        for (key, member) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{prefix}{key}");
            let target = self.resolve(member).clone();
            let items = self.resolve(&target["items"]).clone();
            if items["properties"].is_object() {
                self.row(&path, member, "list", required(key));
                self.keys(&format!("{path}[]."), &items);
            } else if target["properties"].is_object() {
                // Its members say it all, unless it is something that may be left out.
                if member["anyOf"].is_array() {
                    self.row(&path, member, "object", required(key));
                }
                self.keys(&format!("{path}."), &target);
            } else {
                let takes = self.takes(member);
                self.row(&path, member, &takes, required(key));
                for choice in target["oneOf"].as_array().into_iter().flatten() {
                    for (name, inner) in choice["properties"].as_object().into_iter().flatten() {
                        let inner = self.resolve(inner).clone();
                        self.keys(&format!("{path}.{name}."), &inner);
                    }
                }
            }
        }
    }

    /// What may be written, in short.
    fn takes(&self, member: &Value) -> String {
        let schema = self.resolve(member);
        if let Some(choices) = schema["oneOf"].as_array() {
            let shown = choices.iter().flat_map(|choice| {
                let constants = choice["const"].as_str().into_iter();
                let listed = choice["enum"].as_array().into_iter().flatten();
                let names = listed.filter_map(Value::as_str).chain(constants);
                let objects = choice["properties"].as_object().into_iter().flatten();
                names
                    .map(|name| format!("`{name}`"))
                    .chain(objects.map(|(name, _)| format!("`{{{name}: …}}`")))
            });
            return shown.collect::<Vec<_>>().join(", ");
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null").unwrap(),
            kind => kind,
        };
        let kind = kind.as_str().unwrap_or("any");
        let bound = |name: &str| {
            let own = &member[name];
            let own = if own.is_null() { &schema[name] } else { own };
            own.as_f64().map(|number| number.to_string())
        };
        match (kind, bound("minimum"), bound("maximum")) {
            ("array", ..) => format!("list of {}", self.takes(&schema["items"])),
            ("integer" | "number", Some(low), Some(high)) => format!("{low} to {high}"),
            ("integer" | "number", Some(low), None) => format!("at least {low}"),
            _ => kind.to_owned(),
        }
    }

    fn row(&mut self, path: &str, member: &Value, takes: &str, required: bool) {
        let own = self.resolve(member);
        let text = member["description"]
            .as_str()
            .or(own["description"].as_str());
        let text = text.unwrap_or_else(|| panic!("{path} has no description"));
        let default = match (&member["x-default"], member.get("default")) {
            (Value::String(text), _) => text.clone(),
            _ if required => "required".to_owned(),
            (_, None | Some(Value::Null)) => "none".to_owned(),
            (_, Some(Value::String(text))) => match text.as_str() {
                "" => "empty".to_owned(),
                text => format!("`{text}`"),
            },
            (_, Some(value)) => format!("`{value}`"),
        };
        let cell = |text: &str| text.replace('\n', " ").replace('|', "\\|");
        self.rows += &format!(
            "| `{path}` | {} | {} | {} |\n",
            cell(takes),
            cell(&default),
            cell(text)
        );
    }
}

/// A number of a schema: its keys from the top, the least, the most.
type Bounds = (Vec<String>, f64, Option<f64>);

fn bounds(schema: &Value, definitions: &Value, keys: &[String], found: &mut Vec<Bounds>) {
    for (key, member) in schema["properties"].as_object().into_iter().flatten() {
        let mut path = keys.to_vec();
        path.push(key.clone());
        if let Some(least) = member["minimum"].as_f64() {
            found.push((path.clone(), least, member["maximum"].as_f64()));
        }
        let inner = [member, &member["anyOf"][0], &member["items"]];
        let name = inner.into_iter().find_map(|it| it["$ref"].as_str());
        if let Some(name) = name.and_then(|name| name.rsplit('/').next()) {
            bounds(&definitions[name], definitions, &path, found);
        }
    }
}

fn all_bounds(schema: &Schema) -> Vec<Bounds> {
    let mut found = Vec::new();
    let schema = schema.as_value();
    bounds(schema, &schema["$defs"], &[], &mut found);
    found
}

/// `base` with `value` at `keys`; an array's first item stands for it.
fn with(base: &Value, keys: &[String], value: f64) -> String {
    let mut tree = base.clone();
    let mut at = &mut tree;
    for key in keys {
        if at[key].is_array() {
            at = &mut at[key][0];
        } else {
            at = &mut at[key];
        }
    }
    *at = if value.fract() == 0.0 {
        json!(value as i64)
    } else {
        json!(value)
    };
    tree.to_string()
}

#[test]
fn the_bounds_of_the_schemas_are_the_validators() {
    let numbers = all_bounds(&schema::filter());
    assert!(numbers.len() >= 13, "{numbers:?}");
    let base = json!({"index_cluster": "i"});
    for (keys, least, most) in numbers {
        let accepts = |value| FilterConfig::parse(with(&base, &keys, value).as_bytes()).is_ok();
        let most = most.unwrap();
        assert!(accepts(least) && accepts(most), "{keys:?}");
        assert!(!accepts(least - 1.0) && !accepts(most + 1.0), "{keys:?}");
    }

    let numbers = all_bounds(&schema::index());
    assert!(numbers.len() >= 25, "{numbers:?}");
    let base = |keys: &[String]| {
        let store = match keys.get(1).map(String::as_str) {
            Some("postgres") => json!({"postgres": {"url": "postgresql://h/d"}}),
            Some("redis") => json!({"redis": {"url": "redis://h"}}),
            _ => json!({"embedded": {}}),
        };
        let model = json!({"model": "m", "encoding": "o200k_base",
            "prices": {"input": 1, "read": 1}});
        // As small as its own bound allows, since another must not be below it.
        json!({"models": [model], "store": store, "limits": {"text_body_bytes_max": 65536}})
    };
    for (keys, least, most) in numbers {
        let accepts = |value| {
            let text = with(&base(&keys), &keys, value);
            Config::parse(&text, Path::new("c.yaml")).is_ok()
        };
        assert!(accepts(least), "{keys:?}");
        assert!(!accepts(least - 1.0), "{keys:?}");
        if let Some(most) = most.filter(|_| keys[1..] != ["text_body_bytes_max"]) {
            assert!(accepts(most) && !accepts(most + 1.0), "{keys:?}");
        }
    }
}
