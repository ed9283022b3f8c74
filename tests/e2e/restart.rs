//! Eight clients write while workerd, devstore and sqld are killed again and again, and the store loses replies besides.
//! Then everything is read. `OPAL_KILLS` says how many kills (default 4).
//!
//! Every operation of a write carries the write's number, deletions aside, whose ids say whose they are. So the log itself
//! tells what was carried out: an acknowledged write is in it once, another one once or not at all, each whole and in one
//! piece, those of one client in the order in which it sent them. What the log amounts to, by a model of a few lines, is
//! what the API must answer.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use model::{Operation, OperationKind};
use serde_json::{Value, json};
use stack::{Part, Stack};

use crate::harness::{Api, Bucket, Collection, own_stack};

const WRITERS: u64 = 8;
/// Writers share collections, so that they contend for the ends of their logs.
const COLLECTIONS: u64 = 2;
/// Records of a write that adds records.
const SIZES: [u64; 4] = [1, 4, 20, 100];
/// Records that are read at a time.
const PAGE: usize = 2_000;
/// After a failure a client waits for so long: everything may be down.
const PAUSE: Duration = Duration::from_millis(50);
/// A cold start may take long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn kills_and_lost_replies_lose_nothing_halve_nothing_and_double_nothing() {
    let kills = std::env::var("OPAL_KILLS").map_or(4, |kills| kills.parse().expect("a number of kills"));
    let mut random = Random(seed());
    println!("{kills} kills, seed {}", random.0);
    let mut stack = own_stack("restart");
    let api = Api::new(stack.gateway_url());
    let collections: Vec<Collection> = (0..COLLECTIONS).map(|_| api.fresh_collection()).collect();

    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let url = stack.gateway_url();
    let histories: Vec<Vec<Write>> = thread::scope(|scope| {
        let client = |number: u64| Client {
            api: Api::new(&url),
            collection: collections[usize::try_from(number % COLLECTIONS).unwrap()].clone(),
            random: Random(random.0 ^ (number << 32)),
            number,
            pools: Vec::new(),
            writes: Vec::new(),
        };
        let clients: Vec<Client> = (0..WRITERS).map(client).collect();
        let run = |mut client: Client| {
            while !stop.load(Ordering::SeqCst) {
                let ok = client.write();
                acknowledged.fetch_add(u64::from(ok), Ordering::SeqCst);
            }
            client.writes
        };
        let threads: Vec<_> = clients.into_iter().map(|client| scope.spawn(move || run(client))).collect();
        for _ in 0..kills {
            trouble(&stack, &mut random);
            wait_for(&acknowledged, WRITERS);
            thread::sleep(Duration::from_millis(random.below(1000)));
            kill_something(&mut stack, &mut random);
        }
        stop.store(true, Ordering::SeqCst);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });

    // New isolates, which believe nothing; and a write behind whatever was still on its way.
    stack.store_admin().clear_faults().unwrap();
    stack.parts().into_iter().for_each(|part| stack.restart(part).unwrap());
    let writes: usize = histories.iter().map(Vec::len).sum();
    println!("{writes} writes, {} acknowledged", acknowledged.load(Ordering::SeqCst));
    for (number, collection) in (0..).zip(&collections) {
        let api = Api::new(stack.gateway_url());
        let last = json!({ "ids": ["last"], "embeddings": [[0, 0, 0, 0]], "metadatas": [{ "write": 0 }] });
        api.post(&collection.verb("add"), &last).expect(201);
        let mut log = Bucket::of(&stack).operations(&collection.id);
        assert_eq!(log.pop().unwrap().id.as_str(), "last");
        let of_collection = histories.iter().skip(number).step_by(collections.len());
        let carried_out = of_collection.map(|history| check_history(history, &log)).sum::<usize>();
        assert_eq!(carried_out, log.len(), "the log holds what nobody wrote, or holds something twice");
        check_answers(&api, collection, &log);
    }
}

/// Part of the store's replies are lost, part of its requests fail, part of them come late.
fn trouble(stack: &Stack, random: &mut Random) {
    let rules = json!([
        { "operation": "PutObject", "probability": 0.05, "effect": "drop_reply" },
        { "probability": 0.02, "effect": "drop_request" },
        { "probability": 0.02, "effect": { "answer": 503 } },
        { "operation": "PutObject", "probability": 0.05, "effect": { "hold_before_ms": 300 } },
    ]);
    stack.store_admin().set_faults(&rules, Some(random.next())).unwrap();
}

/// Until so many more writes were acknowledged: else a kill would meet nobody.
fn wait_for(acknowledged: &AtomicU64, more: u64) {
    let (goal, patience) = (acknowledged.load(Ordering::SeqCst) + more, Instant::now() + PATIENCE);
    while acknowledged.load(Ordering::SeqCst) < goal {
        assert!(Instant::now() < patience, "hardly a write is acknowledged in {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// One process, or all of them in some order; a restart follows at once.
fn kill_something(stack: &mut Stack, random: &mut Random) {
    let first = usize::try_from(random.below(3)).unwrap();
    let count = if random.below(4) == 0 { 3 } else { 1 };
    let all = stack.parts();
    let parts = (0..count).map(|i| all[(first + i) % all.len()]);
    parts.clone().for_each(|part| stack.kill(part).unwrap());
    let killed: Vec<&str> = parts.clone().map(Part::name).collect();
    println!("killed {}", killed.join(", "));
    // In the order in which a stack starts: workerd is healthy without the others, but not useful.
    all.iter().copied().filter(|part| parts.clone().any(|killed| killed == *part)).for_each(|part| {
        stack.restart(part).unwrap();
    });
}

/// A write that was sent.
struct Write {
    /// Its operations in their order: what is done to which record.
    operations: Vec<(OperationKind, String)>,
    number: u64,
    is_acknowledged: bool,
}

/// Writes one thing after the other, to records that no other client touches.
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
    /// Sends one write; says whether it was acknowledged.
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
        let kind = match verb {
            "add" => OperationKind::Add,
            "upsert" => OperationKind::Upsert,
            "update" => OperationKind::Update,
            _ => OperationKind::Delete,
        };
        let operations = ids.iter().map(|id| (kind, id.clone())).collect();
        self.writes.push(Write { operations, number, is_acknowledged });
        match (is_acknowledged, pool) {
            (true, None) => self.pools.push(ids),
            (true, Some(_)) => {}
            (false, _) => thread::sleep(PAUSE),
        }
        is_acknowledged
    }
}

fn body(verb: &str, number: u64, ids: &[String]) -> Value {
    if verb == "delete" {
        return json!({ "ids": ids });
    }
    let documents: Vec<String> = ids.iter().map(|id| document(id, number)).collect();
    json!({
        "ids": ids,
        "embeddings": vec![[1, 2, 3, 4]; ids.len()],
        "documents": documents,
        "metadatas": vec![json!({ "write": number }); ids.len()],
    })
}

fn document(id: &str, number: u64) -> String {
    format!("{id} of write {number} ").repeat(3)
}

/// Checks one client's writes against the log of their collection; returns how many operations of it are theirs.
fn check_history(history: &[Write], log: &[Operation]) -> usize {
    let places = places(log);
    let mut end_of_last = 0;
    let mut carried_out = 0;
    for write in history {
        let found: Vec<&Vec<usize>> =
            write.operations.iter().filter_map(|(kind, id)| places.get(&key(*kind, id, write.number))).collect();
        let Write { number, operations, is_acknowledged } = write;
        assert!(!(found.is_empty() && *is_acknowledged), "acknowledged write {number} is not in the log");
        if found.is_empty() {
            continue;
        }
        assert_eq!(found.len(), operations.len(), "write {number} is there in part");
        assert!(found.iter().all(|places| places.len() == 1), "write {number} is there more than once");
        let place = found[0][0];
        let piece: Range<usize> = place..place + operations.len();
        assert!(found.iter().map(|places| places[0]).eq(piece.clone()), "write {number} is not in one piece");
        assert!(place >= end_of_last, "write {number} is before what its client wrote earlier");
        end_of_last = piece.end;
        carried_out += operations.len();
    }
    carried_out
}

/// What tells an operation from all others: each record is deleted once at most, and other operations name their write.
fn key(kind: OperationKind, id: &str, number: u64) -> String {
    match kind {
        OperationKind::Delete => format!("delete {id}"),
        kind => format!("{kind:?} {id} {number}"),
    }
}

fn places(log: &[Operation]) -> BTreeMap<String, Vec<usize>> {
    let mut places = BTreeMap::<String, Vec<usize>>::new();
    for (place, operation) in log.iter().enumerate() {
        let id = operation.id.as_str();
        places.entry(key(operation.kind, id, number_of(operation))).or_default().push(place);
    }
    places
}

/// The number of the write that an operation belongs to; 0 for a deletion.
fn number_of(operation: &Operation) -> u64 {
    let text = operation.document.as_deref().unwrap_or_default();
    let number = text.split(" of write ").nth(1).and_then(|rest| rest.split(' ').next());
    number.map_or(0, |number| number.parse().expect("documents are ours"))
}

/// Checks that the API answers what the log amounts to.
fn check_answers(api: &Api, collection: &Collection, log: &[Operation]) {
    let mut expected = BTreeMap::new();
    for operation in log {
        let id = operation.id.as_str().to_owned();
        let is_there = expected.contains_key(&id);
        match operation.kind {
            OperationKind::Delete => drop(expected.remove(&id)),
            OperationKind::Add if is_there => {}
            OperationKind::Update if !is_there => {}
            _ => drop(expected.insert(id, number_of(operation))),
        }
    }
    assert_eq!(api.get(&collection.verb("count")).expect(200).json(), expected.len() + 1);
    let mut ids = BTreeSet::new();
    for offset in (0..expected.len() + 1).step_by(PAGE) {
        let page = json!({ "limit": PAGE, "offset": offset, "include": ["metadatas", "documents"] });
        let page = api.post(&collection.verb("get"), &page).expect(200).json();
        for (i, id) in page["ids"].as_array().unwrap().iter().enumerate() {
            let id = id.as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            if id == "last" {
                continue;
            }
            let number = expected.get(id).unwrap_or_else(|| panic!("{id} should not be there"));
            assert_eq!(page["metadatas"][i]["write"], *number, "{id}");
            assert_eq!(page["documents"][i], document(id, *number));
        }
    }
    assert_eq!(ids.len(), expected.len() + 1, "a record is missing");
}

fn seed() -> u64 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    std::env::var("OPAL_SEED").map_or(u64::from(nanos), |seed| seed.parse().expect("a seed"))
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
