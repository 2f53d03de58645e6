//! Small instances of JSON schemas: the part of JSON Schema that structured outputs and tool
//! definitions use. What is beyond it is an error, as it is with the real APIs.

use serde_json::{Map, Number, Value};

/// Deepest nesting, so that schemas which refer to themselves end.
const DEPTH_MAX: usize = 32;
/// Longest string and array that are made.
const LENGTH_MAX: u64 = 1000;
/// What strings say.
const TEXT: &str = "stand-in";

/// An instance of `schema`, the same each time.
pub fn instance(schema: &Value) -> Result<Value, String> {
    Generator { root: schema }.of(schema, 0)
}

struct Generator<'s> {
    root: &'s Value,
}

impl Generator<'_> {
    fn of(&self, schema: &Value, depth: usize) -> Result<Value, String> {
        if depth == DEPTH_MAX {
            return Err("nested too deep".to_owned());
        }
        let schema = match schema {
            Value::Bool(true) => return Ok(Value::Null),
            Value::Object(schema) => schema,
            _ => return Err(format!("{schema} allows nothing")),
        };
        if let Some(path) = schema.get("$ref") {
            return self.of(self.resolve(path)?, depth + 1);
        }
        if let Some(value) = schema.get("const") {
            return Ok(value.clone());
        }
        if let Some(values) = schema.get("enum") {
            let first = values.as_array().and_then(|values| values.first());
            return first.cloned().ok_or_else(|| "an empty enum".to_owned());
        }
        for choice in ["anyOf", "oneOf"] {
            if let Some(schemas) = schema.get(choice) {
                return self.first_of(schemas, depth);
            }
        }
        if let Some(schemas) = schema.get("allOf") {
            return self.of(&self.merged(schema, schemas)?, depth + 1);
        }
        match kind(schema)? {
            "null" => Ok(Value::Null),
            "boolean" => Ok(Value::Bool(false)),
            "string" => string(schema).map(Value::String),
            "integer" => integer(schema).map(Value::from),
            "number" => number(schema),
            "array" => self.array(schema, depth),
            "object" => self.object(schema, depth),
            other => Err(format!("type {other:?} is not supported")),
        }
    }

    fn resolve(&self, path: &Value) -> Result<&Value, String> {
        let pointer = path.as_str().and_then(|path| path.strip_prefix('#'));
        pointer
            .and_then(|pointer| self.root.pointer(pointer))
            .ok_or_else(|| format!("$ref {path} leads nowhere"))
    }

    fn first_of(&self, schemas: &Value, depth: usize) -> Result<Value, String> {
        let mut problem = "no alternatives".to_owned();
        for schema in schemas.as_array().into_iter().flatten() {
            match self.of(schema, depth + 1) {
                Ok(value) => return Ok(value),
                Err(e) => problem = e,
            }
        }
        Err(problem)
    }

    /// The members of all, with properties and required names united.
    fn merged(&self, schema: &Map<String, Value>, all: &Value) -> Result<Value, String> {
        let mut merged = schema.clone();
        merged.remove("allOf");
        for part in all.as_array().into_iter().flatten() {
            let part = match part.get("$ref") {
                Some(path) => self.resolve(path)?,
                None => part,
            };
            for (name, value) in part.as_object().into_iter().flatten() {
                match (merged.get_mut(name), value) {
                    (Some(Value::Object(ours)), Value::Object(theirs)) if name == "properties" => {
                        ours.extend(theirs.clone());
                    }
                    (Some(Value::Array(ours)), Value::Array(theirs)) if name == "required" => {
                        ours.extend(theirs.clone());
                    }
                    _ => {
                        merged.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        Ok(Value::Object(merged))
    }

    fn array(&self, schema: &Map<String, Value>, depth: usize) -> Result<Value, String> {
        let first = schema.get("prefixItems").and_then(Value::as_array);
        let mut made = Vec::new();
        for item in first.into_iter().flatten() {
            made.push(self.of(item, depth + 1)?);
        }
        let least = limit(schema, "minItems")?.unwrap_or(0);
        if schema.get("uniqueItems") == Some(&Value::Bool(true)) && least > 1 {
            return Err("uniqueItems is not supported".to_owned());
        }
        while (made.len() as u64) < least {
            made.push(self.of(schema.get("items").unwrap_or(&Value::Bool(true)), depth + 1)?);
        }
        Ok(Value::Array(made))
    }

    fn object(&self, schema: &Map<String, Value>, depth: usize) -> Result<Value, String> {
        let mut made = Map::new();
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            let properties = schema.get("properties");
            let property = properties
                .and_then(|properties| properties.get(name))
                .or_else(|| schema.get("additionalProperties"))
                .unwrap_or(&Value::Bool(true));
            made.insert(name.to_owned(), self.of(property, depth + 1)?);
        }
        Ok(Value::Object(made))
    }
}

/// The type, or the one that the other keywords imply.
fn kind(schema: &Map<String, Value>) -> Result<&str, String> {
    match schema.get("type") {
        Some(Value::String(kind)) => Ok(kind),
        Some(Value::Array(kinds)) => kinds
            .iter()
            .filter_map(Value::as_str)
            .find(|kind| *kind != "null")
            .ok_or_else(|| "no type but null".to_owned()),
        Some(other) => Err(format!("type {other} is not supported")),
        None if schema.contains_key("items") => Ok("array"),
        None if schema.contains_key("properties") => Ok("object"),
        None => Ok("null"),
    }
}

fn string(schema: &Map<String, Value>) -> Result<String, String> {
    if schema.contains_key("pattern") {
        return Err("pattern is not supported".to_owned());
    }
    if let Some(format) = schema.get("format").and_then(Value::as_str) {
        return Ok(match format {
            "date-time" => "2000-01-01T00:00:00Z",
            "date" => "2000-01-01",
            "time" => "00:00:00Z",
            "duration" => "PT1S",
            "email" => "stand-in@example.com",
            "hostname" => "example.com",
            "ipv4" => "192.0.2.1",
            "ipv6" => "2001:db8::1",
            "uri" => "https://example.com/",
            "uuid" => "00000000-0000-4000-8000-000000000000",
            other => return Err(format!("format {other:?} is not supported")),
        }
        .to_owned());
    }
    let least = limit(schema, "minLength")?.unwrap_or(0);
    let most = limit(schema, "maxLength")?.unwrap_or(u64::MAX);
    let endless = TEXT.chars().cycle().enumerate();
    let made = endless.take_while(|(at, _)| {
        let at = *at as u64;
        at < most && (at < least || at < TEXT.len() as u64)
    });
    Ok(made.map(|(_, char)| char).collect())
}

fn limit(schema: &Map<String, Value>, name: &str) -> Result<Option<u64>, String> {
    match schema.get(name).map(|value| (value, value.as_u64())) {
        None => Ok(None),
        Some((_, Some(limit))) if limit <= LENGTH_MAX || name.starts_with("max") => Ok(Some(limit)),
        Some((value, _)) => Err(format!("{name} {value} is not supported")),
    }
}

/// The multiple nearest to zero that the bounds allow.
fn integer(schema: &Map<String, Value>) -> Result<i64, String> {
    let bound = |name: &str| schema.get(name).and_then(Value::as_i64);
    let step = bound("multipleOf").filter(|step| *step > 0).unwrap_or(1);
    let least = bound("minimum").or_else(|| bound("exclusiveMinimum")?.checked_add(1));
    let most = bound("maximum").or_else(|| bound("exclusiveMaximum")?.checked_sub(1));
    let (least, most) = (least.unwrap_or(i64::MIN), most.unwrap_or(i64::MAX));
    let made = if least > 0 {
        least.checked_add((step - least % step) % step)
    } else if most < 0 {
        most.checked_sub((step + most % step) % step)
    } else {
        Some(0)
    };
    made.filter(|made| (least..=most).contains(made))
        .ok_or_else(|| "no integer is between minimum and maximum".to_owned())
}

fn number(schema: &Map<String, Value>) -> Result<Value, String> {
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let least = bound("minimum").or_else(|| bound("exclusiveMinimum"));
    let most = bound("maximum").or_else(|| bound("exclusiveMaximum"));
    let made = match (least, most) {
        (Some(least), Some(most)) => f64::midpoint(least, most),
        (Some(least), None) if least >= 0.0 => least + 1.0,
        (None, Some(most)) if most <= 0.0 => most - 1.0,
        _ => 0.5,
    };
    Number::from_f64(made)
        .map(Value::Number)
        .ok_or_else(|| "no number is between minimum and maximum".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn instances() {
        let cases = [
            (json!(true), json!(null)),
            (json!({}), json!(null)),
            (json!({"const": [1]}), json!([1])),
            (json!({"enum": ["a", "b"]}), json!("a")),
            (json!({"type": ["null", "boolean"]}), json!(false)),
            (json!({"type": "string"}), json!("stand-in")),
            (json!({"type": "string", "maxLength": 3}), json!("sta")),
            (
                json!({"type": "string", "minLength": 10}),
                json!("stand-inst"),
            ),
            (
                json!({"type": "string", "format": "date"}),
                json!("2000-01-01"),
            ),
            (json!({"type": "integer"}), json!(0)),
            (
                json!({"type": "integer", "minimum": 3, "multipleOf": 5}),
                json!(5),
            ),
            (
                json!({"type": "integer", "minimum": 5, "multipleOf": 5}),
                json!(5),
            ),
            (
                json!({"type": "integer", "exclusiveMaximum": -2, "multipleOf": 5}),
                json!(-5),
            ),
            (
                json!({"type": "number", "minimum": 1, "maximum": 2}),
                json!(1.5),
            ),
            (
                json!({"type": "array", "items": {"type": "null"}}),
                json!([]),
            ),
            (json!({"items": {"const": 1}, "minItems": 2}), json!([1, 1])),
            (
                json!({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}]}),
                json!([1, 2]),
            ),
            (
                json!({"type": "object", "required": ["a", "b"],
                       "properties": {"a": {"const": 1}, "c": {}}, "additionalProperties": {"const": 2}}),
                json!({"a": 1, "b": 2}),
            ),
            (
                json!({"anyOf": [{"type": "string", "pattern": "x"}, {"const": 2}]}),
                json!(2),
            ),
            (
                json!({"$defs": {"a": {"required": ["x"], "properties": {"x": {"const": 1}}}},
                       "allOf": [{"$ref": "#/$defs/a"}], "required": ["y"],
                       "properties": {"y": {"const": 2}}}),
                json!({"y": 2, "x": 1}),
            ),
        ];
        for (schema, expected) in cases {
            assert_eq!(instance(&schema), Ok(expected), "{schema}");
        }
    }

    #[test]
    fn what_cannot_be_satisfied() {
        for schema in [
            json!(false),
            json!({"$ref": "#/nowhere"}),
            json!({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
            json!({"type": "string", "pattern": "x"}),
            json!({"type": "integer", "minimum": 2, "maximum": 1}),
            json!({"type": "array", "minItems": 1_000_000}),
            json!({"type": "file"}),
        ] {
            assert!(instance(&schema).is_err(), "{schema}");
        }
    }
}
