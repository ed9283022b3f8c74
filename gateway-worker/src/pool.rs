//! The pool of executors: who belongs to it by the catalog, who failed lately, and asking one after the other.

use crate::Executors;
use crate::memory::Memory;
use crate::placement::{Member, Rank, ranked};
use bytes::Bytes;
use catalog::{Catalog, ExecutorRow};
use futures_util::future::join;
use model::{Timestamp, limits};
use query::{Answer, PlanError, QueryPlan};
use runtime::{Runtime, within};
use std::collections::HashMap;

/// Weight of an executor that the catalog says nothing about.
const USUAL_WEIGHT: u32 = 100;

/// One executor, by the number of its binding.
pub trait Ask {
    /// Its answer to a plan in JSON. An outer error: it gave none, so that another may be asked.
    async fn ask(&self, executor: usize, plan: &Bytes) -> Result<Result<Answer, PlanError>, String>;
}

/// What an isolate remembers of the pool. Plain data that may be lost or out of date: whoever is asked by mistake either
/// answers as well as another, or fails and another is asked.
#[derive(Default)]
pub struct Membership {
    rows: Vec<ExecutorRow>,
    /// When the catalog was last asked, whatever came of it.
    asked_at: Option<Timestamp>,
    /// When an executor that has not answered since last failed, or was last tried again.
    failed_at: HashMap<usize, Timestamp>,
}

impl Membership {
    fn is_stale(&self, now: Timestamp) -> bool {
        self.asked_at.is_none_or(|asked_at| now.ms_since(asked_at) >= limits::MEMBERSHIP_AGE_MAX_MS / 2)
    }

    /// The executors `0..count` as they are known: without a row, active at the usual weight.
    fn members(&self, count: usize, now: Timestamp) -> Vec<Member> {
        let member = |number: usize| {
            let row = self.rows.iter().find(|row| usize::try_from(row.number) == Ok(number));
            let is_failing =
                self.failed_at.get(&number).is_some_and(|at| now.ms_since(*at) < limits::EXECUTOR_PASSED_OVER_MS);
            let rank = match row {
                _ if is_failing => Rank::Failing,
                Some(row) if row.draining => Rank::Draining,
                _ => Rank::Active,
            };
            Member { number, weight: row.map_or(USUAL_WEIGHT, |row| row.weight.max(1)), rank }
        };
        (0..count).map(member).collect()
    }

    /// One request at a time tries an executor again that failed: for the others it goes on being passed over.
    fn begin(&mut self, executor: usize, now: Timestamp) {
        self.failed_at.entry(executor).and_modify(|at| *at = now);
    }
}

/// The executors behind `ask`, each asked about the collections that it has in its cache, as long as it answers.
pub struct ExecutorPool<'a, A, C, R> {
    /// Reaches one.
    pub ask: A,
    /// Knows their weights.
    pub catalog: C,
    /// Clock and deadlines.
    pub runtime: R,
    /// What the isolate remembers.
    pub memory: &'a Memory,
    /// How many there are, at least one.
    pub count: usize,
    /// Takes a line for each executor that fails.
    pub log: fn(&str),
}

impl<A: Ask, C: Catalog, R: Runtime> Executors for ExecutorPool<'_, A, C, R> {
    async fn prepare(&self) {
        self.refresh().await;
    }

    async fn run(&self, plan: &QueryPlan) -> Result<Answer, PlanError> {
        let is_unknown = self.memory.pool.borrow().asked_at.is_none();
        if is_unknown {
            // A read whose row was known prepared nothing. Later the catalog is asked beside the executor.
            self.refresh().await;
        }
        join(self.ask_in_turn(plan), self.refresh()).await.0
    }
}

impl<A: Ask, C: Catalog, R: Runtime> ExecutorPool<'_, A, C, R> {
    /// Asks the catalog for the pool if what is known is no longer fresh. Should it not answer, what is known stays.
    async fn refresh(&self) {
        let now = self.runtime.now();
        if !self.memory.pool.borrow().is_stale(now) {
            return;
        }
        // First, so that no other request asks too.
        self.memory.pool.borrow_mut().asked_at = Some(now);
        match self.catalog.list_executors().await {
            Ok(rows) => self.memory.pool.borrow_mut().rows = rows,
            Err(error) => (self.log)(&format!("the pool of executors is not known anew: {error}")),
        }
    }

    async fn ask_in_turn(&self, plan: &QueryPlan) -> Result<Answer, PlanError> {
        let body = Bytes::from(serde_json::to_vec(plan).expect("plans have string keys and finite numbers"));
        let begun = self.runtime.now();
        let order = ranked(plan.source.collection, &self.memory.pool.borrow().members(self.count, begun));
        let mut failures = Vec::new();
        for (i, executor) in order.iter().enumerate() {
            let left_ms = limits::EXECUTORS_TIMEOUT_MS.saturating_sub(self.runtime.now().ms_since(begun));
            match self.ask_one(*executor, &body, patience_ms(left_ms, i + 1 < order.len())).await {
                Ok(answer) => return answer,
                Err(failure) => failures.push(failure),
            }
        }
        Err(PlanError::Unavailable(failures.join("; ")))
    }

    /// An executor's answer, or why it gave none; which is remembered.
    async fn ask_one(&self, executor: usize, plan: &Bytes, ms: u64) -> Result<Result<Answer, PlanError>, String> {
        self.memory.pool.borrow_mut().begin(executor, self.runtime.now());
        let failure = match within(&self.runtime, ms, self.ask.ask(executor, plan)).await {
            Some(Ok(answer)) => {
                self.memory.pool.borrow_mut().failed_at.remove(&executor);
                return Ok(answer);
            }
            Some(Err(error)) => format!("executor {executor}: {error}"),
            None => format!("executor {executor} did not answer within {ms} ms"),
        };
        (self.log)(&failure);
        self.memory.pool.borrow_mut().failed_at.insert(executor, self.runtime.now());
        Err(failure)
    }
}

/// How long to wait for one of several: most of what is left, and the last one has all of it.
fn patience_ms(left_ms: u64, others_follow: bool) -> u64 {
    if others_follow { left_ms / 5 * 3 } else { left_ms }
}

#[cfg(test)]
mod tests;
