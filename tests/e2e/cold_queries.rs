//! Four queries at once on an executor that knows nothing yet, of a collection that is many times as large as an isolate's
//! memory. The executor is linked with that memory and cannot have more: what does not fit ends it, and its queries.

use std::fs;
use std::sync::Barrier;
use std::time::Instant;

use catalog::Catalog;
use model::limits::WORKER_MEMORY_BYTES;
use model::{CollectionId, IndexRef};
use serde_json::{Value, json};
use stack::{Part, Programs, Stack};

use crate::harness::{Api, Collection, libsql_catalog, own_stack_with, run_compactor, tokio_runtime};

const DIMENSION: usize = 384;
const RECORDS: usize = 40_000;
const CLUSTERS: usize = 500;
/// Records of the log, which are written again after the compaction.
const REWRITTEN: usize = 500;
const QUERIES: usize = 4;

/// A vector near one of some centres, of small whole numbers: their distances are exact.
fn vector(number: usize) -> Vec<i32> {
    let mixed = |seed: usize, at: usize| {
        let mixed = (seed * 0x9e37_79b9 + at * 0x85eb_ca6b).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        i32::try_from(mixed >> 40 & 0xf).unwrap()
    };
    (0..DIMENSION).map(|at| 2 * mixed(number % CLUSTERS, at) + mixed(number + CLUSTERS, at)).collect()
}

fn document(number: usize) -> String {
    format!("document {number} ").repeat(30)
}

/// Writes records with these ids, with the vectors of their numbers.
fn write(api: &Api, collection: &Collection, records: &[(usize, usize)]) {
    for some in records.chunks(1_000) {
        let vectors: Vec<Vec<i32>> = some.iter().map(|(_, number)| vector(*number)).collect();
        let documents: Vec<String> = some.iter().map(|(_, number)| document(*number)).collect();
        let ids: Vec<String> = some.iter().map(|(id, _)| id.to_string()).collect();
        let metadatas: Vec<Value> = some.iter().map(|(_, number)| json!({ "rest": number % 7 })).collect();
        let body = json!({ "ids": ids, "embeddings": vectors, "documents": documents, "metadatas": metadatas });
        let reply = api.post(&collection.verb("upsert"), &body);
        assert!(matches!(reply.status, 200 | 201), "{reply:?}");
    }
}

/// The leaf index of the collection's only segment.
fn leaf_index(stack: &Stack, collection: &Collection) -> Option<IndexRef> {
    let id = CollectionId::parse(&collection.id).unwrap();
    let row = tokio_runtime().block_on(async { libsql_catalog(stack).await.get_collection_by_id(id).await });
    let segments = row.unwrap().manifest.segments;
    assert_eq!(segments.len(), 1);
    segments[0].index
}

fn distance(a: &[i32], b: &[i32]) -> i32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// Records by id, as the test knows them: the numbers that their vectors are made of.
type Plain = Vec<usize>;

/// What queries ask for: so many of the nearest, with these fields, of the records that pass a filter.
struct Asked {
    k: usize,
    include: Value,
    filter: Value,
    passes: fn(usize) -> bool,
}

/// Asks for the nearest to a vector; returns how many of them were found. All must be as far as is said.
fn ask(api: &Api, collection: &Collection, plain: &Plain, query: usize, asked: &Asked) -> usize {
    let (query, k) = (vector(query), asked.k);
    let mut body = json!({ "query_embeddings": [query], "n_results": k, "include": asked.include });
    body.as_object_mut().unwrap().extend(asked.filter.as_object().unwrap().clone());
    let answer = api.post(&collection.verb("query"), &body).expect(200).json();
    let (ids, told) = (answer["ids"][0].as_array().unwrap(), answer["distances"][0].as_array().unwrap());
    let told: Vec<i32> = told.iter().map(|told| format!("{}", told.as_f64().unwrap()).parse().unwrap()).collect();
    assert!(told.is_sorted() && told.len() == k && ids.len() == k);
    for (at, (id, told)) in ids.iter().zip(&told).enumerate() {
        let number = plain[id.as_str().unwrap().parse::<usize>().unwrap()];
        assert_eq!(distance(&query, &vector(number)), *told, "{id}");
        assert!((asked.passes)(number), "{id} does not satisfy {}", asked.filter);
        assert_eq!(answer["documents"][0][at], document(number));
    }
    let among = plain.iter().filter(|number| (asked.passes)(**number));
    let mut all: Vec<i32> = among.map(|number| distance(&query, &vector(*number))).collect();
    let farthest = *all.select_nth_unstable(k - 1).1;
    told.iter().filter(|told| **told <= farthest).count()
}

/// Most memory that a Worker's module lets itself have, in bytes.
fn memory_max(worker: &str) -> usize {
    let path = Programs::from_env().unwrap().workers.join(worker).join("index_bg.wasm");
    let module = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // Magic and version, then sections: kind, length, body.
    let mut rest = &module[8..];
    while let Some((kind, behind)) = rest.split_first() {
        rest = behind;
        let length = leb128(&mut rest);
        let (mut body, behind) = rest.split_at(length);
        rest = behind;
        if *kind == 5 {
            // One memory, with a maximum: both in pages of 64 KiB.
            let [one, has_maximum, _least, most] = std::array::from_fn(|_| leb128(&mut body));
            assert_eq!((one, has_maximum), (1, 1), "{worker} may have any memory");
            return most << 16;
        }
    }
    panic!("{worker} has no memory of its own");
}

fn leb128(bytes: &mut &[u8]) -> usize {
    let length = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let (number, rest) = bytes.split_at(length);
    *bytes = rest;
    number.iter().rev().fold(0, |number, byte| number << 7 | usize::from(byte & 0x7f))
}

#[test]
fn four_cold_queries_at_once_fit_into_an_isolate() {
    assert_eq!(memory_max("executor"), WORKER_MEMORY_BYTES);
    let mut stack = own_stack_with("cold-queries", |config| {
        config.compaction = None;
        // There is nobody else to ask.
        config.executors = 1;
    });
    let api = Api::new(stack.gateway_url());
    let collection = api.fresh_collection();
    let mut plain: Plain = (0..RECORDS).collect();
    let began = Instant::now();
    write(&api, &collection, &plain.iter().copied().enumerate().collect::<Vec<_>>());
    println!("written in {:?}", began.elapsed());
    run_compactor(&stack, &["compact", &collection.id]);
    println!("compacted in {:?}", began.elapsed());
    assert!(leaf_index(&stack, &collection).is_some());
    let rewritten: Vec<(usize, usize)> = (0..REWRITTEN).map(|n| (n * 7, RECORDS + n)).collect();
    write(&api, &collection, &rewritten);
    rewritten.iter().for_each(|(id, number)| plain[*id] = *number);

    let (few, all) = (json!(["distances", "documents"]), json!(["distances", "documents", "embeddings"]));
    let conjunction = json!({ "where": { "rest": 3 }, "where_document": { "$contains": "document 1" } });
    for asked in [
        Asked { k: 10, include: few.clone(), filter: json!({}), passes: |_| true },
        Asked { k: 100, include: all, filter: json!({}), passes: |_| true },
        Asked {
            k: 10,
            include: few.clone(),
            filter: json!({ "where": { "rest": { "$gt": 2 } } }),
            passes: |n| n % 7 > 2,
        },
        Asked { k: 10, include: few, filter: conjunction, passes: |n| n % 7 == 3 && n.to_string().starts_with('1') },
    ] {
        let k = asked.k;
        stack.restart(Part::Workers).unwrap();
        let (url, together) = (stack.gateway_url(), Barrier::new(QUERIES));
        let query = |number: usize| {
            let api = Api::new(&*url);
            together.wait();
            ask(&api, &collection, &plain, 1_000_000 + number * 123, &asked)
        };
        let found: usize = std::thread::scope(|scope| {
            let all: Vec<_> = (0..QUERIES).map(|number| scope.spawn(move || query(number))).collect();
            all.into_iter().map(|one| one.join().unwrap()).sum()
        });
        println!("{k} nearest by {}: {found} of {} found", asked.filter, k * QUERIES);
        assert!(found * 10 >= k * QUERIES * 9, "{found} of {}", k * QUERIES);
    }
}
