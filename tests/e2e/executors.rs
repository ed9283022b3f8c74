//! One of two executors fails, hangs or is to be taken away: reads go on. In its place listens something that counts who
//! comes, and never gives an answer.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use catalog::{Catalog, ExecutorRow, HranaCatalog, HranaConfig};
use runtime::NativeRuntime;
use stack::Stack;

use crate::harness::{Api, Collection, own_stack_with};

/// So many collections that both executors surely have some.
const COLLECTIONS: usize = 16;
/// Longer than a read of one record takes, and shorter than anybody waits for an executor that hangs.
const QUICK: Duration = Duration::from_secs(10);

/// What listens in an executor's place.
#[derive(Clone, Copy)]
enum Impostor {
    /// Closes each connection at once.
    Fails,
    /// Takes each connection and never answers.
    Hangs,
}

/// The port where it listens, and how many connections it had.
fn listen(impostor: Impostor) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        let held: Mutex<Vec<TcpStream>> = Mutex::default();
        for stream in listener.incoming().flatten() {
            counter.fetch_add(1, Ordering::Relaxed);
            if matches!(impostor, Impostor::Hangs) {
                held.lock().unwrap().push(stream);
            }
        }
    });
    (port, count)
}

fn stack_with(name: &str, port: u16) -> Stack {
    own_stack_with(name, |config| config.foreign_executors = vec![(1, port)])
}

/// Reads one record of each of many new collections; how long the reads took.
fn read_many(api: &Api) -> Vec<Duration> {
    let collections: Vec<Collection> = (0..COLLECTIONS).map(|_| api.fresh_collection()).collect();
    collections.iter().for_each(|collection| collection.add(api, &["a"]));
    let timed = |collection: &Collection| {
        let began = Instant::now();
        assert_eq!(collection.ids(api), ["a"]);
        began.elapsed()
    };
    collections.iter().map(timed).collect()
}

#[test]
fn an_executor_that_fails_is_passed_over() {
    let (port, asked) = listen(Impostor::Fails);
    let stack = stack_with("executor-fails", port);
    let took = read_many(&Api::new(stack.gateway_url()));
    assert!(took.iter().all(|took| *took < QUICK), "{took:?}");
    let asked = asked.load(Ordering::Relaxed);
    assert!((1..COLLECTIONS / 2).contains(&asked), "asked {asked} times: at first, then seldom");
}

#[test]
fn an_executor_that_hangs_is_waited_for_seldom() {
    let (port, asked) = listen(Impostor::Hangs);
    let stack = stack_with("executor-hangs", port);
    let took = read_many(&Api::new(stack.gateway_url()));
    let slow = took.iter().filter(|took| **took > QUICK).count();
    assert!((1..=2).contains(&slow), "once, and on a slow machine once more: {took:?}");
    assert!(asked.load(Ordering::Relaxed) >= 1);
}

#[test]
fn an_executor_that_is_draining_is_not_asked() {
    let (port, asked) = listen(Impostor::Fails);
    let stack = stack_with("executor-draining", port);
    let config = HranaConfig { url: stack.catalog_url(), token: None };
    let catalog = HranaCatalog::new(config, NativeRuntime::new()).unwrap();
    let row = ExecutorRow { number: 1, weight: 100, draining: true };
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio.block_on(catalog.set_executor(row)).unwrap();
    read_many(&Api::new(stack.gateway_url()));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}
