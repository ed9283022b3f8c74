//! What the job tells about itself while it works: one entry for each thing that happened, without secrets.

use model::CollectionId;
use serde_json::{Map, Value};
use std::cell::Cell;
use std::rc::Rc;

/// Where entries go: to a terminal, to a log, to nobody.
pub trait Journal {
    /// Takes note of what has just happened.
    fn record(&self, entry: Entry);

    /// `done` of about `all` things of the running step are done; `step` names it, as in `compacting`.
    fn progress(&self, step: &str, done: usize, all: usize) {
        let _ = (step, done, all);
    }
}

/// Nobody listens.
impl Journal for () {
    fn record(&self, _: Entry) {}
}

impl<J: Journal> Journal for &J {
    fn record(&self, entry: Entry) {
        (**self).record(entry);
    }

    fn progress(&self, step: &str, done: usize, all: usize) {
        (**self).progress(step, done, all);
    }
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Info,
    /// Left for a later pass, which can be expected to succeed.
    Warn,
    /// Somebody has to look.
    Error,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// How much it matters.
    pub level: Level,
    /// What happened, always in the same words, as in `compacted`: what one searches for.
    pub event: &'static str,
    /// To which collection.
    pub collection: Option<CollectionId>,
    /// All else.
    pub fields: Map<String, Value>,
}

impl Entry {
    /// What is as it should be.
    pub fn info(event: &'static str) -> Self {
        Entry { level: Level::Info, event, collection: None, fields: Map::new() }
    }

    /// What a later pass will do.
    pub fn warn(event: &'static str) -> Self {
        Entry { level: Level::Warn, ..Entry::info(event) }
    }

    /// What somebody has to look at.
    pub fn error(event: &'static str) -> Self {
        Entry { level: Level::Error, ..Entry::info(event) }
    }

    /// The same, of a collection.
    #[must_use]
    pub fn of(mut self, collection: CollectionId) -> Self {
        self.collection = Some(collection);
        self
    }

    /// The same with one more field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// The same with the reason of a failure.
    #[must_use]
    pub fn because(self, reason: impl ToString) -> Self {
        self.with("reason", reason.to_string())
    }
}

/// A request to end soon, which whoever works looks at between two steps. Clones are the same request.
#[derive(Clone, Debug, Default)]
pub struct Stop(Rc<Cell<bool>>);

impl Stop {
    /// Asks for it.
    pub fn ask(&self) {
        self.0.set(true);
    }

    /// Whether it was asked for.
    pub fn is_asked(&self) -> bool {
        self.0.get()
    }
}

/// Entries kept for a test to look at.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Kept(pub(crate) std::cell::RefCell<Vec<Entry>>);

#[cfg(test)]
impl Journal for Kept {
    fn record(&self, entry: Entry) {
        self.0.borrow_mut().push(entry);
    }
}

#[cfg(test)]
impl Kept {
    /// How often `event` was told.
    pub(crate) fn count(&self, event: &str) -> usize {
        self.0.borrow().iter().filter(|entry| entry.event == event).count()
    }
}
