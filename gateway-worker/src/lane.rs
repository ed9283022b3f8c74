//! Who of this isolate claims the next LSN of a collection, and which writes share it.
//!
//! Writers of one isolate would only take LSNs from each other. So they take turns, and those that wait for a turn put
//! their operations together into one fragment. A group is frozen when its first body is made: what joins later goes to
//! the next one, or a body with a known nonce would not be what was put.
//!
//! One request cannot wake another, and any of them may stop at an await for ever (its client went away). So a lane is
//! plain data: whoever waits polls it, whoever has the turn says every [`limits::BEAT_MS`] that it is alive, and when it
//! falls silent the next one takes over: a member of its group goes on with the same append.

use model::safeguard::{Safeguard, holds};
use model::{LogEnd, Operation, Timestamp, limits};
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use wal::{Append, AppendError};

/// The writes of one collection in this isolate.
#[derive(Default)]
pub struct Lane {
    holder: Cell<Option<Holder>>,
    turns: Cell<u64>,
    /// The group that may still be joined.
    open: RefCell<Option<Rc<Group>>>,
}

#[derive(Clone, Copy)]
struct Holder {
    turn: u64,
    beat: Timestamp,
}

impl Lane {
    /// The right to claim an LSN, given back when dropped; `None` while a request has it that was alive a moment ago.
    pub fn take(&self, now: Timestamp) -> Option<Turn<'_>> {
        let silent = |holder: Holder| now.ms_since(holder.beat) > limits::SILENCE_MS;
        if !self.holder.get().is_none_or(silent) {
            return None;
        }
        self.turns.set(self.turns.get() + 1);
        let number = self.turns.get();
        self.holder.set(Some(Holder { turn: number, beat: now }));
        Some(Turn { lane: self, number })
    }

    /// Puts `operations` among those that are written next.
    pub fn join(&self, operations: Vec<Operation>) -> Seat {
        let mut open = self.open.borrow_mut();
        let room = open.take().filter(|group| group.has_room_for(&operations));
        let group = room.unwrap_or_default();
        *open = Some(Rc::clone(&group));
        let index = group.sit(operations);
        Seat { group, index }
    }

    fn close(&self, group: &Rc<Group>) {
        self.open.borrow_mut().take_if(|open| Rc::ptr_eq(open, group));
    }
}

/// The right to claim the next LSN, as long as its holder is alive.
pub struct Turn<'l> {
    lane: &'l Lane,
    number: u64,
}

impl Turn<'_> {
    /// Whether it was not given to another request meanwhile.
    pub fn holds(&self) -> bool {
        self.lane.holder.get().is_some_and(|holder| holder.turn == self.number)
    }

    /// Says that the holder is alive.
    pub fn beat(&self, now: Timestamp) {
        if self.holds() {
            self.lane.holder.set(Some(Holder { turn: self.number, beat: now }));
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.holds() {
            self.lane.holder.set(None);
        }
    }
}

/// Writes that share a fragment.
#[derive(Default)]
struct Group {
    /// What each member brought, until the group is frozen; `None` if it gave up waiting.
    members: RefCell<Vec<Option<Vec<Operation>>>>,
    operations: Cell<usize>,
    bytes: Cell<usize>,
    append: OnceCell<RefCell<Append>>,
    outcome: RefCell<Option<Result<LogEnd, AppendError>>>,
}

impl Group {
    fn has_room_for(&self, operations: &[Operation]) -> bool {
        (self.append.get().is_none() || !holds(Safeguard::FrozenBody))
            && self.operations.get() + operations.len() <= limits::FRAGMENT_OPERATIONS_MAX
            && self.bytes.get() + bytes_of(operations) <= limits::GROUP_BYTES_MAX
    }

    fn sit(&self, operations: Vec<Operation>) -> usize {
        self.operations.set(self.operations.get() + operations.len());
        self.bytes.set(self.bytes.get() + bytes_of(&operations));
        let mut members = self.members.borrow_mut();
        members.push(Some(operations));
        members.len() - 1
    }
}

/// Of vectors and texts, which is what is large.
fn bytes_of(operations: &[Operation]) -> usize {
    let vector = |operation: &Operation| operation.embedding.as_ref().map_or(0, |vector| size_of_val(&vector[..]));
    let text = |operation: &Operation| operation.document.as_ref().map_or(0, String::len);
    operations.iter().map(|operation| vector(operation) + text(operation)).sum()
}

/// A member's place in a group.
pub struct Seat {
    group: Rc<Group>,
    index: usize,
}

impl Seat {
    /// How it ended for all members, once it has.
    pub fn outcome(&self) -> Option<Result<LogEnd, AppendError>> {
        self.group.outcome.borrow().clone()
    }

    /// Tells all members how it ended.
    pub fn settle(&self, outcome: Result<LogEnd, AppendError>) {
        *self.group.outcome.borrow_mut() = Some(outcome);
    }

    /// The group's append, if it is frozen.
    pub fn append(&self) -> Option<&RefCell<Append>> {
        self.group.append.get()
    }

    /// Lets nobody join any more and makes one append of what the members brought.
    pub fn freeze(&self, lane: &Lane, make: impl FnOnce(Vec<Operation>) -> Append) -> &RefCell<Append> {
        if holds(Safeguard::FrozenBody) {
            lane.close(&self.group);
        }
        self.group.append.get_or_init(|| {
            let members = std::mem::take(&mut *self.group.members.borrow_mut());
            RefCell::new(make(members.into_iter().flatten().flatten().collect()))
        })
    }

    /// Gives up waiting. What the member brought is taken out, unless the group is frozen: then nobody can tell.
    pub fn leave(&self) -> AppendError {
        match self.group.members.borrow_mut().get_mut(self.index) {
            Some(operations) => {
                *operations = None;
                AppendError::NotWritten("other writes took too long".to_owned())
            }
            None => AppendError::Unknown("the deadline passed while the writes were put".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
