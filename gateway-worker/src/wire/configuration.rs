//! How a collection is indexed, as requests say it (`configuration`, legacy `hnsw:*` metadata, `schema`,
//! `new_configuration`) and as answers show it (`configuration_json`).

use super::ApiError;
use super::schema::{self, SchemaRequest};
use model::{Configuration, Metadata, MetadataValue, Space};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use super::schema::schema_entries_for;

#[cfg(test)]
mod tests;

/// `configuration` of a new collection. Members not named here are ignored, members of the blocks are not.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ConfigurationRequest {
    hnsw: Option<Hnsw>,
    spann: Option<Spann>,
    embedding_function: Option<EmbeddingFunction>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hnsw {
    space: Option<Space>,
    ef_construction: Option<u64>,
    ef_search: Option<u64>,
    max_neighbors: Option<u64>,
    num_threads: Option<u64>,
    resize_factor: Option<f64>,
    sync_threshold: Option<u64>,
    batch_size: Option<u64>,
}

/// Of a block for the other index kind, only the space counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "all but the space is checked by being read, and never used")]
struct Spann {
    search_nprobe: Option<u32>,
    write_nprobe: Option<u32>,
    space: Option<Space>,
    ef_construction: Option<u64>,
    ef_search: Option<u64>,
    max_neighbors: Option<u64>,
    reassign_neighbor_count: Option<u32>,
    split_threshold: Option<u32>,
    merge_threshold: Option<u32>,
}

/// The client's embedding function: stored, never interpreted.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum EmbeddingFunction {
    /// One that cannot be stored.
    Legacy,
    /// One that clients can build again.
    Known {
        /// Its registered name.
        name: String,
        /// Its own arguments.
        config: Value,
    },
    /// Not told.
    Unknown,
}

impl EmbeddingFunction {
    fn is_default(&self) -> bool {
        match self {
            EmbeddingFunction::Legacy => false,
            EmbeddingFunction::Known { name, .. } => name == "default",
            EmbeddingFunction::Unknown => true,
        }
    }

    fn into_value(self) -> Value {
        serde_json::to_value(self).expect("what was JSON is JSON")
    }
}

/// The configuration and the schema of a new collection.
///
/// Errors: 400 for two blocks, for bad `hnsw:*` metadata, and for a schema and a configuration that are both not the
/// default; as [`SchemaRequest::into_schema`]. `schema` must have passed [`SchemaRequest::check`].
pub fn create(
    request: Option<ConfigurationRequest>,
    metadata: Option<&Metadata>,
    schema: Option<SchemaRequest>,
) -> Result<(Configuration, Value), ApiError> {
    let request = request.unwrap_or_default();
    let function_is_default = request.embedding_function.as_ref().is_none_or(EmbeddingFunction::is_default);
    let configuration = resolve(request, metadata)?;
    if let Some(schema) = schema.map(SchemaRequest::into_schema).transpose()?
        && schema != schema::default_schema(&Configuration::default())
    {
        if !function_is_default || !is_default_index(&configuration) {
            let message = "Failed to reconcile schema: Cannot set both collection config and schema simultaneously";
            return Err(ApiError::invalid_argument(message));
        }
        return Ok((schema::configuration_of(&schema), schema));
    }
    let schema = schema::default_schema(&configuration);
    Ok((configuration, schema))
}

fn resolve(request: ConfigurationRequest, metadata: Option<&Metadata>) -> Result<Configuration, ApiError> {
    let mut configuration = match (request.hnsw, request.spann) {
        (Some(_), Some(_)) => return Err(two_blocks()),
        (None, Some(spann)) => Configuration { space: spann.space.unwrap_or_default(), ..Configuration::default() },
        (hnsw, None) => {
            let legacy = legacy(metadata)?;
            let explicit = hnsw.unwrap_or_default().into_configuration();
            if is_default_index(&explicit) { legacy.into_configuration() } else { explicit }
        }
    };
    configuration.embedding_function = request.embedding_function.map(EmbeddingFunction::into_value);
    Ok(configuration)
}

fn two_blocks() -> ApiError {
    ApiError::invalid_argument("Multiple vector index configurations provided")
}

fn is_default_index(configuration: &Configuration) -> bool {
    let index_only = Configuration { embedding_function: None, ..configuration.clone() };
    index_only == Configuration::default()
}

impl Hnsw {
    fn into_configuration(self) -> Configuration {
        let default = Configuration::default();
        Configuration {
            space: self.space.unwrap_or(default.space),
            ef_construction: self.ef_construction.unwrap_or(default.ef_construction),
            ef_search: self.ef_search.unwrap_or(default.ef_search),
            max_neighbors: self.max_neighbors.unwrap_or(default.max_neighbors),
            num_threads: self.num_threads.unwrap_or(default.num_threads),
            resize_factor: self.resize_factor.unwrap_or(default.resize_factor),
            sync_threshold: self.sync_threshold.unwrap_or(default.sync_threshold),
            batch_size: self.batch_size.unwrap_or(default.batch_size),
            embedding_function: None,
        }
    }
}

/// The index parameters in `hnsw:*` metadata, as clients before `configuration` sent them.
fn legacy(metadata: Option<&Metadata>) -> Result<Hnsw, ApiError> {
    let mut hnsw = Hnsw::default();
    for (key, value) in metadata.into_iter().flatten() {
        let Some(parameter) = key.strip_prefix("hnsw:") else { continue };
        set_legacy(&mut hnsw, parameter, value)
            .ok_or_else(|| ApiError::invalid_argument("Failed to parse hnsw parameters from segment metadata"))?;
    }
    Ok(hnsw)
}

/// `None` if there is no such parameter or it cannot have this value.
fn set_legacy(hnsw: &mut Hnsw, parameter: &str, value: &MetadataValue) -> Option<()> {
    let number = || if let MetadataValue::Int(number) = value { u64::try_from(*number).ok() } else { None };
    let number_from_2 = || number().filter(|number| *number >= 2);
    match parameter {
        "space" => hnsw.space = Some(space(value)?),
        "construction_ef" => hnsw.ef_construction = Some(number()?),
        "search_ef" => hnsw.ef_search = Some(number()?),
        "M" => hnsw.max_neighbors = Some(number()?),
        "num_threads" => hnsw.num_threads = Some(number()?),
        "resize_factor" => hnsw.resize_factor = Some(float(value)?),
        "sync_threshold" => hnsw.sync_threshold = Some(number_from_2()?),
        "batch_size" => hnsw.batch_size = Some(number_from_2()?),
        _ => return None,
    }
    Some(())
}

fn space(value: &MetadataValue) -> Option<Space> {
    match value {
        MetadataValue::Str(name) if name == "l2" => Some(Space::L2),
        MetadataValue::Str(name) if name == "cosine" => Some(Space::Cosine),
        MetadataValue::Str(name) if name == "ip" => Some(Space::Ip),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a factor of 2^53 has no meaning")]
fn float(value: &MetadataValue) -> Option<f64> {
    match value {
        MetadataValue::Int(number) => Some(*number as f64),
        MetadataValue::Float(number) => Some(*number),
        _ => None,
    }
}

/// `new_configuration`. What is absent or null stays.
#[derive(Clone, Debug, Deserialize)]
pub struct ConfigurationUpdate {
    hnsw: Option<HnswUpdate>,
    spann: Option<SpannUpdate>,
    embedding_function: Option<EmbeddingFunction>,
}

/// The parameters that may change after creation.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HnswUpdate {
    #[serde(skip_serializing_if = "Option::is_none")]
    ef_search: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_neighbors: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_threads: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resize_factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sync_threshold: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_size: Option<u64>,
}

/// Accepted and ignored: it is for the other index kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "checked by being read")]
struct SpannUpdate {
    search_nprobe: Option<u32>,
    ef_search: Option<u64>,
}

impl ConfigurationUpdate {
    /// 400 for two blocks.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.hnsw.is_some() && self.spann.is_some() { Err(two_blocks()) } else { Ok(()) }
    }

    /// Changes `configuration`, and the copies of it in `schema`.
    pub fn apply(self, configuration: &mut Configuration, schema: &mut Value) {
        let function = self.embedding_function.map(EmbeddingFunction::into_value);
        schema::follow(schema, self.hnsw.as_ref(), function.as_ref());
        if let Some(hnsw) = self.hnsw {
            let set = |place: &mut u64, value: Option<u64>| *place = value.unwrap_or(*place);
            set(&mut configuration.ef_search, hnsw.ef_search);
            set(&mut configuration.max_neighbors, hnsw.max_neighbors);
            set(&mut configuration.num_threads, hnsw.num_threads);
            set(&mut configuration.sync_threshold, hnsw.sync_threshold);
            set(&mut configuration.batch_size, hnsw.batch_size);
            configuration.resize_factor = hnsw.resize_factor.unwrap_or(configuration.resize_factor);
        }
        if function.is_some() {
            configuration.embedding_function = function;
        }
    }
}

/// `configuration_json`: what of a configuration clients read back.
#[derive(Serialize)]
pub(super) struct ConfigurationJson<'a> {
    hnsw: HnswJson,
    spann: Option<()>,
    embedding_function: Option<&'a Value>,
}

#[derive(Serialize)]
struct HnswJson {
    space: Space,
    ef_construction: u64,
    ef_search: u64,
    max_neighbors: u64,
    resize_factor: f64,
    sync_threshold: u64,
}

impl<'a> From<&'a Configuration> for ConfigurationJson<'a> {
    fn from(configuration: &'a Configuration) -> Self {
        let hnsw = HnswJson {
            space: configuration.space,
            ef_construction: configuration.ef_construction,
            ef_search: configuration.ef_search,
            max_neighbors: configuration.max_neighbors,
            resize_factor: configuration.resize_factor,
            sync_threshold: configuration.sync_threshold,
        };
        ConfigurationJson { hnsw, spann: None, embedding_function: configuration.embedding_function.as_ref() }
    }
}
