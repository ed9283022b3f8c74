//! Nearest neighbours in a collection that is large enough for a leaf index: what is found is near, exactly as far as it says,
//! and never fewer than there are; whatever was changed, deleted and written since.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use stack::{Part, Stack};

use crate::harness::{Api, Collection, own_stack_with, run_compactor};

const DIMENSION: usize = 512;
/// Codes of so many rows are more than one object.
const RECORDS: usize = 8_400;
const CLUSTERS: usize = 60;
const K: usize = 10;

/// Records by id, as the test knows them.
type Plain = BTreeMap<String, Vec<i32>>;

/// Some vector near one of a few centres, of small whole numbers.
fn vector(number: usize) -> Vec<i32> {
    let mixed = |seed: usize, at: usize| {
        let mixed = (seed * 0x9e37_79b9 + at * 0x85eb_ca6b).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        i32::try_from(mixed >> 40 & 0xf).unwrap()
    };
    (0..DIMENSION).map(|at| 2 * mixed(number % CLUSTERS, at) + mixed(number + CLUSTERS, at)).collect()
}

struct World {
    stack: Stack,
    api: Api,
    collection: Collection,
    plain: Plain,
}

impl World {
    fn write(&mut self, verb: &str, records: &[(usize, usize)]) {
        for some in records.chunks(300) {
            let ids: Vec<String> = some.iter().map(|(id, _)| format!("r{id}")).collect();
            let vectors: Vec<Vec<i32>> = some.iter().map(|(_, number)| vector(*number)).collect();
            let metadatas: Vec<Value> = some.iter().map(|(id, _)| json!({ "n": id, "kind": id % 100 })).collect();
            let body = json!({ "ids": ids, "embeddings": vectors, "documents": ids, "metadatas": metadatas });
            let status = if verb == "update" { 200 } else { 201 };
            let reply = self.api.post(&self.collection.verb(verb), &body);
            assert!(reply.status == status || reply.status == 200, "{reply:?}");
            self.plain.extend(ids.into_iter().zip(vectors));
        }
    }

    fn delete(&mut self, ids: impl Iterator<Item = usize>) {
        let ids: Vec<String> = ids.map(|id| format!("r{id}")).collect();
        self.api.post(&self.collection.verb("delete"), &json!({ "ids": ids })).expect(200);
        ids.iter().for_each(|id| drop(self.plain.remove(id)));
    }

    fn compact(&self) {
        run_compactor(&self.stack, &["compact", &self.collection.id]);
        run_compactor(&self.stack, &["verify", &self.collection.id]);
    }

    /// Which share of the nearest is found; all that is found must be as far as it says.
    fn recall(&self, k: usize) -> f64 {
        const QUERIES: usize = 20;
        let hits = (0..QUERIES).map(|n| self.hits(&vector(1_000_000 + n * 37), k)).sum::<usize>();
        hits as f64 / (QUERIES * k.min(self.plain.len())) as f64
    }

    /// What a query asks of the store: of an isolate that knows nothing, then of one that has answered it before.
    fn explains_itself(&mut self) {
        self.stack.restart(Part::Workers).unwrap();
        // Connections to the Workers before are gone.
        self.api = Api::new(self.stack.gateway_url());
        let near = |number: usize| json!({ "query_embeddings": [vector(number)], "n_results": K });
        let (body, other) = (near(3_000_000), near(4_000_000));
        let path = self.collection.verb("query?explain=true");
        let ask = |path: &str, body: &Value| {
            let reply = self.api.post(path, body).expect(200);
            assert!(reply.header("server-timing").starts_with("catalog;dur="), "{reply:?}");
            reply.json()
        };
        let (cold, warm) = (ask(&path, &body), ask(&path, &body));
        let index_only = ask(&format!("{path}&read_level=index_only"), &body);
        let other = ask(&path, &other);
        let reads = |answer: &Value| answer["explain"]["reads"].as_array().unwrap().len();
        let number = |answer: &Value, name: &str| answer["explain"][name].as_u64().unwrap();
        assert!(number(&cold, "waves") <= 3 && reads(&cold) <= 20, "{}", cold["explain"]);
        assert!((1..=96 << 20).contains(&number(&cold, "memory_bytes")), "{}", cold["explain"]);
        assert!(number(&cold, "leaves") > 0 && number(&cold, "estimated") > number(&cold, "measured"));
        // The end of the log is all that a warm strong read must look at.
        assert_eq!((reads(&warm), number(&warm, "bytes")), (1, 0), "{}", warm["explain"]);
        assert_eq!(reads(&index_only), 0, "{}", index_only["explain"]);
        // The end of the log is looked at beside leaves, where heads are known and nothing was written of late.
        let of_first_wave = other["explain"]["reads"].as_array().unwrap().iter().filter(|read| read["wave"] == 1);
        assert!(of_first_wave.count() > 1 && number(&other, "waves") <= 2, "{}", other["explain"]);
        for counted in ["leaves", "estimated", "measured"] {
            assert_eq!(number(&warm, counted), number(&cold, counted), "{counted}");
        }
        assert!(number(&warm, "kept") > number(&cold, "kept"));
        assert_eq!((&warm["ids"], &index_only["ids"]), (&cold["ids"], &cold["ids"]));
        assert!(self.api.post(&self.collection.verb("query"), &body).expect(200).json().get("explain").is_none());
    }

    /// The same with filters, all of them asked by an isolate that knows nothing: few dependent reads, exactly the rows that
    /// there are by `get`, and the nearest of them by `query`.
    fn filters(&mut self) {
        type Test = fn(usize) -> bool;
        let filters: [(Value, u64, Test); 6] = [
            (json!({ "where": { "kind": 7 } }), 4, |id| id % 100 == 7),
            (json!({ "where": { "n": { "$lt": 4_000 } } }), 4, |id| id < 4_000),
            (json!({ "where": { "$and": [{ "kind": { "$gte": 50 } }, { "n": { "$gt": 2_000 } }] } }), 4, |id| {
                id % 100 >= 50 && id > 2_000
            }),
            (json!({ "where": { "n": 77 } }), 4, |id| id == 77),
            // A dictionary comes before what it names.
            (json!({ "where_document": { "$contains": "r12" } }), 5, |id| format!("r{id}").starts_with("r12")),
            (json!({ "where": { "kind": { "$ne": 3 } }, "where_document": { "$regex": "^r[12]..7$" } }), 5, |id| {
                (1_000..3_000).contains(&id) && id % 10 == 7
            }),
        ];
        for (filter, waves_max, test) in filters {
            let holds = |id: &str| test(id[1..].parse().unwrap());
            let among: Vec<(&String, &Vec<i32>)> = self.plain.iter().filter(|(id, _)| holds(id)).collect();
            let ask = |world: &World, verb: &str, mut body: Value| {
                body.as_object_mut().unwrap().extend(filter.as_object().unwrap().clone());
                let answer = world.api.post(&world.collection.verb(&format!("{verb}?explain=true")), &body);
                answer.expect(200).json()
            };
            let waves = |answer: &Value| answer["explain"]["waves"].as_u64().unwrap();
            self.stack.restart(Part::Workers).unwrap();
            self.api = Api::new(self.stack.gateway_url());
            let page = ask(self, "get", json!({ "limit": 20, "include": [] }));
            assert!(waves(&page) <= waves_max, "{filter}: {}", page["explain"]);
            assert_eq!(strings(&page["ids"]).len(), among.len().min(20));
            let all = ask(self, "get", json!({ "include": [] }));
            let mut ids = strings(&all["ids"]);
            assert_eq!(ids[..ids.len().min(20)], strings(&page["ids"]));
            ids.sort_unstable();
            assert_eq!(ids, among.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), "{filter}");

            self.stack.restart(Part::Workers).unwrap();
            self.api = Api::new(self.stack.gateway_url());
            let query = vector(3_000_000);
            let body = json!({ "query_embeddings": [query], "n_results": K, "include": ["distances"] });
            let cold = ask(self, "query", body.clone());
            assert!(waves(&cold) <= waves_max, "{filter}: {}", cold["explain"]);
            let mut nearest: Vec<f64> = among.iter().map(|(_, row)| distance(&query, row)).collect();
            nearest.sort_unstable_by(f64::total_cmp);
            nearest.truncate(K);
            let found: Vec<f64> =
                cold["distances"][0].as_array().unwrap().iter().map(|told| told.as_f64().unwrap()).collect();
            assert_eq!(found.len(), nearest.len(), "{filter}");
            assert!(strings(&cold["ids"][0]).into_iter().all(holds), "{filter}");
            let farthest = nearest.last().copied().unwrap_or_default();
            assert!(found.iter().filter(|told| **told > farthest).count() <= 1, "{filter}: {found:?} of {nearest:?}");
            // The end of the log is all that a warm strong read must look at.
            assert_eq!(ask(self, "query", body)["explain"]["reads"].as_array().unwrap().len(), 1, "{filter}");
        }
    }

    fn hits(&self, query: &[i32], k: usize) -> usize {
        let include = json!(["distances", "documents"]);
        let body = json!({ "query_embeddings": [query], "n_results": k, "include": include });
        let answer = self.api.post(&self.collection.verb("query"), &body).expect(200).json();
        let mut all: Vec<f64> = self.plain.values().map(|row| distance(query, row)).collect();
        all.sort_unstable_by(f64::total_cmp);
        let expected = k.min(all.len());
        let farthest = all[expected - 1];
        let ids: Vec<&str> = strings(&answer["ids"][0]);
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), expected, "as many as there are");
        let told: Vec<f64> =
            answer["distances"][0].as_array().unwrap().iter().map(|told| told.as_f64().unwrap()).collect();
        assert!(told.is_sorted());
        for (id, told) in ids.iter().zip(&told) {
            // Whole numbers below 2^24 are exact.
            assert_eq!(distance(query, &self.plain[*id]).to_string(), told.to_string(), "{id}");
        }
        assert_eq!(strings(&answer["documents"][0]), ids);
        told.iter().filter(|told| **told <= farthest).count()
    }
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

fn distance(a: &[i32], b: &[i32]) -> f64 {
    f64::from(a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<i32>())
}

#[test]
fn a_large_collection_is_searched_by_its_leaves() {
    let stack = own_stack_with("vectors", |config| config.compaction = None);
    let api = Api::new(stack.gateway_url());
    let collection = api.fresh_collection();
    let mut world = World { stack, api, collection, plain: Plain::new() };
    let all: Vec<(usize, usize)> = (0..RECORDS).map(|id| (id, id)).collect();
    world.write("add", &all);
    world.compact();
    assert!(world.recall(K) >= 0.95, "{}", world.recall(K));
    assert_eq!(world.recall(1).to_string(), "1");
    world.explains_itself();
    world.filters();

    // The log above it, and rows that it hides.
    world.write("upsert", &(0..600).map(|id| (id * 7, id + 2_000_000)).collect::<Vec<_>>());
    world.delete((0..RECORDS).filter(|id| id % 5 == 1).take(900));
    assert!(world.recall(K) >= 0.95, "{}", world.recall(K));
    assert!(world.recall(300) >= 0.9, "{}", world.recall(300));

    // Two segments, dead rows in the first.
    world.compact();
    world.filters();
    assert!(world.recall(K) >= 0.95, "{}", world.recall(K));

    // Hardly anything is left: all of it is found.
    let ids: Vec<usize> = world.plain.keys().map(|id| id[1..].parse().unwrap()).collect();
    for some in ids[..ids.len() - 40].chunks(2_000) {
        world.delete(some.iter().copied());
    }
    assert_eq!(world.recall(50).to_string(), "1");
    world.compact();
    assert_eq!(world.recall(50).to_string(), "1");
}
