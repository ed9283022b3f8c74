//! Schemas: the default as clients must read it, what a request may change, what writes add, what filters may use.

use super::*;
use model::{Comparison, DocumentTest, OperationKind};

fn requested(schema: Value) -> Result<Value, String> {
    let request: SchemaRequest = serde_json::from_value(schema).map_err(|error| format!("422 {error}"))?;
    request.check().map_err(|why| format!("400 {why}"))?;
    request.into_schema().map_err(|error| format!("{} {}", error.status.as_u16(), error.message))
}

/// `expect`: place and value in what the default schema becomes.
#[track_caller]
fn check(schema: Value, place: &str, expect: Value) {
    let mut wanted = default_schema(&Configuration::default());
    let (parent, member) = place.rsplit_once('/').expect("a place");
    wanted.pointer_mut(parent).expect("a known place")[member] = expect;
    assert_eq!(requested(schema), Ok(wanted));
}

#[track_caller]
fn refuses(schema: Value, expect: &str) {
    let error = requested(schema.clone()).expect_err("a schema that is refused");
    assert!(error.starts_with(expect), "{schema}: {error}");
}

fn keyed(key: &str, types: Value) -> Value {
    json!({"defaults": {}, "keys": {key: types}})
}

fn index(enabled: bool) -> Value {
    json!({"enabled": enabled, "config": {}})
}

#[test]
fn the_default_schema_is_that_of_chroma() {
    let hnsw = r#"{"batch_size":100,"ef_construction":100,"ef_search":100,"max_neighbors":16,"num_threads":1,"resize_factor":1.2,"sync_threshold":1000}"#;
    let expect = r##"{"defaults":{"bool":{"bool_inverted_index":{"config":{},"enabled":true}},"float":{"float_inverted_index":{"config":{},"enabled":true}},"float_list":{"vector_index":{"config":{"hnsw":HNSW,"space":"l2"},"enabled":false}},"int":{"int_inverted_index":{"config":{},"enabled":true}},"sparse_vector":{"sparse_vector_index":{"config":{"bm25":false,"embedding_function":{"type":"unknown"}},"enabled":false}},"string":{"fts_index":{"config":{},"enabled":false},"string_inverted_index":{"config":{},"enabled":true}}},"keys":{"#document":{"string":{"fts_index":{"config":{},"enabled":true},"string_inverted_index":{"config":{},"enabled":false}}},"#embedding":{"float_list":{"vector_index":{"config":{"hnsw":HNSW,"source_key":"#document","space":"l2"},"enabled":true}}}}}"##;
    assert_eq!(default_schema(&Configuration::default()).to_string(), expect.replace("HNSW", hnsw));
}

#[test]
fn requests_are_laid_over_the_default() {
    assert_eq!(
        requested(json!({"defaults": {}, "keys": {}, "other": 1})),
        Ok(default_schema(&Configuration::default()))
    );
    assert_eq!(
        requested(json!({"defaults": {"int": null, "zzz": 1}, "keys": {}})),
        Ok(default_schema(&Configuration::default()))
    );
    let off = json!({"int_inverted_index": index(false)});
    check(json!({"defaults": {"int": off}, "keys": {}}), "/defaults/int/int_inverted_index", index(false));
    check(keyed("foo", json!({"int": off})), "/keys/foo", json!({"int": off}));
    check(keyed("foo", json!({})), "/keys/foo", json!({}));
    check(
        keyed("#document", json!({"string": {"fts_index": index(false)}})),
        "/keys/#document/string/fts_index",
        index(false),
    );
    let vector = |config: Value| {
        keyed("#embedding", json!({"float_list": {"vector_index": {"enabled": true, "config": config}}}))
    };
    let config = "/keys/#embedding/float_list/vector_index/config";
    check(vector(json!({"space": "cosine"})), &format!("{config}/space"), json!("cosine"));
    check(vector(json!({"hnsw": {"ef_search": 7}})), &format!("{config}/hnsw/ef_search"), json!(7));
    check(vector(json!({"spann": {"search_nprobe": 700}})), &format!("{config}/space"), json!("l2"));
    let sparse = json!({"sparse_vector": {"sparse_vector_index": index(false)}});
    check(keyed("foo", sparse.clone()), "/keys/foo", sparse);
}

#[test]
fn other_spellings_are_accepted() {
    let aliased = json!({"defaults": {}, "key_overrides": {"foo": {"#int": {"$int_inverted_index": index(false)}}}});
    check(aliased, "/keys/foo", json!({"int": {"int_inverted_index": index(false)}}));
}

#[test]
fn misshapen_schemas_are_422() {
    for schema in [
        json!({}),
        json!({"defaults": {}}),
        json!({"keys": {}}),
        json!(3),
        json!({"defaults": null, "keys": {}}),
        json!({"defaults": {"int": {"int_inverted_index": {"enabled": false}}}, "keys": {}}),
        json!({"defaults": {"int": {"int_inverted_index": {"enabled": false, "config": {"x": 1}}}}, "keys": {}}),
        keyed("foo", json!(null)),
        keyed("#document", json!({"string": {"fts_index": {"enabled": true, "config": {"algorithm": "trigram"}}}})),
        keyed("#embedding", json!({"float_list": {"vector_index": {"enabled": true, "config": {"zzz": 7}}}})),
        keyed("#embedding", json!({"float_list": {"vector_index": {"enabled": true, "config": {"hnsw": {"zzz": 7}}}}})),
        keyed(
            "#embedding",
            json!({"float_list": {"vector_index": {"enabled": true, "config": {"spann": {"zzz": 7}}}}}),
        ),
        keyed("foo", json!({"sparse_vector": {"sparse_vector_index": {"enabled": false, "config": {"zz": 1}}}})),
        json!({"defaults": {}, "keys": {}, "cmek": {"aws": "x"}}),
    ] {
        refuses(schema, "422 ");
    }
}

#[test]
fn schemas_that_make_no_sense_are_400() {
    let defaults = |types: Value| json!({"defaults": types, "keys": {}});
    let on = index(true);
    refuses(
        defaults(json!({"string": {"fts_index": on}})),
        "400 Full text search / regular expression index cannot be enabled by default.",
    );
    refuses(defaults(json!({"float_list": {"vector_index": on}})), "400 Vector index cannot be enabled by default.");
    refuses(
        defaults(json!({"sparse_vector": {"sparse_vector_index": on}})),
        "400 Sparse vector index cannot be enabled by default.",
    );
    refuses(
        keyed("#x", json!({})),
        "400 key cannot begin with '#'. Keys starting with '#' are reserved for system use: #x",
    );
    refuses(
        keyed("foo", json!({"float_list": {"vector_index": on}})),
        "400 Vector index can only be enabled on #embedding field: foo",
    );
    refuses(
        keyed("foo", json!({"string": {"fts_index": on}})),
        "400 Full text search / regular expression index can only be enabled on #document field: foo",
    );
    refuses(
        keyed("#document", json!({"string": {"string_inverted_index": on}})),
        "400 String inverted index can not be enabled on #document key: #document",
    );
    refuses(
        keyed("#document", json!({"int": {"int_inverted_index": on}})),
        "400 Document field cannot have any value types other than string: #document",
    );
    refuses(
        keyed("#embedding", json!({"string": {"string_inverted_index": on}})),
        "400 Embedding field cannot have any value types other than float_list: #embedding",
    );
    let source = json!({"float_list": {"vector_index": {"enabled": true, "config": {"source_key": "foo"}}}});
    refuses(keyed("#embedding", source), "400 Vector index can only source from #document");
    let sparse = |config: Value| json!({"sparse_vector": {"sparse_vector_index": {"enabled": true, "config": config}}});
    let source = json!({"source_key": "#x", "embedding_function": {"type": "legacy"}});
    refuses(keyed("foo", sparse(source)), "400 source_key cannot begin with '#'.");
    let source = sparse(json!({"source_key": "x"}));
    refuses(keyed("foo", source), "400 If source_key is provided then embedding_function must also be provided");
    let sparse = keyed("foo", json!({"sparse_vector": {"sparse_vector_index": on}}));
    refuses(
        sparse,
        "400 Failed to reconcile schema: Invalid schema input: Sparse vector indexing is not enabled in local",
    );
}

#[test]
fn encryption_keys_are_not_quietly_ignored() {
    let cmek = |resource: &str| json!({"defaults": {}, "keys": {}, "cmek": {"gcp": resource}});
    for malformed in [
        "x",
        "projects//locations/l/keyRings/k/cryptoKeys/c",
        "xprojects/p/locations/l/keyRings/k/cryptoKeys/c",
        "projects/p/locations/l/keyRings/k/cryptoKeys/",
    ] {
        refuses(cmek(malformed), &format!("400 CMEK does not match expected pattern: Gcp({malformed:?})"));
    }
    refuses(cmek("projects/p/locations/l/keyRings/k/cryptoKeys/c"), "501 ");
}

fn write(metadata: Value) -> Operation {
    let metadata = Some(serde_json::from_value(metadata).expect("the test's own metadata"));
    Operation { kind: OperationKind::Upsert, metadata, ..Operation::delete("a".into()) }
}

#[test]
fn writes_add_keys_and_types_of_keys_the_schema_does_not_have() {
    let text_is_known = json!({"string": {"string_inverted_index": index(false)}});
    let schema = requested(keyed("known", text_is_known)).expect("a sound schema");
    let operations = [
        write(json!({"i": 1, "known": "text", "gone": null, "chroma:foo": 1, "strs": ["a"]})),
        Operation::delete("b".into()),
        write(json!({"i": "now text", "f": [1.5], "b": true})),
    ];
    let (text, int) = (&schema["defaults"]["string"], &schema["defaults"]["int"]);
    let expect = json!({
        "i": {"int": int, "string": text}, "strs": {"string": text},
        "f": {"float": {"float_inverted_index": index(true)}}, "b": {"bool": {"bool_inverted_index": index(true)}},
    });
    assert_eq!(Value::Object(schema_entries_for(&operations, &schema)), expect);
    let other_type = schema_entries_for(&[write(json!({"known": 2}))], &schema);
    assert_eq!(Value::Object(other_type), json!({"known": {"int": int}}));
}

#[test]
fn a_schema_discovers_no_long_keys_and_only_so_many() {
    let schema = requested(json!({"defaults": {}, "keys": {}})).expect("a sound schema");
    let long = "k".repeat(limits::SCHEMA_KEY_BYTES_MAX);
    let entries = schema_entries_for(&[write(json!({ &long: 1, format!("{long}k"): 1 }))], &schema);
    assert_eq!(entries.keys().collect::<Vec<_>>(), [&long]);

    let many: Map<String, Value> = (0..=limits::SCHEMA_KEYS_MAX).map(|n| (n.to_string(), 1.into())).collect();
    let mut entries = schema_entries_for(&[write(many.into())], &schema);
    assert_eq!(entries.len() + 2, limits::SCHEMA_KEYS_MAX, "#document and #embedding are keys too");
    let mut full = schema;
    full["keys"].as_object_mut().expect("keys").append(&mut entries);
    assert_eq!(schema_entries_for(&[write(json!({"one more": 1}))], &full), Map::new());
    assert_eq!(schema_entries_for(&[write(json!({"7": "text"}))], &full).len(), 1, "another type of a known key");
}

#[test]
fn new_entries_follow_the_schemas_own_defaults() {
    let off = json!({"defaults": {"int": {"int_inverted_index": index(false)}}, "keys": {}});
    let entries = schema_entries_for(&[write(json!({"i": 1}))], &requested(off).expect("a sound schema"));
    assert_eq!(entries["i"], json!({"int": {"int_inverted_index": index(false)}}));
}

#[test]
fn filters_use_only_what_is_indexed() {
    let schema = requested(json!({
        "defaults": {"int": {"int_inverted_index": index(false)}},
        "keys": {"foo": {"string": {"string_inverted_index": index(false)}}, "bar": {"int": {"int_inverted_index": index(true)}}},
    }))
    .expect("a sound schema");
    let told = |key: &str, test: MetadataTest| {
        let filter = Filter::And(vec![Filter::Or(vec![Filter::Metadata { key: key.into(), test }])]);
        check_filter(&schema, &filter).map_err(|error| error.message)
    };
    let eq = |scalar: Scalar| MetadataTest::Compare(Comparison::Eq, scalar);
    let disabled = |key: &str, of: &str| {
        Err(format!("Cannot filter using metadata key '{key}' with type '{of}' because indexing is disabled"))
    };
    assert_eq!(told("foo", eq(Scalar::Str("x".into()))), disabled("foo", "Str"));
    assert_eq!(told("foo", MetadataTest::NotContains(Scalar::Str("x".into()))), disabled("foo", "Str"));
    assert_eq!(told("zzz", MetadataTest::In(vec![Scalar::Int(1)])), disabled("zzz", "Int"));
    assert_eq!(told("bar", eq(Scalar::Int(1))), Ok(()));
    assert_eq!(told("zzz", eq(Scalar::Float(1.0))), Ok(()));
    assert_eq!(told("zzz", eq(Scalar::Str("x".into()))), Ok(()));
    assert_eq!(told("#document", eq(Scalar::Str("x".into()))), disabled("#document", "Str"));
}

#[test]
fn text_search_can_be_off() {
    let off = requested(keyed("#document", json!({"string": {"fts_index": index(false)}}))).expect("a sound schema");
    let filter = Filter::Document(DocumentTest::Contains("x".into()));
    let error = check_filter(&off, &filter).expect_err("text search is off");
    assert_eq!(error.message, "Cannot filter using full-text search because FTS indexing is disabled");
    assert_eq!(check_filter(&default_schema(&Configuration::default()), &filter), Ok(()));
}
