//! Bodies of create and update to what the catalog is told.

use super::*;
use crate::wire::schema;
use model::{Configuration, Lsn, Manifest, Space};
use serde_json::json;

fn created(body: &str) -> Result<NewCollection, ApiError> {
    create(None, body.as_bytes(), CollectionId::from_u128(9), "t", "d")
}

#[track_caller]
fn refuses(result: Result<impl std::fmt::Debug, ApiError>, status: u16, expect: &str) {
    let error = result.expect_err("a request that is refused");
    assert_eq!(error.status.as_u16(), status, "{error:?}");
    assert!(error.message.contains(expect), "{error:?}");
}

fn metadata(value: Value) -> Option<Metadata> {
    Some(serde_json::from_value(value).expect("the test's own metadata"))
}

#[test]
fn what_python_sends_creates_a_collection() {
    let body = r#"{"name":"abc","metadata":null,"configuration":{"hnsw":{"space":"l2"},"spann":null,
        "embedding_function":{"name":"default","type":"known","config":{}}},"schema":null,"get_or_create":true}"#;
    let function = Some(json!({"type": "known", "name": "default", "config": {}}));
    let configuration = Configuration { embedding_function: function, ..Configuration::default() };
    let expect = NewCollection {
        id: CollectionId::from_u128(9),
        tenant: "t".into(),
        database: "d".into(),
        name: "abc".into(),
        metadata: None,
        schema: schema::default_schema(&configuration),
        configuration,
        get_or_create: true,
    };
    assert_eq!(created(body), Ok(expect));
}

#[test]
fn a_name_is_enough() {
    let new = created(r#"{"name":"abc","other":1}"#).expect("a sound request");
    assert_eq!((new.configuration, new.get_or_create), (Configuration::default(), false));
}

#[test]
fn metadata_keeps_its_types_and_loses_empty_arrays() {
    let new = created(r#"{"name":"abc","metadata":{"a":1,"b":"x","c":1.0,"d":true,"e":[1],"f":[]}}"#).expect("sound");
    assert_eq!(new.metadata, metadata(json!({"a": 1, "b": "x", "c": 1.0, "d": true, "e": [1]})));
    assert_eq!(created(r#"{"name":"abc","metadata":{"f":[]}}"#).expect("sound").metadata, None);
    let cosine = created(r#"{"name":"abc","metadata":{"hnsw:space":"cosine"}}"#).expect("sound");
    assert_eq!(
        (cosine.configuration.space, cosine.metadata),
        (Space::Cosine, metadata(json!({"hnsw:space": "cosine"})))
    );
}

#[test]
fn bad_creates_are_refused() {
    refuses(created("{}"), 422, "missing field `name`");
    refuses(created(r#"{"name":"abc","get_or_create":null}"#), 422, "get_or_create: invalid type: null");
    refuses(created(r#"{"name":"abc","metadata":{"a":null}}"#), 422, "metadata.a: ");
    refuses(created(r#"{"name":"abc","metadata":{"a":{"b":1}}}"#), 422, "metadata.a");
    refuses(created(r#"{"name":"abc","metadata":[]}"#), 422, "metadata: invalid type: sequence");
    refuses(
        created(r#"{"name":"abc","configuration":{"hnsw":{"zzz":1}}}"#),
        422,
        "configuration.hnsw.zzz: unknown field `zzz`",
    );
    refuses(created(r#"{"name":"ab"}"#), 400, "Validation error: name: Expected a name");
    refuses(created(r#"{"name":"abc","metadata":{}}"#), 400, "Validation error: metadata: Metadata cannot be empty");
    refuses(
        created(r##"{"name":"abc","metadata":{"#a":1}}"##),
        400,
        "metadata: Metadata key cannot start with '#' or '$': #a",
    );
    refuses(
        created(r##"{"name":"abc","schema":{"defaults":{},"keys":{"#x":{}}}}"##),
        400,
        "Validation error: schema: key cannot begin",
    );
    refuses(
        created(r#"{"name":"a","metadata":{}}"#),
        400,
        "Validation error: metadata: Metadata cannot be empty\nname: Expected",
    );
    let sparse = r##"{"name":"abc","metadata":{"q":{"#type":"sparse_vector","indices":[1],"values":[1.0]}}}"##;
    refuses(created(sparse), 400, "Sparse vectors cannot be metadata of a collection: q");
}

fn row() -> CollectionRow {
    CollectionRow {
        id: CollectionId::from_u128(9),
        name: "old".into(),
        tenant: "t".into(),
        database: "d".into(),
        metadata: metadata(json!({"old": 1})),
        configuration: Configuration::default(),
        schema: schema::default_schema(&Configuration::default()),
        dimension: None,
        generation: 0,
        manifest: Manifest::default(),
        gc_floor: Lsn::ZERO,
        gc_epoch: 0,
    }
}

#[track_caller]
fn check_change(body: &str, expect: CollectionChange) {
    let update = update(None, body.as_bytes()).expect("a sound request");
    assert_eq!(update.is_empty(), expect == CollectionChange::default());
    assert_eq!(update.into_change(&row()), Ok(expect), "{body}");
}

#[test]
fn updates_change_what_they_name() {
    let nothing = CollectionChange::default;
    check_change("{}", nothing());
    check_change(r#"{"new_name":null,"new_metadata":null,"new_configuration":null,"other":1}"#, nothing());
    check_change(r#"{"new_name":"abc"}"#, CollectionChange { name: Some("abc".into()), ..nothing() });
    let replaced = CollectionChange { metadata: metadata(json!({"a": 1})), ..nothing() };
    check_change(r#"{"new_metadata":{"a":1,"b":null}}"#, replaced);
    check_change(r#"{"new_metadata":{"b":null}}"#, CollectionChange { metadata: metadata(json!({})), ..nothing() });
    let configuration = Configuration { ef_search: 5, ..Configuration::default() };
    let schema = Some(schema::default_schema(&configuration));
    check_change(
        r#"{"new_configuration":{"hnsw":{"ef_search":5}}}"#,
        CollectionChange { configuration: Some(configuration), schema, ..nothing() },
    );
}

#[test]
fn bad_updates_are_refused() {
    let updated = |body: &str| update(None, body.as_bytes());
    refuses(updated(r#"{"new_name":"ab"}"#), 400, "Validation error: new_name: Expected a name");
    refuses(updated(r#"{"new_metadata":{}}"#), 400, "Validation error: new_metadata: Metadata cannot be empty");
    refuses(updated(r##"{"new_metadata":{"#a":1}}"##), 400, "new_metadata: Metadata key cannot start with");
    refuses(updated(r#"{"new_name":"a","new_metadata":{}}"#), 400, "\nnew_metadata: Metadata cannot be empty");
    refuses(
        updated(r#"{"new_configuration":{"hnsw":{},"spann":{}}}"#),
        400,
        "Multiple vector index configurations provided",
    );
    refuses(
        updated(r#"{"new_configuration":{"hnsw":{"space":"ip"}}}"#),
        422,
        "new_configuration.hnsw.space: unknown field `space`",
    );
    let sparse = r##"{"new_metadata":{"q":{"#type":"sparse_vector","indices":[1],"values":[1.0]}}}"##;
    refuses(updated(sparse).expect("known by its row only").into_change(&row()), 400, "Sparse vectors");
}
