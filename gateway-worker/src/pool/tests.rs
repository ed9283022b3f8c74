//! A pool of scripted executors on a clock of our own: who is asked, in which order, and when again.

use super::*;
use catalog::MemoryCatalog;
use futures_util::FutureExt;
use model::{CollectionId, LogEnd, Manifest, Space};
use query::{Read, Source};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A clock that moves only when somebody sleeps; all sleep alone here.
#[derive(Clone, Default)]
struct Clock(Rc<Cell<u64>>);

impl Runtime for Clock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.get())
    }
    fn random(&self) -> u128 {
        0
    }
    async fn sleep(&self, ms: u64) {
        // Whoever is to answer answers first.
        let mut is_first = true;
        std::future::poll_fn(|_| match std::mem::take(&mut is_first) {
            true => std::task::Poll::Pending,
            false => std::task::Poll::Ready(()),
        })
        .await;
        self.0.set(self.0.get() + ms);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Well,
    Broken,
    Hanging,
    WithoutStore,
}

/// Executors in their states, and who was asked.
struct Scripted<'a> {
    states: &'a RefCell<Vec<State>>,
    asked: &'a RefCell<Vec<usize>>,
}

impl Ask for Scripted<'_> {
    async fn ask(&self, executor: usize, _: &Bytes) -> Result<Result<Answer, PlanError>, String> {
        self.asked.borrow_mut().push(executor);
        let state = self.states.borrow()[executor];
        match state {
            State::Well => Ok(Ok(Answer { end: LogEnd::EMPTY, hits: Vec::new(), count: 0, explain: None })),
            State::Broken => Err("gone".to_owned()),
            State::Hanging => std::future::pending().await,
            State::WithoutStore => Ok(Err(PlanError::Unavailable("no store".to_owned()))),
        }
    }
}

struct World {
    clock: Clock,
    catalog: MemoryCatalog,
    memory: Memory,
    states: RefCell<Vec<State>>,
    asked: RefCell<Vec<usize>>,
}

impl World {
    fn new(states: &[State]) -> Self {
        World {
            clock: Clock::default(),
            catalog: MemoryCatalog::default(),
            memory: Memory::default(),
            states: RefCell::new(states.to_vec()),
            asked: RefCell::default(),
        }
    }

    /// Who is asked about `collection`, one after the other, and what comes of it.
    fn run(&self, collection: u128) -> (Vec<usize>, Result<Answer, PlanError>) {
        let pool = ExecutorPool {
            ask: Scripted { states: &self.states, asked: &self.asked },
            catalog: self.catalog.clone(),
            runtime: self.clock.clone(),
            memory: &self.memory,
            count: self.states.borrow().len(),
            log: |_| {},
        };
        let source = Source {
            collection: CollectionId::from_u128(collection),
            generation: 0,
            manifest: Manifest::default(),
            dimension: None,
            space: Space::L2,
            ef_search: 100,
        };
        let plan = QueryPlan { source, read: Read::Count, level: query::ReadLevel::default(), explain: false };
        let answer = run_to_end(pool.run(&plan));
        (self.asked.take(), answer)
    }

    /// A collection that is placed on `executor` while all are well.
    fn placed_on(&self, executor: usize) -> u128 {
        let members = Membership::default().members(self.states.borrow().len(), Timestamp(0));
        (0..).find(|id| ranked(CollectionId::from_u128(*id), &members)[0] == executor).expect("each has a share")
    }

    fn set(&self, number: u32, weight: u32, draining: bool) {
        let set = self.catalog.set_executor(ExecutorRow { number, weight, draining });
        set.now_or_never().expect("memory does not wait").expect("memory does not fail");
    }

    fn pass(&self, ms: u64) {
        self.clock.0.set(self.clock.0.get() + ms);
    }
}

/// Nothing here waits for the world: it only has to be polled again.
fn run_to_end<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    (0..1_000).find_map(|_| future.as_mut().now_or_never()).expect("it ends")
}

#[test]
fn a_failing_executor_is_passed_over_for_a_while_and_then_tried_again() {
    let world = World::new(&[State::Well, State::Broken]);
    let collection = world.placed_on(1);
    assert_eq!(world.run(collection).0, [1, 0], "the first request finds out");
    assert_eq!(world.run(collection).0, [0]);
    world.pass(limits::EXECUTOR_PASSED_OVER_MS);
    assert_eq!(world.run(collection).0, [1, 0], "one request tries it again");
    assert_eq!(world.run(collection).0, [0]);
    world.states.borrow_mut()[1] = State::Well;
    world.pass(limits::EXECUTOR_PASSED_OVER_MS);
    assert_eq!(world.run(collection).0, [1]);
    assert_eq!(world.run(collection).0, [1], "it is forgiven");
}

#[test]
fn an_executor_that_hangs_leaves_time_for_the_next() {
    let world = World::new(&[State::Well, State::Hanging]);
    let collection = world.placed_on(1);
    let (asked, answer) = world.run(collection);
    assert!(answer.is_ok() && asked == [1, 0]);
    assert!(world.clock.0.get() < limits::EXECUTORS_TIMEOUT_MS);
    let before = world.clock.0.get();
    assert_eq!(world.run(collection).0, [0]);
    assert_eq!(world.clock.0.get(), before, "nobody waits for it again");
}

#[test]
fn when_all_hang_the_request_ends_in_time() {
    let world = World::new(&[State::Hanging; 4]);
    let (asked, answer) = world.run(0);
    assert_eq!(asked.len(), 4);
    assert!(matches!(answer, Err(PlanError::Unavailable(_))));
    assert!(world.clock.0.get() <= limits::EXECUTORS_TIMEOUT_MS);
}

#[test]
fn an_executor_that_answers_with_an_error_has_answered() {
    let world = World::new(&[State::WithoutStore, State::WithoutStore]);
    let (asked, answer) = world.run(world.placed_on(1));
    assert_eq!((asked, answer), (vec![1], Err(PlanError::Unavailable("no store".to_owned()))));
}

#[test]
fn a_draining_executor_is_the_last_resort_but_before_one_that_fails() {
    let world = World::new(&[State::Well, State::Well, State::Broken]);
    let collection = world.placed_on(1);
    world.set(1, 100, true);
    world.set(0, 100, true);
    assert_eq!(world.run(collection).0, [2, 1]);
    assert_eq!(world.run(collection).0, [1], "of the draining ones the one that has it");
}

#[test]
fn weights_decide_who_is_asked_and_are_learnt_anew() {
    let world = World::new(&[State::Well, State::Well]);
    let first = |id| world.run(id).0[0];
    let count = |executor| (0..200).filter(|id| first(*id) == executor).count();
    assert!((60..140).contains(&count(0)));
    world.set(0, 10_000, false);
    world.set(1, 1, false);
    assert!((60..140).contains(&count(0)), "what is known is fresh enough");
    world.pass(limits::MEMBERSHIP_AGE_MAX_MS / 2);
    assert!(count(0) > 190);
}
