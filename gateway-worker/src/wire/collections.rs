//! Bodies that create and change a collection, and the collection object that answers carry.

use super::configuration::{self, ConfigurationJson, ConfigurationRequest, ConfigurationUpdate};
use super::responses::to_bytes;
use super::schema::SchemaRequest;
use super::{ApiError, body, names};
use bytes::Bytes;
use catalog::{CollectionChange, NewCollection};
use model::{CollectionId, CollectionRow, Configuration, Metadata, MetadataPatch, MetadataValue, limits};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[cfg(test)]
mod tests;

#[derive(Deserialize)]
struct CreateBody {
    name: String,
    metadata: Option<Metadata>,
    configuration: Option<ConfigurationRequest>,
    schema: Option<SchemaRequest>,
    #[serde(default)]
    get_or_create: bool,
}

/// The collection that a create request asks for.
///
/// - `id`: the new collection's id; `tenant`, `database`: of the path.
///
/// Errors: as [`body::parse`]; 400 for name, metadata, schema or a configuration at odds with them.
pub fn create(
    content_type: Option<&str>,
    body: &[u8],
    id: CollectionId,
    tenant: &str,
    database: &str,
) -> Result<NewCollection, ApiError> {
    let request: CreateBody = body::parse_values(content_type, body)?;
    let checks = [
        ("metadata", request.metadata.as_ref().map_or(Ok(()), |metadata| check_metadata(metadata.keys()))),
        ("schema", request.schema.as_ref().map_or(Ok(()), SchemaRequest::check)),
        ("name", names::check_name(&request.name)),
    ];
    refuse_failed(checks)?;
    let metadata = request.metadata.map(storable).transpose()?;
    let (configuration, schema) = configuration::create(request.configuration, metadata.as_ref(), request.schema)?;
    check_sizes(metadata.as_ref(), Some(&configuration), Some(&schema))?;
    Ok(NewCollection {
        id,
        tenant: tenant.to_owned(),
        database: database.to_owned(),
        name: request.name,
        metadata: metadata.filter(|metadata| !metadata.is_empty()),
        configuration,
        schema,
        get_or_create: request.get_or_create,
    })
}

/// What an update request changes; all of it is optional.
#[derive(Debug, Deserialize)]
pub struct Update {
    new_name: Option<String>,
    new_metadata: Option<MetadataPatch>,
    new_configuration: Option<ConfigurationUpdate>,
}

/// Reads an update request. Errors: as [`body::parse`]; 400 for name, metadata or configuration.
pub fn update(content_type: Option<&str>, body: &[u8]) -> Result<Update, ApiError> {
    let request: Update = body::parse_values(content_type, body)?;
    let checks = [
        ("new_name", request.new_name.as_deref().map_or(Ok(()), names::check_name)),
        ("new_metadata", request.new_metadata.as_ref().map_or(Ok(()), |metadata| check_metadata(metadata.keys()))),
    ];
    refuse_failed(checks)?;
    request.new_configuration.as_ref().map_or(Ok(()), ConfigurationUpdate::check)?;
    Ok(request)
}

impl Update {
    /// Whether nothing changes: the collection must exist all the same.
    pub fn is_empty(&self) -> bool {
        self.new_name.is_none() && self.new_metadata.is_none() && self.new_configuration.is_none()
    }

    /// The new name, if there is one: for the message if it is taken.
    pub fn new_name(&self) -> Option<&str> {
        self.new_name.as_deref()
    }

    /// The change to the collection that is `row` now. Metadata is replaced whole; keys sent as null are left out.
    ///
    /// Errors: 400 for metadata that a collection cannot have.
    pub fn into_change(self, row: &CollectionRow) -> Result<CollectionChange, ApiError> {
        let mut change = CollectionChange { name: self.new_name, ..CollectionChange::default() };
        if let Some(patch) = self.new_metadata {
            change.metadata =
                Some(storable(patch.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())?);
        }
        if let Some(update) = self.new_configuration {
            let (mut configuration, mut schema) = (row.configuration.clone(), row.schema.clone());
            update.apply(&mut configuration, &mut schema);
            (change.configuration, change.schema) = (Some(configuration), Some(schema));
        }
        // The schema follows the configuration, and may have discovered more keys than a user may send.
        check_sizes(change.metadata.as_ref(), change.configuration.as_ref(), None)?;
        Ok(change)
    }
}

fn check_metadata<'a>(keys: impl ExactSizeIterator<Item = &'a String>) -> Result<(), String> {
    if keys.len() == 0 {
        return Err("Metadata cannot be empty".into());
    }
    keys.into_iter().try_for_each(|key| names::check_metadata_key(key))
}

/// 400 if the catalog's row would become too large to be read.
fn check_sizes(
    metadata: Option<&Metadata>,
    configuration: Option<&Configuration>,
    schema: Option<&Value>,
) -> Result<(), ApiError> {
    let members = [
        ("metadata", to_bytes(&metadata).len()),
        ("configuration", to_bytes(&configuration).len()),
        ("schema", to_bytes(&schema).len()),
    ];
    let max = limits::COLLECTION_JSON_BYTES_MAX;
    match members.into_iter().find(|(_, bytes)| *bytes > max) {
        None => Ok(()),
        Some((member, bytes)) => {
            let message =
                format!("Validation error: {member}: A collection's {member} takes at most {max} bytes, got {bytes}");
            Err(ApiError::invalid_argument(message))
        }
    }
}

/// The metadata without empty arrays, which have no type; sparse vectors are refused.
fn storable(metadata: Metadata) -> Result<Metadata, ApiError> {
    if let Some((key, _)) = metadata.iter().find(|(_, value)| matches!(value, MetadataValue::Sparse(_))) {
        let message = format!("Validation error: metadata: Sparse vectors cannot be metadata of a collection: {key}");
        return Err(ApiError::invalid_argument(message));
    }
    Ok(metadata.into_iter().filter(|(_, value)| !value.is_empty_array()).collect())
}

fn refuse_failed<const N: usize>(checks: [(&str, Result<(), String>); N]) -> Result<(), ApiError> {
    let complaints: Vec<_> = checks.into_iter().filter_map(|(member, check)| Some((member, check.err()?))).collect();
    names::refuse_if_any(&complaints)
}

/// A collection as answers show it.
#[derive(Serialize)]
struct CollectionObject<'a> {
    id: String,
    name: &'a str,
    configuration_json: ConfigurationJson<'a>,
    schema: &'a Value,
    metadata: Option<&'a Metadata>,
    dimension: Option<u32>,
    tenant: &'a str,
    database: &'a str,
    /// Up to where the log is compacted.
    log_position: u64,
    /// The number of compactions.
    version: u64,
}

impl<'a> From<&'a CollectionRow> for CollectionObject<'a> {
    fn from(row: &'a CollectionRow) -> Self {
        CollectionObject {
            id: row.id.to_string(),
            name: &row.name,
            configuration_json: (&row.configuration).into(),
            schema: &row.schema,
            metadata: row.metadata.as_ref(),
            dimension: row.dimension,
            tenant: &row.tenant,
            database: &row.database,
            log_position: row.manifest.compacted.operations,
            version: row.generation,
        }
    }
}

/// The answer to create and get.
pub fn collection(row: &CollectionRow) -> Bytes {
    to_bytes(&CollectionObject::from(row))
}

/// The answer to a listing.
pub fn collections(rows: &[CollectionRow]) -> Bytes {
    to_bytes(&rows.iter().map(CollectionObject::from).collect::<Vec<_>>())
}
