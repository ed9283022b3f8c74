//! Chroma's schema object, as collections have it: which indexes are on.

use serde_json::Value;

/// The key under which a schema has what it says of documents.
pub const DOCUMENT: &str = "#document";

/// Whether `index` of the values of type `group` is on under `key`: the key's own entry decides, else the defaults; what neither
/// mentions is on. With it off, nothing may be filtered by such values, and they need not be indexed.
pub fn is_on(schema: &Value, key: &str, group: &str, index: &str) -> bool {
    let enabled = |types: &Value| types[group][index]["enabled"].as_bool();
    enabled(&schema["keys"][key]).or_else(|| enabled(&schema["defaults"])).unwrap_or(true)
}
