//! What reading came to, for whoever wants to know.

use std::cell::Cell;
use std::rc::Rc;
use storage::Reads;

/// What one request came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// What was read of the store, if [`storage::Observed`] is told to write here.
    pub reads: Rc<Reads>,
    /// Blocks, leaves and rows that were kept, so that nothing was asked of the store for them.
    pub kept: Count,
    /// Rows that satisfy the filter, by text indexes.
    pub passing: Count,
    /// Rows of which text indexes do not know whether they satisfy it.
    pub unsure: Count,
    /// Leaves whose rows were estimated.
    pub leaves: Count,
    /// Rows whose distances were estimated by codes, once for each vector.
    pub estimated: Count,
    /// Rows whose distances were measured, once for each vector.
    pub measured: Count,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(Cell<u64>);

impl Count {
    /// Adds to it.
    pub fn add(&self, more: usize) {
        self.0.set(self.0.get() + more as u64);
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}
