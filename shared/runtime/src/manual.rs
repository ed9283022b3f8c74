//! A clock that goes on by what is slept, for tests in which one task waits.

use crate::Runtime;
use model::Timestamp;
use std::cell::Cell;
use std::rc::Rc;

/// Time that passes only in [`Runtime::sleep`], which returns at once. Clones share it. Nothing is random.
#[derive(Clone, Debug, Default)]
pub struct ManualRuntime(Rc<Cell<u64>>);

impl Runtime for ManualRuntime {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.get())
    }

    fn random(&self) -> u128 {
        0
    }

    async fn sleep(&self, ms: u64) {
        self.0.set(self.0.get() + ms);
    }
}
