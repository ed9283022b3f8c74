//! Bodies of the record routes, as clients and impolite programs send them, and what becomes of them.

use super::*;
use model::{CollectionId, Comparison, Configuration, DocumentTest, Filter, Lsn, Manifest, MetadataTest, Scalar};
use serde_json::json;

type Parse = fn(Option<&str>, &[u8]) -> Result<Batch, ApiError>;

fn operations(parse: Parse, body: &str) -> Result<Vec<Operation>, ApiError> {
    parse(None, body.as_bytes())?.into_operations()
}

/// `expect` is the status and how the message begins.
#[track_caller]
fn refuses(parse: Parse, body: &str, status: u16, expect: &str) {
    let error = operations(parse, body).expect_err(body);
    assert_eq!(error.status.as_u16(), status, "{error:?}");
    assert!(error.message.starts_with(expect), "{error:?}");
}

fn patch(json: Value) -> Option<MetadataPatch> {
    Some(serde_json::from_value(json).expect("the test's own metadata"))
}

fn operation(kind: OperationKind, id: &str) -> Operation {
    Operation { kind, ..Operation::delete(id.into()) }
}

#[test]
fn columns_become_operations() {
    let body = r#"{"ids":["a","b"],"embeddings":[[1,2],[3,4]],"documents":["x",null],"uris":[null,"u"],
        "metadatas":[{"i":1,"f":1.0,"b":true,"s":"t","a":[1,2]},null],"other":{"ignored":[]}}"#;
    let first = Operation {
        embedding: Some(vec![1.0, 2.0]),
        document: Some("x".into()),
        metadata: patch(json!({"i": 1, "f": 1.0, "b": true, "s": "t", "a": [1, 2]})),
        ..operation(OperationKind::Add, "a")
    };
    let second =
        Operation { embedding: Some(vec![3.0, 4.0]), uri: Some("u".into()), ..operation(OperationKind::Add, "b") };
    assert_eq!(operations(add, body), Ok(vec![first, second]));
}

#[test]
fn what_python_sends_is_read() {
    let body = r#"{"ids":["a"],"embeddings":["AACAPwAAAEA="],"metadatas":null,"documents":null,"uris":null}"#;
    for (parse, kind) in
        [(add as Parse, OperationKind::Add), (upsert, OperationKind::Upsert), (update, OperationKind::Update)]
    {
        let expect = Operation { embedding: Some(vec![1.0, 2.0]), ..operation(kind, "a") };
        assert_eq!(operations(parse, body), Ok(vec![expect]));
    }
}

#[test]
fn an_empty_batch_is_nothing_to_do() {
    assert_eq!(operations(add, r#"{"ids":[],"embeddings":[]}"#), Ok(vec![]));
    assert_eq!(operations(update, r#"{"ids":[]}"#), Ok(vec![]));
}

#[test]
fn updates_may_leave_vectors_alone() {
    let changed = Operation { embedding: Some(vec![3.0, 4.0]), ..operation(OperationKind::Update, "b") };
    let kept = operation(OperationKind::Update, "a");
    for embeddings in ["[null,[3,4]]", r#"[null,"AABAQAAAgEA="]"#] {
        let body = format!(r#"{{"ids":["a","b"],"embeddings":{embeddings}}}"#);
        assert_eq!(operations(update, &body), Ok(vec![kept.clone(), changed.clone()]));
    }
    assert_eq!(operations(update, r#"{"ids":["a"],"embeddings":null,"documents":[null]}"#), Ok(vec![kept]));
}

#[test]
fn missing_and_misshapen_members_are_422() {
    let shape = "Failed to deserialize the JSON body into the target type: ";
    for body in [
        r#"{}"#,
        r#"{"ids":["a"]}"#,
        r#"{"ids":["a"],"embeddings":null}"#,
        r#"{"ids":["a"],"embeddings":[null]}"#,
        r#"{"ids":["a","b"],"embeddings":["AACAPw==",[1]]}"#,
        r#"{"ids":["a"],"embeddings":"x"}"#,
        r#"{"ids":null,"embeddings":[[1]]}"#,
        r#"{"ids":[1],"embeddings":[[1]]}"#,
        r#"{"ids":["a"],"embeddings":[[1,null]]}"#,
        r#"{"ids":["a"],"embeddings":[[1]],"documents":[3]}"#,
        r#"{"ids":["a"],"embeddings":[[1]],"metadatas":{}}"#,
        r#"{"ids":["a"],"embeddings":[[1]],"metadatas":[3]}"#,
        r#"{"ids":["a"],"embeddings":[[1]],"metadatas":[{"a":{"b":1}}]}"#,
        r#"{"ids":["a"],"embeddings":[[1]],"metadatas":[{"a":[1,"x"]}]}"#,
        r#"{"ids":["a"],"embeddings":[[1]],"metadatas":[{"a":[null]}]}"#,
    ] {
        refuses(add, body, 422, shape);
        refuses(upsert, body, 422, shape);
    }
    let null = r#"{"ids":["a"],"embeddings":[[1]],"metadatas":[{"a":null}]}"#;
    refuses(add, null, 422, shape);
    let removal = Operation {
        embedding: Some(vec![1.0]),
        metadata: patch(json!({"a": null})),
        ..operation(OperationKind::Upsert, "a")
    };
    assert_eq!(operations(upsert, null), Ok(vec![removal]));
    refuses(
        add,
        r#"{"ids":["a"],"embeddings":[[NaN]]}"#,
        400,
        "Failed to parse the request body as JSON: embeddings[0][0]: ",
    );
    let place = format!("{shape}embeddings[1][0]: invalid type");
    refuses(add, r#"{"ids":["a"],"embeddings":[[1],["x"]]}"#, 422, &place);
}

#[test]
fn columns_must_fit_together() {
    let lengths = "Inconsistent number of IDs, embeddings, documents, URIs and metadatas";
    refuses(add, r#"{"ids":["a"],"embeddings":[]}"#, 400, lengths);
    refuses(add, r#"{"ids":["a","b"],"embeddings":[[1]]}"#, 400, lengths);
    refuses(add, r#"{"ids":["a"],"embeddings":[[1]],"documents":[]}"#, 400, lengths);
    refuses(add, r#"{"ids":["a"],"embeddings":[[1]],"uris":["x","y"]}"#, 400, lengths);
    refuses(update, r#"{"ids":["a"],"metadatas":[]}"#, 400, lengths);
    refuses(update, r#"{"ids":["a"],"embeddings":[]}"#, 400, lengths);
    refuses(add, r#"{"ids":[""],"embeddings":[[1]]}"#, 400, "Empty ID, ID must have at least one character");
    refuses(
        add,
        r#"{"ids":["a","b"],"embeddings":[[1],[1,2]]}"#,
        400,
        "Inconsistent dimensions in provided embeddings",
    );
}

#[test]
fn complaints_about_records_come_together() {
    let body = r#"{"ids":["a"],"embeddings":[[1e39],[1,2]],"metadatas":[{"$x":1},{}]}"#;
    refuses(
        add,
        body,
        400,
        "Validation error: embeddings: Embeddings must not contain NaN or Infinity values\nmetadatas: Invalid metadata at index 0",
    );
    refuses(add, r#"{"ids":["a"],"embeddings":["AAAA"]}"#, 400, "Invalid byte length: 3 bytes");
}

#[test]
fn metadata_that_no_record_can_have_is_refused() {
    for metadata in [
        r#"{"":1}"#,
        r##"{"#a":1}"##,
        r#"{"$a":1}"#,
        r#"{"chroma:document":1}"#,
        r#"{"chroma:uri":["x"]}"#,
        r##"{"a":{"#type":"sparse_vector","indices":[2,1],"values":[1,2]}}"##,
        r##"{"a":{"#type":"sparse_vector","indices":[1],"values":[1,2]}}"##,
        r##"{"a":{"#type":"sparse_vector","indices":[1],"values":[1],"tokens":["x","y"]}}"##,
    ] {
        let body = format!(r#"{{"ids":["a","b"],"embeddings":[[1],[1]],"metadatas":[{{"ok":1}},{metadata}]}}"#);
        refuses(add, &body, 400, "Validation error: metadatas: Invalid metadata at index 1");
    }
    refuses(
        update,
        r#"{"ids":["a"],"metadatas":[{"$b":null}]}"#,
        400,
        "Validation error: metadatas: Invalid metadata at index 0",
    );
    refuses(update, r#"{"ids":["a"],"metadatas":[{"chroma:document":null}]}"#, 400, "Validation error: metadatas: ");
    let sparse = r##"{"ids":["a"],"embeddings":[[1]],"metadatas":[{"b":1,"a":{"#type":"sparse_vector","indices":[1,2],"values":[1,2]}}]}"##;
    refuses(add, sparse, 501, "Unimplemented: Sparse vector is not supported for local chroma: a");
}

/// What the metadata of a write becomes, for each kind of write.
#[track_caller]
fn check_metadata(parse: Parse, sent: &str, expect: Option<MetadataPatch>) {
    let body = format!(r#"{{"ids":["a"],"embeddings":[[1]],"metadatas":[{sent}]}}"#);
    assert_eq!(operations(parse, &body).expect("a sound write")[0].metadata, expect, "{sent}");
}

#[test]
fn empty_metadata_is_none_and_empty_arrays_have_no_type() {
    check_metadata(add, "{}", None);
    check_metadata(add, "null", None);
    check_metadata(add, r#"{"a":[]}"#, None);
    check_metadata(add, r#"{"a":[],"b":[1,2.5]}"#, patch(json!({"b": [1.0, 2.5]})));
    check_metadata(update, "{}", None);
    check_metadata(update, r#"{"a":[],"b":1}"#, patch(json!({"a": null, "b": 1})));
    check_metadata(upsert, r#"{"a":null}"#, patch(json!({"a": null})));
}

#[test]
fn hidden_keys_become_document_and_uri() {
    let body = r#"{"ids":["a","b"],"embeddings":[[1],[1]],"documents":[null,"real"],
        "metadatas":[{"chroma:document":"d","chroma:uri":"u","chroma:foo":5},{"chroma:document":"d"}]}"#;
    let operations = operations(add, body).expect("a sound write");
    assert_eq!((operations[0].document.as_deref(), operations[0].uri.as_deref()), (Some("d"), Some("u")));
    assert_eq!(operations[0].metadata, patch(json!({"chroma:foo": 5})));
    assert_eq!((operations[1].document.as_deref(), &operations[1].metadata), (Some("real"), &None));
}

#[test]
fn the_dimension_of_a_batch_is_checked_against_the_row() {
    let batch = update(None, br#"{"ids":["a","b"],"embeddings":[null,[1,2,3]]}"#).expect("a sound update");
    assert_eq!(batch.dimension(), Some(3));
    assert_eq!((batch.check_dimension(None), batch.check_dimension(Some(3))), (Ok(()), Ok(())));
    let error = batch.check_dimension(Some(2)).expect_err("another dimension");
    assert_eq!(error, ApiError::invalid_argument("Collection expecting embedding with dimension of 2, got 3"));
    let none = update(None, br#"{"ids":["a"],"documents":["x"]}"#).expect("a sound update");
    assert_eq!((none.dimension(), none.check_dimension(Some(2))), (None, Ok(())));
}

#[test]
fn more_records_than_a_fragment_holds_are_refused() {
    assert_eq!(check_count(limits::FRAGMENT_OPERATIONS_MAX), Ok(()));
    let body = format!(r#"{{"ids":["a"{}]}}"#, r#","a""#.repeat(limits::FRAGMENT_OPERATIONS_MAX));
    let error = delete(None, body.as_bytes()).expect_err("one too many");
    assert_eq!((error.status.as_u16(), error.message.ends_with("got 1048576")), (400, true));
}

#[track_caller]
fn check_delete(body: &str, expect: Result<Delete, &str>) {
    let got = delete(None, body.as_bytes()).map_err(|error| format!("{} {}", error.status.as_u16(), error.message));
    assert_eq!(got, expect.map_err(str::to_owned), "{body}");
}

fn k_is_1() -> Option<Filter> {
    Some(Filter::Metadata { key: "k".into(), test: MetadataTest::Compare(Comparison::Eq, Scalar::Int(1)) })
}

#[test]
fn deletes_by_id_by_filter_and_of_nothing() {
    check_delete("{}", Ok(Delete::Nothing));
    check_delete(r#"{"ids":null,"where":null,"where_document":null}"#, Ok(Delete::Nothing));
    let deletion = |id: &str| Operation::delete(id.into());
    check_delete(
        r#"{"ids":["a","b","a",""]}"#,
        Ok(Delete::Ids { operations: vec![deletion("a"), deletion("b")], deleted: 4 }),
    );
    let by_filter = |ids: Option<Vec<String>>, limit| Delete::Matching(Read::Match { ids, filter: k_is_1(), limit });
    check_delete(r#"{"where":{"k":1}}"#, Ok(by_filter(None, None)));
    check_delete(r#"{"where":{"k":1},"limit":0}"#, Ok(by_filter(None, Some(0))));
    check_delete(r#"{"ids":[],"where":{"k":1},"limit":null}"#, Ok(by_filter(Some(vec![]), None)));
    check_delete(r#"{"ids":["a"],"where":{"k":1}}"#, Ok(by_filter(Some(vec!["a".into()]), None)));
}

#[test]
fn deletes_that_do_not_say_what_are_refused() {
    let neither = "400 Validation error: ids, where: Either ids or where must be specified";
    let limit = "400 Validation error: limit, where: limit can only be specified when a where clause is provided";
    check_delete(r#"{"ids":[]}"#, Err(neither));
    check_delete(r#"{"ids":[],"limit":1}"#, Err(neither));
    check_delete(r#"{"limit":1}"#, Err(limit));
    check_delete(r#"{"ids":["a"],"limit":1}"#, Err(limit));
    check_delete(r#"{"where":{}}"#, Err("400 Invalid where clause"));
    check_delete(r#"{"where_document":{}}"#, Err("400 Invalid where document clause"));
    for body in [r#"{"where":{"k":1},"limit":-1}"#, r#"{"where":{"k":1},"limit":4294967296}"#, r#"{"ids":"a"}"#] {
        assert_eq!(delete(None, body.as_bytes()).map_err(|error| error.status.as_u16()), Err(422), "{body}");
    }
}

#[test]
fn a_get_says_what_to_read_and_what_to_show() {
    let request = get(None, b"{}").expect("all members are optional");
    let include = Include { documents: true, metadatas: true, ..Include::default() };
    assert_eq!(request.read, Read::Get { ids: None, filter: None, limit: None, offset: 0, include });
    let body =
        br#"{"ids":["b","a"],"where":{"k":1},"where_document":null,"limit":0,"offset":7,"include":["uris","uris"]}"#;
    let request = get(None, body).expect("a sound get");
    let include = Include { uris: true, ..Include::default() };
    let ids = Some(vec!["b".into(), "a".into()]);
    assert_eq!(request.read, Read::Get { ids, filter: k_is_1(), limit: Some(0), offset: 7, include });
    assert_eq!(serde_json::to_string(&request.include).unwrap(), r#"["uris","uris"]"#);
}

#[test]
fn a_query_says_what_to_read_and_what_to_show() {
    let request =
        query(None, br#"{"query_embeddings":[[1,2],[3,4]],"n_results":null,"ids":[]}"#).expect("a sound query");
    let vectors = vec![vec![1.0, 2.0], vec![3.0, 4.0]];
    let include = Include { documents: true, metadatas: true, ..Include::default() };
    let read = Read::Query { vectors, n_results: 10, ids: Some(vec![]), filter: None, include };
    assert_eq!((&request.read, request.include.has(Field::Distances)), (&read, true));
}

#[test]
fn reads_are_refused_as_chroma_refuses_them() {
    let status = |result: Result<ReadRequest, ApiError>| result.map_err(|error| error.status.as_u16());
    for body in [
        r#"{"limit":-1}"#,
        r#"{"limit":1.5}"#,
        r#"{"offset":-1}"#,
        r#"{"limit":4294967296}"#,
        r#"{"include":null}"#,
        r#"{"include":["data"]}"#,
        r#"{"include":"documents"}"#,
        r#"{"ids":3}"#,
    ] {
        assert_eq!(status(get(None, body.as_bytes())), Err(422), "{body}");
    }
    for body in [
        r#"{}"#,
        r#"{"query_embeddings":null}"#,
        r#"{"query_embeddings":["AAAA"]}"#,
        r#"{"query_embeddings":[null]}"#,
        r#"{"query_embeddings":[1]}"#,
        r#"{"query_embeddings":[[null]]}"#,
        r#"{"query_embeddings":[[1]],"n_results":-1}"#,
        r#"{"query_embeddings":[[1]],"n_results":1.0}"#,
        r#"{"query_embeddings":[[1]],"include":["zz"]}"#,
    ] {
        assert_eq!(status(query(None, body.as_bytes())), Err(422), "{body}");
    }
    for body in [
        r#"{"query_embeddings":[[1],[1,2]]}"#,
        r#"{"query_embeddings":[[1e39]]}"#,
        r#"{"query_embeddings":[[NaN]]}"#,
        r#"{"query_embeddings":[[1]],"where":{}}"#,
    ] {
        assert_eq!(status(query(None, body.as_bytes())), Err(400), "{body}");
    }
    assert_eq!(status(get(None, br#"{"where_document":{}}"#)), Err(400));
}

fn row(dimension: Option<u32>) -> CollectionRow {
    CollectionRow {
        id: CollectionId::from_u128(1),
        name: "name".into(),
        tenant: "tenant".into(),
        database: "database".into(),
        metadata: None,
        configuration: Configuration::default(),
        schema: schema::default_schema(&Configuration::default()),
        dimension,
        generation: 0,
        manifest: Manifest::default(),
        gc_floor: Lsn::ZERO,
        gc_epoch: 0,
    }
}

#[test]
fn reads_are_checked_against_the_row() {
    let message = |body: &str, dimension| {
        let request = query(None, body.as_bytes()).expect("a sound query");
        request.check(&row(dimension)).map_err(|error| error.message)
    };
    assert_eq!(message(r#"{"query_embeddings":[[1,2]]}"#, Some(2)), Ok(()));
    assert_eq!(message(r#"{"query_embeddings":[[1,2]]}"#, None), Ok(()));
    assert_eq!(message(r#"{"query_embeddings":[]}"#, Some(2)), Ok(()));
    let expect = Err("Collection expecting embedding with dimension of 2, got 0".into());
    assert_eq!(message(r#"{"query_embeddings":[[]]}"#, Some(2)), expect);
    let request = get(None, br##"{"where":{"#document":"x"}}"##).expect("a sound get");
    let error = request.check(&row(None)).expect_err("the document has no string index");
    assert_eq!(
        error.message,
        "Cannot filter using metadata key '#document' with type 'Str' because indexing is disabled"
    );
    let request = get(None, br#"{"where_document":{"$contains":"x"}}"#).expect("a sound get");
    assert_eq!(request.read.filter(), Some(&Filter::Document(DocumentTest::Contains("x".into()))));
    assert_eq!(request.check(&row(None)), Ok(()));
}
