//! The data is the user's: fragments are Arrow streams and rows Arrow files, which any Arrow implementation opens.

use std::fs;
use std::path::Path;

use catalog::Maintenance;
use model::CollectionId;
use serde_json::json;
use stack::Stack;
use storage::ObjectStore;

use crate::harness::{Api, Bucket, aws_store, libsql_catalog, own_stack_with, python, run_compactor, tokio_runtime};

#[test]
fn pyarrow_reads_from_the_bucket_what_the_api_returns() {
    let stack = own_stack_with("open-data", |config| config.compaction = None);
    let api = Api::new(stack.gateway_url());
    let collection = api.fresh_collection();
    let write = |verb: &str, body| api.post(&collection.verb(verb), &body);
    write(
        "add",
        json!({
            "ids": ["a", "b", "ä", "gone"],
            "embeddings": [[0.1, -2.5, 1e-30], [1, 2, 3], [4, 5, 6], [7, 8, 9]],
            "documents": ["first", null, "日本語", ""],
            "uris": [null, "file:///b", null, null],
            "metadatas": [{ "i": 1, "f": 1.0, "yes": true, "list": ["x", "y"] }, null, { "big": i64::MIN }, null],
        }),
    )
    .expect(201);
    write("add", json!({ "ids": ["a"], "embeddings": [[9, 9, 9]], "documents": ["ignored"] })).expect(201);
    write("update", json!({ "ids": ["a", "nobody"], "metadatas": [{ "i": null, "f": 2.5 }, { "x": 1 }] })).expect(200);
    write("upsert", json!({ "ids": ["b", "new"], "embeddings": [[3, 2, 1], [0, 0, 0]], "documents": ["now", null] }))
        .expect(200);
    write("delete", json!({ "ids": ["gone"] })).expect(200);

    let everything = json!({ "include": ["embeddings", "documents", "metadatas", "uris"] });
    let answer = write("get", everything).expect(200);
    let folder = stack.data().join("downloaded");
    fs::create_dir_all(folder.join("log")).unwrap();
    fs::create_dir(folder.join("rows")).unwrap();
    fs::write(folder.join("answer.json"), &answer.body).unwrap();
    let fragments = Bucket::of(&stack).fragments(&collection.id);
    assert_eq!(fragments.len(), 5, "one fragment a write");
    for (lsn, fragment) in fragments.iter().enumerate() {
        fs::write(folder.join(format!("log/{lsn:016x}")), fragment).unwrap();
    }
    run_compactor(&stack, &["compact", &collection.id]);
    tokio_runtime().block_on(download_rows(&stack, &collection.id, &folder.join("rows")));
    python("open_data.py", &stack.gateway_url(), &[&folder, Path::new(&collection.id)]);
}

/// Writes the objects that hold the rows of the only segment into `folder`.
async fn download_rows(stack: &Stack, collection: &str, folder: &Path) {
    let (store, catalog) = (aws_store(stack).await, libsql_catalog(stack).await);
    let manifest = catalog.upkeep(CollectionId::parse(collection).unwrap()).await.unwrap().manifest;
    let [segment] = &manifest.segments[..] else { panic!("not one segment: {manifest:?}") };
    let keys = store.list(&format!("{}/", segment.prefix), None).await.unwrap();
    for key in keys.iter().filter(|key| key.ends_with(".arrow")) {
        let body = store.get(key).await.unwrap().expect("what is listed is there");
        fs::write(folder.join(key.rsplit('/').next().unwrap()), body).unwrap();
    }
}
