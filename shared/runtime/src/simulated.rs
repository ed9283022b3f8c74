//! The simulated adapter: one thread, virtual time, and a seed that decides everything else.
//!
//! Tasks run until all they wait for is time; then time jumps to the next timer. Whoever of several could go on is
//! drawn from the seed, so equal seeds give equal runs of equal programs, and another seed another order.

use crate::Runtime;
use model::Timestamp;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Where virtual time begins: some day, so that nothing underflows that looks back from it.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// A handle to a simulated world; clones are handles to the same one.
#[derive(Clone)]
pub struct SimulatedRuntime {
    core: Rc<Core>,
    /// How far the clock of whoever holds this handle is ahead of the world's.
    ahead_ms: u64,
    /// Whether its timers are those of a machine, which stand still while it is frozen.
    of_machine: bool,
}

struct Core {
    now_ms: Cell<u64>,
    seed: Cell<u64>,
    tasks: RefCell<Vec<Task>>,
    /// The task being run.
    current: Cell<usize>,
    timers: RefCell<BTreeMap<TimerKey, Waker>>,
    timers_made: Cell<u64>,
    woken: Arc<Mutex<Vec<usize>>>,
}

/// When it is due, and a number of its own.
type TimerKey = (u64, u64);

struct Task {
    /// `None` when it has ended, and while it is being run.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    frozen_until_ms: u64,
    /// How long it has been frozen so far, what is to come of the last time included.
    frozen_ms: u64,
}

struct TaskWaker {
    task: usize,
    woken: Arc<Mutex<Vec<usize>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner).push(self.task);
    }
}

impl SimulatedRuntime {
    /// An empty world that will take the course of `seed`.
    pub fn new(seed: u64) -> Self {
        let core = Core {
            now_ms: Cell::new(EPOCH_MS),
            seed: Cell::new(seed),
            tasks: RefCell::default(),
            current: Cell::new(0),
            timers: RefCell::default(),
            timers_made: Cell::new(0),
            woken: Arc::default(),
        };
        SimulatedRuntime { core: Rc::new(core), ahead_ms: 0, of_machine: true }
    }

    /// The same world, seen by a machine whose clock is `ms` ahead of the others.
    #[must_use]
    pub fn ahead(&self, ms: u64) -> Self {
        SimulatedRuntime { ahead_ms: ms, ..self.clone() }
    }

    /// The same world as what lies between machines has it: its timers go on while a machine is frozen.
    #[must_use]
    pub fn between_machines(&self) -> Self {
        SimulatedRuntime { of_machine: false, ..self.clone() }
    }

    /// Adds a task; it runs as soon as the seed has it.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let mut tasks = self.core.tasks.borrow_mut();
        tasks.push(Task { future: Some(Box::pin(future)), frozen_until_ms: 0, frozen_ms: 0 });
        self.core.woken().push(tasks.len() - 1);
    }

    /// Stops the running task, with all its timers, for the next `ms` milliseconds: a suspended machine. What it has
    /// sent goes its way meanwhile. A task that is being frozen already stays as it is.
    pub fn freeze(&self, ms: u64) {
        if self.is_freezing() {
            return;
        }
        let mut tasks = self.core.tasks.borrow_mut();
        if let Some(task) = tasks.get_mut(self.core.current.get()) {
            task.frozen_until_ms = self.core.now_ms.get() + ms;
            task.frozen_ms += ms;
        }
    }

    /// Whether the running task will be frozen as soon as it waits for anything.
    pub fn is_freezing(&self) -> bool {
        let tasks = self.core.tasks.borrow();
        tasks.get(self.core.current.get()).is_some_and(|task| task.frozen_until_ms > self.core.now_ms.get())
    }

    /// Runs all tasks to their end, in at most `steps_max` steps. Returns whether they have ended.
    pub fn run(&self, steps_max: usize) -> bool {
        for _ in 0..steps_max {
            let task = self.core.next_task();
            match task {
                Some(task) => self.core.step(task),
                None if self.core.pass_time() => {}
                None => return true,
            }
        }
        false
    }

    /// A number from 0 to `limit - 1`, all about equally likely.
    pub fn below(&self, limit: u64) -> u64 {
        self.core.draw() % limit
    }

    /// True in `per_mille` of 1,000 cases.
    pub fn chance(&self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// One of `choices`, each as likely as the others.
    #[expect(clippy::cast_possible_truncation, reason = "an index below the length of a slice")]
    pub fn pick<'c, T>(&self, choices: &'c [T]) -> &'c T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}

impl Core {
    /// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
    fn draw(&self) -> u64 {
        self.seed.set(self.seed.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut z = self.seed.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn woken(&self) -> std::sync::MutexGuard<'_, Vec<usize>> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::cast_possible_truncation, reason = "an index below the length of a vector")]
    fn next_task(&self) -> Option<usize> {
        let mut woken = self.woken();
        let count = woken.len() as u64;
        (count > 0).then(|| woken.swap_remove((self.draw() % count) as usize))
    }

    fn step(&self, task: usize) {
        let waker = Waker::from(Arc::new(TaskWaker { task, woken: self.woken.clone() }));
        let frozen_until = self.tasks.borrow()[task].frozen_until_ms;
        if frozen_until > self.now_ms.get() {
            self.timers.borrow_mut().insert(self.timer_key(frozen_until), waker);
            return;
        }
        // Woken twice, or after its end: nothing to do.
        let Some(mut future) = self.tasks.borrow_mut()[task].future.take() else { return };
        self.current.set(task);
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.tasks.borrow_mut()[task].future = Some(future);
        }
    }

    fn timer_key(&self, at_ms: u64) -> TimerKey {
        self.timers_made.set(self.timers_made.get() + 1);
        (at_ms, self.timers_made.get())
    }

    /// When the running task may go on: now, unless it is being frozen.
    fn thaws_at_ms(&self) -> u64 {
        let frozen_until = self.tasks.borrow().get(self.current.get()).map_or(0, |task| task.frozen_until_ms);
        frozen_until.max(self.now_ms.get())
    }

    /// How long the running task has been frozen so far.
    fn frozen_ms(&self) -> u64 {
        self.tasks.borrow().get(self.current.get()).map_or(0, |task| task.frozen_ms)
    }

    /// Lets time pass until the next timer and wakes whoever waits for it; `false` if nobody waits for anything.
    fn pass_time(&self) -> bool {
        let mut timers = self.timers.borrow_mut();
        let Some((&(at, _), _)) = timers.first_key_value() else { return false };
        self.now_ms.set(at.max(self.now_ms.get()));
        while let Some(due) = timers.first_entry().filter(|timer| timer.key().0 <= at) {
            due.remove().wake();
        }
        true
    }
}

impl Runtime for SimulatedRuntime {
    fn now(&self) -> Timestamp {
        Timestamp(self.core.now_ms.get() + self.ahead_ms)
    }

    fn random(&self) -> u128 {
        u128::from(self.core.draw()) << 64 | u128::from(self.core.draw())
    }

    async fn sleep(&self, ms: u64) {
        let core = &self.core;
        let frozen_ms = self.of_machine.then(|| core.frozen_ms());
        // What a machine begins to wait for just before it is frozen, it waits for afterwards.
        let from_ms = if self.of_machine { core.thaws_at_ms() } else { core.now_ms.get() };
        Sleep { core, at_ms: from_ms + ms, frozen_ms, timer: None }.await;
    }
}

/// Pending at least once: even a sleep of no time lets others go first.
struct Sleep<'a> {
    core: &'a Core,
    at_ms: u64,
    /// How long the task had been frozen when this was last looked at, if that is to be made up for.
    frozen_ms: Option<u64>,
    timer: Option<TimerKey>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut timers = self.core.timers.borrow_mut();
        let lost_ms = self.frozen_ms.map_or(0, |before| self.core.frozen_ms() - before);
        let key = match self.timer {
            Some(key) if timers.contains_key(&key) => key,
            Some(_) if lost_ms == 0 => return Poll::Ready(()),
            _ => {
                self.at_ms += lost_ms;
                self.frozen_ms = self.frozen_ms.map(|before| before + lost_ms);
                self.core.timer_key(self.at_ms)
            }
        };
        timers.insert(key, context.waker().clone());
        drop(timers);
        self.timer = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.timer {
            self.core.timers.borrow_mut().remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::within;

    /// What three tasks that sleep now and then write down.
    fn course(seed: u64) -> Vec<(u64, u64)> {
        let world = SimulatedRuntime::new(seed);
        let seen = Rc::new(RefCell::new(Vec::new()));
        for task in 0..3 {
            let (runtime, seen) = (world.clone(), seen.clone());
            world.spawn(async move {
                for _ in 0..5 {
                    runtime.sleep(runtime.below(3)).await;
                    seen.borrow_mut().push((task, runtime.now().0));
                }
            });
        }
        assert!(world.run(1_000));
        seen.take()
    }

    #[test]
    fn a_seed_decides_the_course() {
        assert_eq!(course(1), course(1));
        assert_ne!(course(1), course(2));
    }

    #[test]
    fn time_passes_only_when_nobody_can_go_on() {
        let world = SimulatedRuntime::new(1);
        let runtime = world.clone();
        world.spawn(async move {
            let begun = runtime.now();
            assert_eq!(within(&runtime, 10, runtime.sleep(1_000_000)).await, None);
            assert_eq!(runtime.now().ms_since(begun), 10);
        });
        assert!(world.run(100));
    }

    #[test]
    fn the_timers_of_a_frozen_task_stand_still_and_those_between_machines_do_not() {
        let world = SimulatedRuntime::new(1);
        let runtime = world.clone();
        world.spawn(async move {
            let begun = runtime.now();
            runtime.freeze(500);
            assert!(within(&runtime, 30, runtime.between_machines().sleep(100)).await.is_some());
            assert_eq!(runtime.now().ms_since(begun), 500);
            runtime.freeze(500);
            runtime.sleep(10).await;
            assert_eq!(runtime.now().ms_since(begun), 1_010);
        });
        assert!(world.run(100));
    }

    #[test]
    fn a_world_that_never_rests_is_stopped() {
        let world = SimulatedRuntime::new(1);
        let runtime = world.clone();
        world.spawn(async move {
            loop {
                runtime.sleep(1).await;
            }
        });
        assert!(!world.run(100));
    }
}
