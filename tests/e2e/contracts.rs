//! The contracts of the ports, on the real services: by the native adapters, and by the Workers' inside workerd.

use runtime::NativeRuntime;
use serde_json::Value;
use stack::Stack;
use storage::ObjectStore;

use crate::harness::{Api, aws_store, libsql_catalog, own_stack, own_stack_with, tokio_runtime};

/// Fails naming every promise that was broken.
#[track_caller]
fn all_kept(outcomes: &[(&'static str, Result<(), String>)]) {
    let broken: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).collect();
    assert!(!outcomes.is_empty() && broken.is_empty(), "broken: {broken:#?}");
}

fn store_config(stack: &Stack) -> storage::S3Config {
    storage::S3Config {
        endpoint: stack.store_url(),
        bucket: stack::BUCKET.to_owned(),
        region: stack::REGION.to_owned(),
        access_key_id: stack::ACCESS_KEY_ID.to_owned(),
        secret_access_key: stack::SECRET_ACCESS_KEY.to_owned(),
        session_token: None,
    }
}

#[test]
fn devstore_keeps_the_store_contract() {
    let stack = own_stack("store-contract");
    let runtime = NativeRuntime::new();
    let store = storage::S3Store::new(store_config(&stack), runtime.clone()).unwrap();
    all_kept(&tokio_runtime().block_on(storage::contract::run(&store, &runtime, "contract/")));
}

#[test]
fn devstore_keeps_the_store_contract_by_the_aws_sdk() {
    let stack = own_stack("sdk-contract");
    let runtime = NativeRuntime::new();
    tokio_runtime().block_on(async {
        let store = aws_store(&stack).await;
        all_kept(&storage::contract::run(&store, &runtime, "contract/").await);
        let report = storage::races(&store, "races/", 100, 4).await.unwrap();
        assert_eq!(report, storage::RaceReport { won: 100, ..Default::default() });
    });
}

#[test]
fn devstore_has_one_winner_in_each_race() {
    let stack = own_stack("races");
    let store = storage::S3Store::new(store_config(&stack), NativeRuntime::new()).unwrap();
    let report = tokio_runtime().block_on(storage::races(&store, "races/", 300, 4)).unwrap();
    assert_eq!(report, storage::RaceReport { won: 300, ..Default::default() });
    assert_eq!(tokio_runtime().block_on(store.list("races/", None)), Ok(vec![]));
}

#[test]
fn sqld_keeps_the_catalog_contract() {
    let stack = own_stack("catalog-contract");
    let runtime = NativeRuntime::new();
    let config = catalog::HranaConfig { url: stack.catalog_url(), token: None };
    let catalog = catalog::HranaCatalog::new(config, runtime.clone()).unwrap();
    all_kept(&tokio_runtime().block_on(catalog::contract::run(&catalog, &runtime)));
}

#[test]
fn sqld_keeps_the_catalog_contract_through_libsql() {
    let stack = own_stack("catalog-contract-libsql");
    let runtime = NativeRuntime::new();
    let outcomes = async {
        let catalog = libsql_catalog(&stack).await;
        catalog::contract::run(&catalog, &runtime).await
    };
    all_kept(&tokio_runtime().block_on(outcomes));
}

#[test]
fn the_contracts_are_kept_inside_workerd() {
    let stack = own_stack_with("contract-worker", |config| config.contract_worker = true);
    let worker = Api::new(stack.contract_url().expect("the stack serves the contract Worker"));
    for contract in ["/runtime", "/storage", "/races", "/catalog", "/kernels"] {
        is_kept_inside(&worker, contract);
    }
}

/// Asks a contract Worker; fails naming every promise that was broken.
#[track_caller]
pub(crate) fn is_kept_inside(worker: &Api, contract: &str) {
    let report = worker.get(contract);
    let outcomes = report.json();
    let outcomes = outcomes.as_object().unwrap_or_else(|| panic!("{contract}: {report:?}"));
    let broken: Vec<(&String, &Value)> = outcomes.iter().filter(|(_, outcome)| *outcome != "ok").collect();
    assert!(broken.is_empty(), "{contract}: {broken:#?}");
    assert!(report.status == 200 && !outcomes.is_empty(), "{contract}: {report:?}");
}
