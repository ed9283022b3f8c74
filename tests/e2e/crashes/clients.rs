//! Clients that write and read until they are told to stop, whatever happens meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use model::OperationKind;
use serde_json::{Value, json};

use super::history::document;
use super::{PATIENCE, Random};
use crate::harness::{Api, Collection};

/// Writers at a time.
pub(super) const WRITERS: u64 = 8;
/// Records of a write that adds records.
const SIZES: [u64; 4] = [1, 4, 20, 100];
/// After a failure a client waits for so long: everything may be down.
const PAUSE: Duration = Duration::from_millis(50);

/// A write that was sent.
pub(super) struct Write {
    /// Its operations in their order: what is done to which record.
    pub(super) operations: Vec<(OperationKind, String)>,
    pub(super) number: u64,
    pub(super) is_acknowledged: bool,
}

/// Lets clients write and read as long as `meanwhile` runs; it is told how many writes were acknowledged. Returns what each
/// client wrote: client `n` to collection `n` modulo their number.
pub(super) fn run(
    url: &str,
    collections: &[Collection],
    random: &Random,
    meanwhile: impl FnOnce(&AtomicU64),
) -> Vec<Vec<Write>> {
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let client = |number: u64| Client {
            api: Api::new(url),
            collection: collections[usize::try_from(number).unwrap() % collections.len()].clone(),
            random: Random(random.0 ^ (number << 32)),
            number,
            pools: Vec::new(),
            writes: Vec::new(),
        };
        let clients: Vec<Client> = (0..WRITERS).map(client).collect();
        let (stop, acknowledged) = (&stop, &acknowledged);
        let run = |mut client: Client| {
            while !stop.load(Ordering::SeqCst) {
                let ok = client.write();
                acknowledged.fetch_add(u64::from(ok), Ordering::SeqCst);
                client.look_around();
            }
            client.writes
        };
        let threads: Vec<_> = clients.into_iter().map(|client| scope.spawn(move || run(client))).collect();
        // A panic here must end the clients, or the scope would wait for them for ever.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| meanwhile(acknowledged)));
        stop.store(true, Ordering::SeqCst);
        let histories = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        println!("{} writes acknowledged", acknowledged.load(Ordering::SeqCst));
        histories
    })
}

/// Waits until so many more writes were acknowledged: else a kill would meet nobody.
pub(super) fn wait_for(acknowledged: &AtomicU64, more: u64) {
    let (goal, patience) = (acknowledged.load(Ordering::SeqCst) + more, Instant::now() + PATIENCE);
    while acknowledged.load(Ordering::SeqCst) < goal {
        assert!(Instant::now() < patience, "hardly a write is acknowledged in {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Does one thing after the other, to records that no other client touches.
struct Client {
    api: Api,
    collection: Collection,
    random: Random,
    number: u64,
    /// The ids of the writes that added records and were acknowledged, until they are deleted.
    pools: Vec<Vec<String>>,
    writes: Vec<Write>,
}

impl Client {
    /// Sends one write; says whether it was acknowledged. If so, what it wrote is read.
    fn write(&mut self) -> bool {
        let number = (self.number << 32) + self.writes.len() as u64;
        let (verb, pool) = match self.random.below(10) {
            verb if verb < 5 || self.pools.is_empty() => (["add", "upsert"][usize::from(verb % 2 == 0)], None),
            verb => {
                let pool = usize::try_from(self.random.below(self.pools.len() as u64)).unwrap();
                (["update", "upsert", "update", "delete", "delete"][usize::try_from(verb).unwrap() - 5], Some(pool))
            }
        };
        let ids = match pool {
            // After this nobody knows whether they are there: they are left alone.
            Some(pool) if verb == "delete" => self.pools.swap_remove(pool),
            Some(pool) => self.pools[pool].clone(),
            None => {
                let size = SIZES[usize::try_from(self.random.below(4)).unwrap()];
                (0..size).map(|i| format!("{}-{}-{i}", self.number, self.writes.len())).collect()
            }
        };
        let reply = self.api.try_call("POST", &self.collection.verb(verb), Some(&body(verb, number, &ids)));
        let is_acknowledged = reply.as_ref().is_ok_and(|reply| reply.status < 300);
        if let Ok(reply) = &reply {
            assert!(is_acknowledged || reply.status == 503, "{verb}: {reply:?}");
        }
        let (kind, is_there) = match verb {
            "add" => (OperationKind::Add, true),
            "upsert" => (OperationKind::Upsert, true),
            "update" => (OperationKind::Update, true),
            _ => (OperationKind::Delete, false),
        };
        let operations = ids.iter().map(|id| (kind, id.clone())).collect();
        self.writes.push(Write { operations, number, is_acknowledged });
        if !is_acknowledged {
            thread::sleep(PAUSE);
            return false;
        }
        self.read_back(&ids, is_there.then_some(number));
        if pool.is_none() {
            self.pools.push(ids);
        }
        true
    }

    /// Reads records that were just written, or deleted.
    fn read_back(&self, ids: &[String], written: Option<u64>) {
        let Some(answer) = self.read("get", &json!({ "ids": ids, "include": ["documents"] })) else { return };
        let expected = written.map_or(
            json!({ "ids": [], "documents": [] }),
            |number| json!({ "ids": ids, "documents": ids.iter().map(|id| document(id, number)).collect::<Vec<_>>() }),
        );
        for part in ["ids", "documents"] {
            assert_eq!(answer[part], expected[part], "an acknowledged write of {} is not read", self.collection.id);
        }
    }

    /// Looks at whatever is nearest: each record must be as some write left it.
    fn look_around(&mut self) {
        let include = json!(["documents", "metadatas", "distances"]);
        let near = vector(self.random.next());
        let query = json!({ "query_embeddings": [near], "n_results": 5, "include": include });
        let Some(answer) = self.read("query", &query) else { return };
        let ids = answer["ids"][0].as_array().unwrap();
        for (i, id) in ids.iter().map(|id| id.as_str().unwrap()).enumerate() {
            let number = answer["metadatas"][0][i]["write"].as_u64().unwrap();
            assert_eq!(answer["documents"][0][i], document(id, number), "half a record");
        }
        let distances = answer["distances"][0].as_array().unwrap();
        assert!(distances.is_sorted_by_key(|distance| distance.as_f64().unwrap()), "{distances:?}");
    }

    /// An answer, if one came: everything may be down.
    fn read(&self, verb: &str, body: &Value) -> Option<Value> {
        let reply = self.api.try_call("POST", &self.collection.verb(verb), Some(body)).ok()?;
        assert!(reply.status == 200 || reply.status == 503, "{verb}: {reply:?}");
        (reply.status == 200).then(|| reply.json())
    }
}

fn body(verb: &str, number: u64, ids: &[String]) -> Value {
    if verb == "delete" {
        return json!({ "ids": ids });
    }
    let documents: Vec<String> = ids.iter().map(|id| document(id, number)).collect();
    json!({
        "ids": ids,
        "embeddings": vec![vector(number); ids.len()],
        "documents": documents,
        "metadatas": vec![json!({ "write": number }); ids.len()],
    })
}

/// Some vector of four small numbers.
fn vector(number: u64) -> [u8; 4] {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[4..].try_into().unwrap()
}
