//! JSON Schemas of the two configurations, for editors and for the reference in `docs/`: made
//! from the types that read them.

use prompt_cache_core::config::FilterConfig;
use schemars::{Schema, schema_for};

use super::raw::Raw;

/// Of the service's file.
pub fn index() -> Schema {
    schema_for!(Raw)
}

/// Of the filter's plugin configuration.
pub fn filter() -> Schema {
    let mut schema = schema_for!(FilterConfig);
    schema.insert(
        "title".into(),
        "Configuration of prompt-cache-filter".into(),
    );
    // Its default is no cluster at all, which the filter refuses.
    schema.insert("required".into(), serde_json::json!(["index_cluster"]));
    if let Some(cluster) = schema.pointer_mut("/properties/index_cluster") {
        cluster.as_object_mut().map(|it| it.remove("default"));
    }
    schema
}
