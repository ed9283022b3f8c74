//! Chroma's schema object: which keys are indexed how. Kept as JSON in the catalog's row; typed here while a request is
//! checked. Opal indexes everything, so an entry only says what filters may use and what clients read back.

use super::ApiError;
use super::configuration::{EmbeddingFunction, HnswUpdate};
use model::schema::{DOCUMENT, is_on};
use model::{Configuration, Filter, MetadataTest, MetadataValue, Operation, Scalar, Space, limits};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

const EMBEDDING: &str = "#embedding";

/// Prefix of the metadata keys that only the system shows or hides.
pub const HIDDEN_PREFIX: &str = "chroma:";

/// The schema of a request: `defaults` and `keys` must be there, all inside them is optional.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SchemaRequest {
    defaults: ValueTypes,
    #[serde(alias = "key_overrides")]
    keys: BTreeMap<String, ValueTypes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cmek: Option<Cmek>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Cmek {
    Gcp(String),
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct ValueTypes {
    #[serde(alias = "#string", skip_serializing_if = "Option::is_none")]
    string: Option<StringIndexes>,
    #[serde(alias = "#float_list", skip_serializing_if = "Option::is_none")]
    float_list: Option<FloatListIndexes>,
    #[serde(alias = "#sparse_vector", skip_serializing_if = "Option::is_none")]
    sparse_vector: Option<SparseVectorIndexes>,
    #[serde(alias = "#int", skip_serializing_if = "Option::is_none")]
    int: Option<IntIndexes>,
    #[serde(alias = "#float", skip_serializing_if = "Option::is_none")]
    float: Option<FloatIndexes>,
    #[serde(alias = "#bool", skip_serializing_if = "Option::is_none")]
    bool: Option<BoolIndexes>,
}

/// A type's group of indexes: each is optional, and may be spelled with a `$` before it.
macro_rules! indexes {
    ($type:ident { $($member:ident / $alias:literal: $config:ty),+ }) => {
        #[derive(Clone, Debug, Deserialize, Serialize)]
        struct $type {
            $(#[serde(alias = $alias, skip_serializing_if = "Option::is_none")]
            $member: Option<Index<$config>>,)+
        }
    };
}
indexes!(StringIndexes {
    fts_index / "$fts_index": NoConfig,
    string_inverted_index / "$string_inverted_index": NoConfig
});
indexes!(FloatListIndexes { vector_index / "$vector_index": VectorConfig });
indexes!(SparseVectorIndexes { sparse_vector_index / "$sparse_vector_index": SparseConfig });
indexes!(IntIndexes { int_inverted_index / "$int_inverted_index": NoConfig });
indexes!(FloatIndexes { float_inverted_index / "$float_inverted_index": NoConfig });
indexes!(BoolIndexes { bool_inverted_index / "$bool_inverted_index": NoConfig });

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Index<C> {
    enabled: bool,
    config: C,
}

/// Clients refuse any member here, and so do we.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NoConfig {}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct VectorConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    space: Option<Space>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding_function: Option<EmbeddingFunction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hnsw: Option<HnswConfig>,
    /// Accepted and left out, as by every server whose collections report `hnsw`.
    #[serde(skip_serializing)]
    #[expect(dead_code, reason = "its members are checked by being read")]
    spann: Option<SpannConfig>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct HnswConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    ef_construction: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_neighbors: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ef_search: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_threads: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sync_threshold: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resize_factor: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "accepted by name, never used")]
struct SpannConfig {
    search_nprobe: Option<IgnoredAny>,
    search_rng_factor: Option<IgnoredAny>,
    search_rng_epsilon: Option<IgnoredAny>,
    nreplica_count: Option<IgnoredAny>,
    write_rng_factor: Option<IgnoredAny>,
    write_rng_epsilon: Option<IgnoredAny>,
    split_threshold: Option<IgnoredAny>,
    num_samples_kmeans: Option<IgnoredAny>,
    initial_lambda: Option<IgnoredAny>,
    reassign_neighbor_count: Option<IgnoredAny>,
    merge_threshold: Option<IgnoredAny>,
    num_centers_to_merge_to: Option<IgnoredAny>,
    write_nprobe: Option<IgnoredAny>,
    ef_construction: Option<IgnoredAny>,
    ef_search: Option<IgnoredAny>,
    max_neighbors: Option<IgnoredAny>,
    center_drift_threshold: Option<IgnoredAny>,
    quantize: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SparseConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding_function: Option<EmbeddingFunction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bm25: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithm: Option<SparseAlgorithm>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum SparseAlgorithm {
    Wand,
    MaxScore,
}

/// The schema of a collection that was created with `configuration` and no schema of its own.
pub fn default_schema(configuration: &Configuration) -> Value {
    let mut defaults_config = vector_config(configuration);
    let mut embedding_config = defaults_config.clone();
    embedding_config.insert("source_key".into(), DOCUMENT.into());
    defaults_config.remove("source_key");
    let index = |enabled: bool| json!({ "enabled": enabled, "config": {} });
    let sparse_config = json!({ "embedding_function": { "type": "unknown" }, "bm25": false });
    json!({
        "defaults": {
            "string": { "fts_index": index(false), "string_inverted_index": index(true) },
            "float_list": { "vector_index": { "enabled": false, "config": defaults_config } },
            "sparse_vector": { "sparse_vector_index": { "enabled": false, "config": sparse_config } },
            "int": { "int_inverted_index": index(true) },
            "float": { "float_inverted_index": index(true) },
            "bool": { "bool_inverted_index": index(true) },
        },
        "keys": {
            EMBEDDING: { "float_list": { "vector_index": { "enabled": true, "config": embedding_config } } },
            DOCUMENT: { "string": { "fts_index": index(true), "string_inverted_index": index(false) } },
        },
    })
}

fn vector_config(configuration: &Configuration) -> Map<String, Value> {
    let mut config = Map::new();
    config.insert("space".into(), json!(configuration.space));
    if let Some(function) = &configuration.embedding_function {
        config.insert("embedding_function".into(), function.clone());
    }
    let hnsw = json!({
        "ef_construction": configuration.ef_construction,
        "max_neighbors": configuration.max_neighbors,
        "ef_search": configuration.ef_search,
        "num_threads": configuration.num_threads,
        "batch_size": configuration.batch_size,
        "sync_threshold": configuration.sync_threshold,
        "resize_factor": configuration.resize_factor,
    });
    config.insert("hnsw".into(), hnsw);
    config
}

impl SchemaRequest {
    /// Why the schema is refused (400, member `schema`).
    pub fn check(&self) -> Result<(), String> {
        self.defaults.check_as_defaults()?;
        self.keys.iter().try_for_each(|(key, types)| types.check_as_key(key))?;
        match &self.cmek {
            Some(cmek) if !cmek.is_well_formed() => Err(format!("CMEK does not match expected pattern: {cmek:?}")),
            _ => Ok(()),
        }
    }

    /// The schema laid over the defaults: what the collection will have.
    ///
    /// Errors: 400 and 501 for indexes and keys that this server does not have; nothing is quietly left unencrypted.
    pub fn into_schema(self) -> Result<Value, ApiError> {
        if self.keys.values().any(ValueTypes::has_sparse_index) {
            let message =
                "Failed to reconcile schema: Invalid schema input: Sparse vector indexing is not enabled in local";
            return Err(ApiError::invalid_argument(message));
        }
        if self.cmek.is_some() {
            return Err(ApiError::unimplemented("Unimplemented: customer-managed encryption keys are not supported"));
        }
        let mut schema = default_schema(&Configuration::default());
        let requested = serde_json::to_value(self).expect("a schema that was JSON is JSON");
        overlay(&mut schema, requested);
        Ok(schema)
    }
}

/// Lays `over` over `base`: objects member by member, everything else whole.
fn overlay(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (member, value) in over {
                overlay(base.entry(member).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

impl ValueTypes {
    fn check_as_defaults(&self) -> Result<(), String> {
        let refusal = if self.has_vector_index() {
            "Vector index cannot be enabled by default. It can only be enabled on #embedding field."
        } else if self.has_text_index() {
            "Full text search / regular expression index cannot be enabled by default. \
             It can only be enabled on #document field."
        } else if self.has_sparse_index() {
            "Sparse vector index cannot be enabled by default. Please enable sparse vector index on specific keys. \
             At most one sparse vector index is allowed for the collection."
        } else {
            return Ok(());
        };
        Err(refusal.into())
    }

    fn check_as_key(&self, key: &str) -> Result<(), String> {
        let scalars = self.int.is_some() || self.float.is_some() || self.bool.is_some();
        match key {
            DOCUMENT if scalars || self.float_list.is_some() || self.sparse_vector.is_some() => {
                Err(format!("Document field cannot have any value types other than string: {key}"))
            }
            DOCUMENT if self.has_string_index() => {
                Err(format!("String inverted index can not be enabled on #document key: {key}"))
            }
            EMBEDDING if scalars || self.string.is_some() || self.sparse_vector.is_some() => {
                Err(format!("Embedding field cannot have any value types other than float_list: {key}"))
            }
            DOCUMENT => Ok(()),
            EMBEDDING => self.check_vector_source(),
            _ if key.starts_with('#') => {
                Err(format!("key cannot begin with '#'. Keys starting with '#' are reserved for system use: {key}"))
            }
            _ if self.has_vector_index() => Err(format!("Vector index can only be enabled on #embedding field: {key}")),
            _ if self.has_text_index() => Err(format!(
                "Full text search / regular expression index can only be enabled on #document field: {key}"
            )),
            _ => self.check_sparse_source(),
        }
    }

    fn check_vector_source(&self) -> Result<(), String> {
        let index = self.float_list.as_ref().and_then(|types| types.vector_index.as_ref());
        match index.and_then(|index| index.config.source_key.as_deref()) {
            None | Some(DOCUMENT) => Ok(()),
            Some(_) => Err("Vector index can only source from #document".into()),
        }
    }

    fn check_sparse_source(&self) -> Result<(), String> {
        let index = self.sparse_vector.as_ref().and_then(|types| types.sparse_vector_index.as_ref());
        let Some(config) = index.map(|index| &index.config) else { return Ok(()) };
        match &config.source_key {
            Some(_) if config.embedding_function.is_none() => {
                Err("If source_key is provided then embedding_function must \
                 also be provided since there is no default embedding function."
                    .into())
            }
            Some(key) if key.starts_with('#') && key != DOCUMENT => Err("source_key cannot begin with '#'. The only \
                 valid key starting with '#' is Key.DOCUMENT or '#document'."
                .into()),
            _ => Ok(()),
        }
    }

    fn has_vector_index(&self) -> bool {
        self.float_list.as_ref().is_some_and(|types| is_enabled(&types.vector_index))
    }

    fn has_text_index(&self) -> bool {
        self.string.as_ref().is_some_and(|types| is_enabled(&types.fts_index))
    }

    fn has_string_index(&self) -> bool {
        self.string.as_ref().is_some_and(|types| is_enabled(&types.string_inverted_index))
    }

    fn has_sparse_index(&self) -> bool {
        self.sparse_vector.as_ref().is_some_and(|types| is_enabled(&types.sparse_vector_index))
    }
}

fn is_enabled<C>(index: &Option<Index<C>>) -> bool {
    index.as_ref().is_some_and(|index| index.enabled)
}

impl Cmek {
    /// Whether it reads `projects/*/locations/*/keyRings/*/cryptoKeys/*`, no star being empty.
    fn is_well_formed(&self) -> bool {
        let Cmek::Gcp(resource) = self;
        let mut rest = resource.strip_prefix("projects/");
        for separator in ["/locations/", "/keyRings/", "/cryptoKeys/"] {
            rest =
                rest.and_then(|text| text.split_once(separator)).filter(|(star, _)| !star.is_empty()).map(|(_, r)| r);
        }
        rest.is_some_and(|star| !star.is_empty())
    }
}

/// What a schema says of `#embedding`, as a configuration; members that it lacks are the defaults.
pub fn configuration_of(schema: &Value) -> Configuration {
    let config = &schema["keys"][EMBEDDING]["float_list"]["vector_index"]["config"];
    let default = Configuration::default();
    let number = |member: &str, default: u64| config["hnsw"][member].as_u64().unwrap_or(default);
    Configuration {
        space: Space::deserialize(&config["space"]).unwrap_or_default(),
        ef_construction: number("ef_construction", default.ef_construction),
        ef_search: number("ef_search", default.ef_search),
        max_neighbors: number("max_neighbors", default.max_neighbors),
        num_threads: number("num_threads", default.num_threads),
        resize_factor: config["hnsw"]["resize_factor"].as_f64().unwrap_or(default.resize_factor),
        sync_threshold: number("sync_threshold", default.sync_threshold),
        batch_size: number("batch_size", default.batch_size),
        embedding_function: config.get("embedding_function").cloned(),
    }
}

/// Lets the schema's two copies of the configuration follow a change of it.
pub(super) fn follow(schema: &mut Value, hnsw: Option<&HnswUpdate>, function: Option<&Value>) {
    for place in ["/defaults/float_list/vector_index/config", "/keys/#embedding/float_list/vector_index/config"] {
        let Some(config) = schema.pointer_mut(place) else { continue };
        if let Some(hnsw) = hnsw {
            let changes = serde_json::to_value(hnsw).expect("a few numbers are JSON");
            overlay(&mut config["hnsw"], changes);
        }
        if let Some(function) = function {
            config["embedding_function"] = function.clone();
        }
    }
}

/// What `operations` add to `schema.keys`: for each metadata key, what the schema's defaults say about those types of its
/// values of which its entry says nothing. To be handed to the catalog if there is any. Keys that are long or one too many
/// are left out ([`limits::SCHEMA_KEYS_MAX`]): the schema is a hint.
pub fn schema_entries_for(operations: &[Operation], schema: &Value) -> Map<String, Value> {
    let known = schema["keys"].as_object();
    let room = limits::SCHEMA_KEYS_MAX.saturating_sub(known.map_or(0, Map::len));
    let mut entries = Map::new();
    for (key, value) in operations.iter().flat_map(|operation| operation.metadata.iter().flatten()) {
        let Some(group) = value.as_ref().and_then(group_of) else { continue };
        let says = |keys: &Map<String, Value>| keys.get(key).is_some_and(|entry| entry.get(group).is_some());
        let is_new = !entries.contains_key(key) && !known.is_some_and(|keys| keys.contains_key(key));
        let left_out = is_new && (entries.len() >= room || key.len() > limits::SCHEMA_KEY_BYTES_MAX);
        if key.starts_with(HIDDEN_PREFIX) || left_out || known.is_some_and(says) || says(&entries) {
            continue;
        }
        if let Some(default) = schema["defaults"].get(group) {
            let entry = entries.entry(key.as_str()).or_insert_with(|| json!({}));
            entry[group] = default.clone();
        }
    }
    entries
}

fn group_of(value: &MetadataValue) -> Option<&'static str> {
    match value {
        MetadataValue::Bool(_) | MetadataValue::Bools(_) => Some("bool"),
        MetadataValue::Int(_) | MetadataValue::Ints(_) => Some("int"),
        MetadataValue::Float(_) | MetadataValue::Floats(_) => Some("float"),
        MetadataValue::Str(_) | MetadataValue::Strs(_) => Some("string"),
        MetadataValue::Sparse(_) => Some("sparse_vector"),
    }
}

/// 400 if `filter` tests what the collection's schema has switched off.
pub fn check_filter(schema: &Value, filter: &Filter) -> Result<(), ApiError> {
    match filter {
        Filter::And(filters) | Filter::Or(filters) => {
            filters.iter().try_for_each(|filter| check_filter(schema, filter))
        }
        Filter::Document(_) if is_on(schema, DOCUMENT, "string", "fts_index") => Ok(()),
        Filter::Document(_) => {
            let message = "Cannot filter using full-text search because FTS indexing is disabled";
            Err(ApiError::invalid_argument(message))
        }
        Filter::Metadata { key, test } => check_test(schema, key, test),
    }
}

fn check_test(schema: &Value, key: &str, test: &MetadataTest) -> Result<(), ApiError> {
    let operand = match test {
        MetadataTest::Compare(_, scalar) | MetadataTest::Contains(scalar) | MetadataTest::NotContains(scalar) => scalar,
        MetadataTest::In(scalars) | MetadataTest::NotIn(scalars) => match scalars.first() {
            Some(scalar) => scalar,
            None => return Ok(()),
        },
    };
    let (group, index, name) = match operand {
        Scalar::Bool(_) => ("bool", "bool_inverted_index", "Bool"),
        Scalar::Int(_) => ("int", "int_inverted_index", "Int"),
        Scalar::Float(_) => ("float", "float_inverted_index", "Float"),
        Scalar::Str(_) => ("string", "string_inverted_index", "Str"),
    };
    if is_on(schema, key, group, index) {
        return Ok(());
    }
    Err(ApiError::invalid_argument(format!(
        "Cannot filter using metadata key '{key}' with type '{name}' because indexing is disabled"
    )))
}
