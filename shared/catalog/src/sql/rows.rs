//! Values and columns: how the catalog's rows become SQL values and back. Pure.

use crate::database::{Row, SqlValue};
use crate::{CatalogError, DatabaseRow, ExecutorRow, Upkeep, Version};
use model::{CollectionRow, Lsn};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// A collection's columns, in the order in which [`collection`] reads them.
pub(super) const COLLECTION: &str = "id, name, tenant, database, metadata, configuration, schema, schema_keys, \
     dimension, generation, manifest, gc_floor, gc_epoch";
/// A database's columns, in the order in which [`database`] reads them.
pub(super) const DATABASE: &str = "id, name, tenant";

/// What upkeep knows of a collection, in the order in which [`upkeep`] reads it. A clock that was set back makes no age
/// negative.
pub(super) const UPKEEP: &str = "id, tenant, database, name, generation, manifest, dimension, gc_floor, gc_epoch, \
     max(unixepoch() - created_at, 0), max(unixepoch() - published_at, 0), max(unixepoch() - floor_raised_at, 0), \
     max(unixepoch() - deleted_at, 0)";
/// A version's columns, in the order in which [`version`] reads them.
pub(super) const VERSION: &str = "generation, manifest, max(unixepoch() - published_at, 0)";

pub(super) fn text(text: impl Into<String>) -> SqlValue {
    SqlValue::Text(text.into())
}

/// An integer of the database, whose integers end at `i64::MAX`.
pub(super) fn integer(number: u64) -> Result<SqlValue, CatalogError> {
    let value = i64::try_from(number).map_err(|_| CatalogError::Refused(format!("{number} is beyond 63 bits")))?;
    Ok(SqlValue::Integer(value))
}

/// A limit or offset: what is beyond the database's integers is beyond its rows as well.
pub(super) fn bound(number: u64) -> SqlValue {
    SqlValue::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

pub(super) fn json(value: &impl Serialize) -> SqlValue {
    text(serde_json::to_string(value).expect("the catalog's values have string keys only, so they are JSON"))
}

pub(super) fn or_null(value: Option<SqlValue>) -> SqlValue {
    value.unwrap_or(SqlValue::Null)
}

pub(super) fn uuid(bits: u128) -> SqlValue {
    text(uuid::Uuid::from_u128(bits).hyphenated().to_string())
}

/// The columns `schema` and `schema_keys` of `schema`.
pub(super) fn schema_columns(mut schema: Value) -> (SqlValue, SqlValue) {
    let keys = schema.as_object_mut().and_then(|members| match members.remove("keys") {
        Some(Value::Object(keys)) => Some(wrapped(keys)),
        Some(other) => {
            members.insert("keys".to_owned(), other);
            None
        }
        None => None,
    });
    (json(&schema), or_null(keys))
}

/// Schema keys as the column `schema_keys` holds them: an entry's members each in an array of one, names by their
/// [`label`]; an entry that has no members is in an array of one itself. `json_patch` merges objects, and drops their
/// nulls, but takes an array as it is: so it adds keys, and members to the entries of keys, and looks no deeper.
pub(super) fn wrapped(keys: Map<String, Value>) -> SqlValue {
    let wrap = |value| Value::Array(vec![value]);
    let entry = |entry| match entry {
        Value::Object(members) => members.into_iter().map(|(name, value)| (label(&name), wrap(value))).collect(),
        other => wrap(other),
    };
    json(&keys.into_iter().map(|(key, value)| (label(&key), entry(value))).collect::<Map<String, Value>>())
}

/// The key without any character that JSON escapes: `%` and two digits instead. SQLite takes labels without escapes
/// for different if they differ, but compares those with escapes only up to a NUL.
fn label(key: &str) -> String {
    let mut label = String::with_capacity(key.len());
    for char in key.chars() {
        match char {
            '\0'..='\u{1f}' | '"' | '\\' | '%' => label.push_str(&format!("%{:02x}", u32::from(char))),
            _ => label.push(char),
        }
    }
    label
}

/// The inverse of [`label`]; `None` if no key has this label.
fn key(label: &str) -> Option<String> {
    let mut parts = label.split('%');
    let mut key = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        key.push(char::from(u8::from_str_radix(digits, 16).ok()?));
        key.push_str(rest);
    }
    Some(key)
}

/// The inverse of [`schema_columns`]; `None` if they are not what that gives.
fn schema(mut schema: Value, keys: Option<Map<String, Value>>) -> Option<Value> {
    if let (Some(members), Some(keys)) = (schema.as_object_mut(), keys) {
        let unwrapped: Option<Map<String, Value>> = keys.into_iter().map(unwrapped).collect();
        members.insert("keys".to_owned(), Value::Object(unwrapped?));
    }
    Some(schema)
}

fn unwrapped((label, value): (String, Value)) -> Option<(String, Value)> {
    let value = match value {
        Value::Array(values) => values.into_iter().next()?,
        Value::Object(members) => members.into_iter().map(unwrapped).collect::<Option<Map<_, _>>>()?.into(),
        _ => return None,
    };
    Some((key(&label)?, value))
}

/// What `read` makes of a row.
pub(super) fn read<T>(row: Row, read: impl Fn(&mut Columns) -> Result<T, CatalogError>) -> Result<T, CatalogError> {
    read(&mut Columns { values: row.into_iter(), column_idx: 0 })
}

/// The collection in the columns [`COLLECTION`].
pub(super) fn collection(columns: &mut Columns) -> Result<CollectionRow, CatalogError> {
    Ok(CollectionRow {
        id: columns.parsed(model::CollectionId::parse)?,
        name: columns.text()?,
        tenant: columns.text()?,
        database: columns.text()?,
        metadata: columns.optional_json()?,
        configuration: columns.json()?,
        schema: schema(columns.json()?, columns.optional_json()?).ok_or_else(|| columns.nonsense())?,
        dimension: columns.optional_integer()?,
        generation: columns.integer()?,
        manifest: columns.optional_json()?.unwrap_or_default(),
        gc_floor: Lsn(columns.integer()?),
        gc_epoch: columns.integer()?,
    })
}

/// The database in the columns [`DATABASE`].
pub(super) fn database(columns: &mut Columns) -> Result<DatabaseRow, CatalogError> {
    Ok(DatabaseRow {
        id: columns.parsed(|text| uuid::Uuid::try_parse(text).ok())?.as_u128(),
        name: columns.text()?,
        tenant: columns.text()?,
    })
}

/// The collection in the columns [`UPKEEP`].
pub(super) fn upkeep(columns: &mut Columns) -> Result<Upkeep, CatalogError> {
    Ok(Upkeep {
        id: columns.parsed(model::CollectionId::parse)?,
        name: format!("{}/{}/{}", columns.text()?, columns.text()?, columns.text()?),
        generation: columns.integer()?,
        manifest: columns.optional_json()?.unwrap_or_default(),
        dimension: columns.optional_integer()?,
        gc_floor: Lsn(columns.integer()?),
        gc_epoch: columns.integer()?,
        created_age_s: columns.integer()?,
        published_age_s: columns.optional_integer()?,
        floor_age_s: columns.optional_integer()?,
        deleted_age_s: columns.optional_integer()?,
    })
}

/// The version in the columns [`VERSION`].
pub(super) fn version(columns: &mut Columns) -> Result<Version, CatalogError> {
    Ok(Version { generation: columns.integer()?, manifest: columns.json()?, age_s: columns.integer()? })
}

/// The executor in the columns `number`, `weight` and whether it is draining.
pub(super) fn executor(columns: &mut Columns) -> Result<ExecutorRow, CatalogError> {
    let (number, weight) = (columns.integer()?, columns.integer()?);
    Ok(ExecutorRow { number, weight, draining: columns.integer::<i64>()? != 0 })
}

/// The columns of a row that were not read yet.
pub(super) struct Columns {
    values: std::vec::IntoIter<SqlValue>,
    column_idx: usize,
}

impl Columns {
    fn next(&mut self) -> SqlValue {
        self.column_idx += 1;
        self.values.next().unwrap_or_default()
    }

    /// The column just read makes no sense; its content is a user's and not for a log.
    fn nonsense(&self) -> CatalogError {
        CatalogError::Refused(format!("column {} of a row does not read", self.column_idx))
    }

    fn optional_text(&mut self) -> Result<Option<String>, CatalogError> {
        match self.next() {
            SqlValue::Text(text) => Ok(Some(text)),
            SqlValue::Null => Ok(None),
            _ => Err(self.nonsense()),
        }
    }

    fn text(&mut self) -> Result<String, CatalogError> {
        self.optional_text()?.ok_or_else(|| self.nonsense())
    }

    fn parsed<T>(&mut self, parse: impl Fn(&str) -> Option<T>) -> Result<T, CatalogError> {
        let text = self.text()?;
        parse(&text).ok_or_else(|| self.nonsense())
    }

    fn optional_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CatalogError> {
        let text = self.optional_text()?;
        text.map(|text| serde_json::from_str(&text)).transpose().map_err(|_| self.nonsense())
    }

    fn json<T: DeserializeOwned>(&mut self) -> Result<T, CatalogError> {
        self.optional_json()?.ok_or_else(|| self.nonsense())
    }

    fn optional_integer<T: TryFrom<i64>>(&mut self) -> Result<Option<T>, CatalogError> {
        match self.next() {
            SqlValue::Integer(value) => T::try_from(value).map(Some).map_err(|_| self.nonsense()),
            SqlValue::Null => Ok(None),
            _ => Err(self.nonsense()),
        }
    }

    pub(super) fn integer<T: TryFrom<i64>>(&mut self) -> Result<T, CatalogError> {
        self.optional_integer()?.ok_or_else(|| self.nonsense())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_need_no_escapes_and_read_back() {
        for text in ["", "plain", "100%", "%00", "\0", "a\"b\\c\u{1f}\u{7f}\u{80}\u{2028}雪\u{1F98A}", "%%25\n%"] {
            let label = label(text);
            assert_eq!(json!(label).to_string(), format!("\"{label}\""));
            assert_eq!(key(&label).as_deref(), Some(text));
        }
        for label in ["%", "%0", "%zz", "a%雪"] {
            assert_eq!(key(label), None, "{label}");
        }
    }
}
