//! Which configuration and schema a create request gets. Expectations are answers of Chroma's single-node server.

use super::*;
use serde_json::json;

fn created(request: Value) -> Result<(Configuration, Value), String> {
    let member = |name: &str| request.get(name).cloned();
    let told = |error: ApiError| format!("{} {}", error.status.as_u16(), error.message);
    let configuration =
        member("configuration").map(|value| serde_json::from_value(value).map_err(|e| format!("422 {e}")));
    let schema: Option<SchemaRequest> =
        member("schema").map(|value| serde_json::from_value(value).map_err(|e| format!("422 {e}"))).transpose()?;
    schema.as_ref().map_or(Ok(()), SchemaRequest::check)?;
    let metadata: Option<Metadata> = member("metadata").map(|value| serde_json::from_value(value).expect("metadata"));
    create(configuration.transpose()?, metadata.as_ref(), schema).map_err(told)
}

/// `expect` changes the default configuration. The schema must hold the same parameters.
#[track_caller]
fn check(request: Value, expect: impl Fn(&mut Configuration)) {
    let mut wanted = Configuration::default();
    expect(&mut wanted);
    let (configuration, schema) = created(request.clone()).expect("a sound request");
    assert_eq!(configuration, wanted, "{request}");
    assert_eq!(schema::configuration_of(&schema), wanted, "{request}");
}

#[track_caller]
fn refuses(request: Value, expect: &str) {
    let error = created(request.clone()).expect_err("a request that is refused");
    assert!(error.starts_with(expect), "{request}: {error}");
}

fn schema_without_int_index() -> Value {
    json!({"defaults": {"int": {"int_inverted_index": {"enabled": false, "config": {}}}}, "keys": {}})
}

#[test]
fn absent_null_and_empty_are_the_default() {
    for configuration in
        [json!({}), json!({"hnsw": null}), json!({"hnsw": {"space": null}}), json!({"other": 1}), json!({"spann": {}})]
    {
        check(json!({ "configuration": configuration }), |_| {});
    }
    check(json!({}), |_| {});
}

#[test]
fn hnsw_parameters_are_kept() {
    let hnsw = json!({"space": "ip", "ef_construction": 1, "ef_search": 0, "max_neighbors": 3, "num_threads": 4,
        "resize_factor": 2, "sync_threshold": 5, "batch_size": 6});
    check(json!({"configuration": {"hnsw": hnsw}}), |configuration| {
        *configuration = Configuration {
            space: Space::Ip,
            ef_construction: 1,
            ef_search: 0,
            max_neighbors: 3,
            num_threads: 4,
            resize_factor: 2.0,
            sync_threshold: 5,
            batch_size: 6,
            embedding_function: None,
        }
    });
}

#[test]
fn spann_contributes_its_space_only() {
    let spann = json!({"space": "cosine", "search_nprobe": 1000, "ef_search": 7});
    check(json!({"configuration": {"spann": spann}}), |configuration| configuration.space = Space::Cosine);
}

#[test]
fn embedding_functions_are_stored_without_members_nobody_knows() {
    let functions = [
        (json!({"type": "legacy"}), json!({"type": "legacy"})),
        (json!({"type": "unknown", "x": 1}), json!({"type": "unknown"})),
        (
            json!({"type": "known", "name": "n", "config": {"a": [1]}, "x": 1}),
            json!({"type": "known", "name": "n", "config": {"a": [1]}}),
        ),
        (json!({"type": "known", "name": "n", "config": null}), json!({"type": "known", "name": "n", "config": null})),
    ];
    for (sent, stored) in functions {
        check(json!({"configuration": {"embedding_function": sent}}), |configuration| {
            configuration.embedding_function = Some(stored.clone());
        });
    }
}

#[test]
fn misshapen_configurations_are_422() {
    refuses(json!({"configuration": {"hnsw": {"zzz": 1}}}), "422 unknown field `zzz`");
    refuses(json!({"configuration": {"spann": {"zzz": 1}}}), "422 unknown field `zzz`");
    let space = "422 unknown variant `zzz`, expected one of `l2`, `cosine`, `ip`";
    refuses(json!({"configuration": {"hnsw": {"space": "zzz"}}}), space);
    refuses(json!({"configuration": {"hnsw": {"ef_search": -1}}}), "422 ");
    refuses(json!({"configuration": {"hnsw": {"ef_search": 1.5}}}), "422 ");
    refuses(json!({"configuration": 3}), "422 ");
    for function in [json!({}), json!(3), json!({"type": "zzz"}), json!({"type": "known"})] {
        refuses(json!({"configuration": {"embedding_function": function}}), "422 ");
    }
    refuses(json!({"configuration": {"hnsw": {}, "spann": {}}}), "400 Multiple vector index configurations provided");
}

#[test]
fn legacy_metadata_counts_where_the_configuration_is_the_default() {
    let cosine = |configuration: &mut Configuration| configuration.space = Space::Cosine;
    let metadata = json!({"hnsw:space": "cosine", "other": 1});
    check(json!({"metadata": metadata}), cosine);
    check(json!({"metadata": metadata, "configuration": {"hnsw": {"space": "l2"}}}), cosine);
    check(json!({"metadata": metadata, "configuration": {"hnsw": {"space": "ip"}}}), |c| c.space = Space::Ip);
    check(json!({"metadata": metadata, "configuration": {"spann": {}}}), |_| {});
    check(json!({"metadata": {"hnsw:space": "bad"}, "configuration": {"spann": {}}}), |_| {});
    check(json!({"metadata": metadata, "schema": {"defaults": {}, "keys": {}}}), cosine);
    let all = json!({"hnsw:construction_ef": 10, "hnsw:search_ef": 11, "hnsw:M": 12, "hnsw:num_threads": 3,
        "hnsw:resize_factor": 2, "hnsw:sync_threshold": 50, "hnsw:batch_size": 20});
    check(json!({"metadata": all}), |configuration| {
        *configuration = Configuration {
            space: Space::L2,
            ef_construction: 10,
            ef_search: 11,
            max_neighbors: 12,
            num_threads: 3,
            resize_factor: 2.0,
            sync_threshold: 50,
            batch_size: 20,
            embedding_function: None,
        }
    });
}

#[test]
fn bad_legacy_metadata_is_refused() {
    for metadata in [
        json!({"hnsw:space": "zzz"}),
        json!({"hnsw:space": 1}),
        json!({"hnsw:search_ef": -1}),
        json!({"hnsw:search_ef": 1.5}),
        json!({"hnsw:search_ef": "x"}),
        json!({"hnsw:zzz": 1}),
        json!({"hnsw:sync_threshold": 1}),
        json!({"hnsw:batch_size": 1}),
    ] {
        let expect = "400 Failed to parse hnsw parameters from segment metadata";
        refuses(json!({"metadata": metadata}), expect);
        refuses(json!({"metadata": metadata, "configuration": {"hnsw": {"space": "ip"}}}), expect);
    }
}

#[test]
fn schema_and_configuration_exclude_each_other_unless_one_is_the_default() {
    let both = "400 Failed to reconcile schema: Cannot set both collection config and schema simultaneously";
    let schema = schema_without_int_index();
    let known = |name: &str| json!({"type": "known", "name": name, "config": {}});
    refuses(json!({"schema": schema, "configuration": {"hnsw": {"space": "ip"}}}), both);
    refuses(json!({"schema": schema, "configuration": {"hnsw": {"num_threads": 7}}}), both);
    refuses(json!({"schema": schema, "configuration": {"embedding_function": known("openai")}}), both);
    refuses(json!({"schema": schema, "configuration": {"embedding_function": {"type": "legacy"}}}), both);
    refuses(json!({"schema": schema, "metadata": {"hnsw:space": "ip"}}), both);
    for configuration in [
        json!({"hnsw": {"space": "l2"}, "spann": null, "embedding_function": known("default")}),
        json!({"embedding_function": {"type": "unknown"}}),
        json!({"spann": {}}),
    ] {
        check(json!({"schema": schema, "configuration": configuration}), |_| {});
    }
    let explicit_default =
        json!({"defaults": {"int": {"int_inverted_index": {"enabled": true, "config": {}}}}, "keys": {}});
    for schema in [json!({"defaults": {}, "keys": {}}), explicit_default] {
        check(json!({"schema": schema, "configuration": {"hnsw": {"space": "ip"}}}), |c| c.space = Space::Ip);
    }
}

#[test]
fn a_schema_gives_the_configuration() {
    let config = json!({"space": "cosine", "hnsw": {"ef_search": 9}, "embedding_function": {"type": "known", "name": "default", "config": {}}});
    let keys = json!({"#embedding": {"float_list": {"vector_index": {"enabled": true, "config": config}}}});
    check(json!({"schema": {"defaults": {}, "keys": keys}}), |configuration| {
        configuration.space = Space::Cosine;
        configuration.ef_search = 9;
        configuration.embedding_function = Some(json!({"type": "known", "name": "default", "config": {}}));
    });
    let defaults = json!({"float_list": {"vector_index": {"enabled": false, "config": {"space": "ip"}}}});
    check(json!({"schema": {"defaults": defaults, "keys": {}}}), |_| {});
}

#[test]
fn updates_change_what_may_change_in_all_copies() {
    let (mut configuration, mut schema) = created(json!({"configuration": {"hnsw": {"space": "ip"}}})).expect("sound");
    let update = json!({"hnsw": {"ef_search": 3, "num_threads": 5, "batch_size": 7, "resize_factor": 1.5, "max_neighbors": null},
        "embedding_function": {"type": "known", "name": "n", "config": {}}, "other": 1});
    let update: ConfigurationUpdate = serde_json::from_value(update).expect("a sound update");
    assert_eq!(update.check(), Ok(()));
    update.apply(&mut configuration, &mut schema);
    let expect = Configuration {
        space: Space::Ip,
        ef_search: 3,
        num_threads: 5,
        batch_size: 7,
        resize_factor: 1.5,
        embedding_function: Some(json!({"type": "known", "name": "n", "config": {}})),
        ..Configuration::default()
    };
    assert_eq!(configuration, expect);
    assert_eq!(schema, schema::default_schema(&expect));
}

#[test]
fn updates_that_change_nothing_and_updates_that_are_refused() {
    let read = |value: Value| serde_json::from_value::<ConfigurationUpdate>(value);
    for update in [
        json!({}),
        json!({"spann": {"search_nprobe": 3, "ef_search": 4}}),
        json!({"hnsw": null, "embedding_function": null}),
        json!({"hnsw": {}}),
    ] {
        let (mut configuration, mut schema) =
            (Configuration::default(), schema::default_schema(&Configuration::default()));
        read(update).expect("a sound update").apply(&mut configuration, &mut schema);
        assert_eq!(configuration, Configuration::default());
        assert_eq!(schema, schema::default_schema(&configuration));
    }
    for update in [
        json!({"hnsw": {"space": "ip"}}),
        json!({"hnsw": {"ef_construction": 3}}),
        json!({"spann": {"write_nprobe": 3}}),
        json!({"spann": {"search_nprobe": "x"}}),
        json!({"embedding_function": {"type": "x"}}),
        json!(3),
    ] {
        assert!(read(update.clone()).is_err(), "{update}");
    }
    let both = read(json!({"hnsw": {}, "spann": {}})).expect("the right shape");
    assert_eq!(both.check(), Err(two_blocks()));
}
