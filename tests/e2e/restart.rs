//! Every process is killed in the middle of writes, again and again, and started on the same data. What was acknowledged
//! is there, what was not is there whole or not at all. `OPAL_KILL_ROUNDS` says how often (default 2).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use stack::{Part, Stack};

use crate::harness::{Api, Collection, own_stack};

/// Records in a batch.
const BATCH: usize = 12;
const WRITERS: usize = 4;

/// What is known of a batch, which its records name in their metadata.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// All or nothing.
    Unknown,
    Written,
    Deleted,
}

type Fates = BTreeMap<u64, Fate>;

#[test]
fn killing_everything_loses_nothing_acknowledged_and_halves_no_batch() {
    let rounds = std::env::var("OPAL_KILL_ROUNDS").map_or(2, |rounds| rounds.parse().expect("a number of rounds"));
    let mut stack = own_stack("restart");
    let collection = Api::new(stack.gateway_url()).fresh_collection();
    let numbers = AtomicU64::new(0);
    let mut fates = Fates::new();
    for round in 0..rounds {
        let seed = random();
        println!("round {round}, seed {seed}");
        let of_round = write_until_killed(&mut stack, &collection, &numbers, seed);
        let acknowledged = of_round.values().filter(|fate| **fate != Fate::Unknown).count();
        println!("{} batches, {acknowledged} acknowledged", of_round.len());
        assert!(acknowledged > 0, "hardly a write was acknowledged in 60 s: this round shows nothing");
        fates.extend(of_round);
        for part in Part::ALL {
            stack.restart(part).unwrap();
        }
        settle(&mut fates, &batches_in(&stack, &collection));
    }
}

/// Lets writers write for a random while, kills every process in a random order, and tells what became of each batch.
fn write_until_killed(stack: &mut Stack, collection: &Collection, numbers: &AtomicU64, seed: u64) -> Fates {
    let url = stack.gateway_url();
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let write = || write(&url, collection, numbers, &stop, &acknowledged);
        let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
        // A cold start may take long on a busy machine. Of what was acknowledged each writer may be deleting one batch.
        let patience = Instant::now() + Duration::from_secs(60);
        while acknowledged.load(Ordering::SeqCst) < 2 * WRITERS as u64 && Instant::now() < patience {
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(seed % 1500));
        let first = usize::try_from(seed / 1500 % 3).unwrap();
        for i in 0..3 {
            stack.kill(Part::ALL[(first + i) % 3]).unwrap();
        }
        stop.store(true, Ordering::SeqCst);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    })
}

/// Writes batches one after the other and deletes every third again.
fn write(
    url: &str,
    collection: &Collection,
    numbers: &AtomicU64,
    stop: &AtomicBool,
    acknowledged: &AtomicU64,
) -> Fates {
    let api = Api::new(url);
    let mut fates = Fates::new();
    while !stop.load(Ordering::SeqCst) {
        let number = numbers.fetch_add(1, Ordering::SeqCst);
        let verb = ["add", "upsert"][usize::try_from(number % 2).unwrap()];
        let written = api.try_call("POST", &collection.verb(verb), Some(&batch(number)));
        let fate = if written.as_ref().is_ok_and(|reply| reply.status < 300) { Fate::Written } else { Fate::Unknown };
        fates.insert(number, fate);
        if written.is_err() {
            // The gateway is gone, and with it whoever could carry out more.
            break;
        }
        if fate == Fate::Written {
            acknowledged.fetch_add(1, Ordering::SeqCst);
        }
        if fate == Fate::Written && number.is_multiple_of(3) {
            let body = json!({ "where": { "batch": number } });
            let deleted = api.try_call("POST", &collection.verb("delete"), Some(&body));
            let fate = if deleted.is_ok_and(|reply| reply.status == 200) { Fate::Deleted } else { Fate::Unknown };
            fates.insert(number, fate);
        }
    }
    fates
}

fn batch(number: u64) -> Value {
    let ids: Vec<String> = (0..BATCH).map(|i| format!("{number}-{i}")).collect();
    let documents: Vec<String> = ids.iter().map(|id| format!("{id} ").repeat(50)).collect();
    json!({
        "ids": ids,
        "embeddings": vec![vec![0.5; 64]; BATCH],
        "documents": documents,
        "metadatas": vec![json!({ "batch": number }); BATCH],
    })
}

/// How many records there are of each batch, after writing and reading worked.
fn batches_in(stack: &Stack, collection: &Collection) -> BTreeMap<u64, usize> {
    let api = Api::new(stack.gateway_url());
    let before =
        api.post(&collection.verb("get"), &json!({ "include": ["metadatas", "documents"] })).expect(200).json();
    let mut counts = BTreeMap::new();
    for (i, metadata) in before["metadatas"].as_array().unwrap().iter().enumerate() {
        let id = before["ids"][i].as_str().unwrap();
        assert_eq!(before["documents"][i], format!("{id} ").repeat(50));
        *counts.entry(metadata["batch"].as_u64().unwrap()).or_default() += 1;
    }
    let after_kill = json!({ "ids": ["after"], "embeddings": [vec![0.5; 64]] });
    api.post(&collection.verb("add"), &after_kill).expect(201);
    let count = before["ids"].as_array().unwrap().len();
    assert_eq!(api.get(&collection.verb("count")).expect(200).json(), count + 1);
    api.post(&collection.verb("delete"), &json!({ "ids": ["after"] })).expect(200);
    counts
}

/// Checks what is there against what is known, and learns the unknown: from now on it must stay as it is.
fn settle(fates: &mut Fates, there: &BTreeMap<u64, usize>) {
    for (number, fate) in fates.iter_mut() {
        let count = there.get(number).copied().unwrap_or(0);
        let allowed: &[usize] = match fate {
            Fate::Unknown => &[0, BATCH],
            Fate::Written => &[BATCH],
            Fate::Deleted => &[0],
        };
        assert!(allowed.contains(&count), "batch {number} is {fate:?} and has {count} of {BATCH} records");
        *fate = if count == 0 { Fate::Deleted } else { Fate::Written };
    }
    assert!(there.keys().all(|number| fates.contains_key(number)), "there is a batch that nobody wrote");
}

fn random() -> u64 {
    u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos())
}
