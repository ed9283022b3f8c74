//! Two compactors and a garbage collector, all on the same collections, are killed again and again in the middle of whatever
//! they do; now and then a server too. Leases are taken from everybody after each kill, so that compactors also meet on one
//! collection, which is what publishing must be safe against.
//!
//! The log is collected while it grows, so somebody copies it in time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use compactor_job::verify::{self, Report};
use model::{CollectionId, Operation};
use serde_json::json;
use stack::{Process, Stack};

use super::{Random, clients, collections, history, kills, trouble};
use crate::harness::{
    Api, Bucket, Collection, aws_store, fragment_key, libsql_catalog, own_stack_with, run_compactor, tokio_runtime,
};

/// D: far above what a request takes here, or what it takes to copy a log.
const GC_DELAY: &str = "30s";
/// So often the copy of a log is brought up to date.
const COPY_PAUSE: Duration = Duration::from_millis(100);
/// Passes after which nothing may be left to collect, and the pause behind each: the catalog counts in seconds.
const GC_PASSES_MAX: usize = 20;
const GC_PAUSE: Duration = Duration::from_millis(500);

#[test]
fn kills_of_compactors_and_collectors_lose_nothing_and_leave_nothing() {
    let (kills, mut random) = (kills(8), Random::from_env());
    println!("{kills} kills, seed {}", random.0);
    let mut stack = own_stack_with("housekeepers", |config| config.compaction = None);
    let collections = collections(&Api::new(stack.gateway_url()));
    let mut archive = Archive::new(&stack, &collections);
    let mut housekeepers = Housekeepers::new(&stack);

    let (url, seed, stop) = (stack.gateway_url(), Random(random.0), AtomicBool::new(false));
    let histories = thread::scope(|scope| {
        scope.spawn(|| archive.follow_until(&stop));
        let _stop_copying = SetOnDrop(&stop);
        clients::run(&url, &collections, &seed, |acknowledged| {
            for kill in 0..kills {
                if kill % 10 == 0 {
                    trouble(&stack, &mut random);
                }
                clients::wait_for(acknowledged, 2);
                thread::sleep(Duration::from_millis(random.below(700)));
                housekeepers.kill_one(&stack, &mut random);
                kill_a_server_sometimes(&mut stack, &mut random);
            }
        })
    });
    drop(housekeepers);
    stack.store_admin().clear_faults().unwrap();
    stack.parts().into_iter().for_each(|part| stack.restart(part).unwrap());

    let api = Api::new(stack.gateway_url());
    let logs: Vec<Vec<Operation>> = (0..collections.len())
        .map(|number| {
            let of_collection = histories.iter().skip(number).step_by(collections.len());
            history::check(&api, &collections[number], of_collection, || archive.operations(&stack, number))
        })
        .collect();
    break_leases(&stack);
    run_compactor(&stack, &["run", "--sweep", "all"]);
    let unnamed = sound(&stack).iter().map(|report| report.unnamed).sum::<u64>();
    println!("{unnamed} objects that no manifest names");

    let bucket = Bucket::of(&stack);
    let is_collected = || {
        let has_log = |collection: &Collection| bucket.get(&fragment_key(&collection.id, 0)).is_some();
        !collections.iter().any(has_log) && sound(&stack).iter().all(|report| report.unnamed == 0)
    };
    let mut passes = 0;
    while !is_collected() {
        passes += 1;
        assert!(passes <= GC_PASSES_MAX, "garbage is left after {GC_PASSES_MAX} passes");
        run_compactor(&stack, &["gc", "--grace", "0", "--delay", "1ms"]);
        thread::sleep(GC_PAUSE);
    }
    for (collection, log) in collections.iter().zip(&logs) {
        history::check_answers(&api, collection, log);
    }
}

/// Whoever works at the same time. Dropping it kills them.
struct Housekeepers {
    running: Vec<(&'static [&'static str], Process)>,
}

impl Housekeepers {
    const COMMANDS: [&'static [&'static str]; 3] = [
        &["watch", "--interval", "20ms", "--eager"],
        // So little that it compacts in many steps.
        &["watch", "--interval", "20ms", "--eager", "--memory", "1MiB"],
        &["gc", "--grace", "0", "--delay", GC_DELAY],
    ];

    fn new(stack: &Stack) -> Housekeepers {
        let running = Self::COMMANDS.iter().map(|command| (*command, spawn(stack, command))).collect();
        Housekeepers { running }
    }

    /// Kills one and starts it again. A collector, which ends by itself, goes on as well.
    fn kill_one(&mut self, stack: &Stack, random: &mut Random) {
        let victim = usize::try_from(random.below(self.running.len() as u64)).unwrap();
        self.running[victim].1.kill().unwrap();
        break_leases(stack);
        for (command, process) in &mut self.running {
            match process.exit_status() {
                None => {}
                Some(status) if command[0] == "watch" && status.code().is_some() => {
                    panic!("a compactor ended by itself: {}", process.log_tail())
                }
                Some(_) => *process = spawn(stack, command),
            }
        }
    }
}

fn spawn(stack: &Stack, command: &[&str]) -> Process {
    stack.spawn_compactor(command, &format!("{}.log", command[0])).unwrap()
}

/// Takes the lease from whoever has it, dead or alive.
fn break_leases(stack: &Stack) {
    let statement = json!({ "type": "execute", "stmt": { "sql": "DELETE FROM leases" } });
    let pipeline = json!({ "requests": [statement, { "type": "close" }] });
    let reply = Api::new(stack.catalog_url()).post("/v2/pipeline", &pipeline).expect(200);
    assert_eq!(reply.json()["results"][0]["type"], "ok", "{reply:?}");
}

fn kill_a_server_sometimes(stack: &mut Stack, random: &mut Random) {
    if random.below(10) == 0 {
        let parts = stack.parts();
        let part = parts[usize::try_from(random.below(parts.len() as u64)).unwrap()];
        println!("killed {}", part.name());
        stack.restart(part).unwrap();
    }
}

/// What is stored, all of which must be what was written.
fn sound(stack: &Stack) -> Vec<Report> {
    let reports = tokio_runtime().block_on(async {
        let (store, catalog) = (aws_store(stack).await, libsql_catalog(stack).await);
        verify::collections(&store, &catalog, None, u64::MAX).await.unwrap()
    });
    assert!(reports.iter().all(|report| report.broken.is_empty()), "{reports:?}");
    assert!(reports.iter().all(|report| report.segments > 0), "nothing was compacted: {reports:?}");
    reports
}

/// Copies of logs, from their beginnings.
struct Archive {
    bucket: Bucket,
    logs: Vec<(CollectionId, Vec<Bytes>)>,
}

impl Archive {
    fn new(stack: &Stack, collections: &[Collection]) -> Archive {
        let id = |collection: &Collection| CollectionId::parse(&collection.id).unwrap();
        let logs = collections.iter().map(|collection| (id(collection), Vec::new())).collect();
        Archive { bucket: Bucket::of(stack), logs }
    }

    fn follow_until(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            // What does not come now comes the next time.
            let _ = self.follow();
            thread::sleep(COPY_PAUSE);
        }
    }

    /// Copies what is new. An error: the store does not answer.
    fn follow(&mut self) -> Result<(), String> {
        for (id, log) in &mut self.logs {
            let next = |log: &[Bytes]| self.bucket.try_get(&fragment_key(&id.to_string(), log.len() as u64));
            while let Some(body) = next(log)? {
                log.push(body);
            }
        }
        Ok(())
    }

    /// All that was ever written to a collection, in order.
    fn operations(&mut self, stack: &Stack, number: usize) -> Vec<Operation> {
        // Connections to what was killed are of no use.
        self.bucket = Bucket::of(stack);
        self.follow().unwrap();
        let fragments = self.logs[number].1.iter();
        fragments.flat_map(|body| wal::fragment::decode(body).unwrap().to_operations().unwrap()).collect()
    }
}

/// So that a failure ends the others too.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
