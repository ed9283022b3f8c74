//! A log laid over stored rows: which of them it hides, which it changes, and what it holds itself.

use crate::base::{Base, Hidden, Place, as_upsert};
use crate::{Slots, StoredError, StoredReader};
use model::{Lsn, OperationKind, OperationView};
use query::{Overlay, PlanError, Stored, StoredRow};
use segment::row::{Row, RowView};
use std::collections::HashMap;
use storage::ObjectStore;

/// What is stored of some ids: only of those that were found.
pub type Facts = HashMap<String, Fact>;

/// A stored row.
#[derive(Clone, Debug)]
pub struct Fact {
    /// Where it is.
    pub place: Place,
    /// If it was asked for.
    pub row: Option<Row>,
}

/// The log above a base, as far as it was applied.
#[derive(Debug)]
pub struct Layer {
    /// What it says.
    pub overlay: Overlay,
    /// The stored rows that it replaces or removes.
    pub hidden: Hidden,
    /// The stored rows that it changes, by the ordinal under which the overlay asks for them.
    pub taken_up: Vec<Place>,
}

impl Layer {
    /// Nothing above `base`.
    pub fn above(base: &Base) -> Self {
        let hidden = Hidden::nothing(base.segments.len());
        Layer { overlay: Overlay::default(), hidden, taken_up: Vec::new() }
    }

    /// Applies the operations of the next fragment; `facts` are what is stored of its ids that the overlay does not have.
    /// Errors: as of [`Overlay::apply_over`].
    pub fn apply<'o>(
        &mut self,
        facts: &Facts,
        lsn: Lsn,
        operations: impl IntoIterator<Item = OperationView<'o>>,
    ) -> Result<(), PlanError> {
        let mut below = Below { facts, hidden: &mut self.hidden, taken_up: &mut self.taken_up };
        self.overlay.apply_over(&mut below, lsn, operations)
    }

    /// Memory held, about, in bytes.
    pub fn bytes(&self) -> usize {
        self.overlay.bytes() + self.bytes_besides()
    }

    /// The same without the overlay.
    pub fn bytes_besides(&self) -> usize {
        self.hidden.bytes() + self.taken_up.capacity() * size_of::<Place>()
    }
}

/// The stored rows, as an overlay asks for them.
struct Below<'a> {
    facts: &'a Facts,
    hidden: &'a mut Hidden,
    taken_up: &'a mut Vec<Place>,
}

impl Stored for Below<'_> {
    fn find(&self, id: &str) -> Option<StoredRow<'_>> {
        let fact = self.facts.get(id).filter(|fact| !self.hidden.contains(fact.place))?;
        Some(StoredRow { row: fact.row.as_ref().map(|row| (row.position, as_upsert(&row.view()))) })
    }

    fn hide(&mut self, id: &str) {
        self.hidden.insert(self.facts[id].place);
    }

    fn take_up(&mut self, id: &str, ordinal: usize) {
        assert_eq!(ordinal, self.taken_up.len(), "rows are taken up one after the other");
        self.taken_up.push(self.facts[id].place);
        self.hide(id);
    }
}

/// Of which stored rows more than the place must be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those that operations change.
    Changed,
    /// Those that operations change or remove.
    Affected,
}

/// Ids of which it must be known what is stored, and whether more than the place.
pub type Questions = HashMap<String, bool>;

impl Layer {
    /// What must be known before `operations` can be applied.
    pub fn questions<'o>(&self, operations: impl IntoIterator<Item = OperationView<'o>>, wanted: Wanted) -> Questions {
        let mut questions = Questions::new();
        for operation in operations.into_iter().filter(|operation| !self.overlay.contains(operation.id)) {
            let is_wanted = match operation.kind {
                OperationKind::Update | OperationKind::Upsert => true,
                OperationKind::Delete => wanted == Wanted::Affected,
                OperationKind::Add => false,
            };
            match questions.get_mut(operation.id) {
                Some(known) => *known |= is_wanted,
                None => drop(questions.insert(operation.id.to_owned(), is_wanted)),
            }
        }
        questions
    }
}

impl<S: ObjectStore> StoredReader<'_, S> {
    /// Answers `questions` from `base`.
    ///
    /// Cost: as of [`StoredReader::locate`], and the batches with the rows that are wanted.
    pub async fn facts(&self, base: &Base, questions: &Questions) -> Result<Facts, StoredError> {
        let mut facts = Facts::new();
        if base.is_empty() {
            return Ok(facts);
        }
        let ids: Vec<&str> = questions.keys().map(String::as_str).collect();
        let located = self.locate(base, &ids).await?;
        let wanted = located.iter().filter(|(id, _)| questions[id.as_str()]);
        let mut places: Vec<Place> = wanted.map(|(_, place)| *place).collect();
        places.sort_unstable();
        facts.extend(located.into_iter().map(|(id, place)| (id, Fact { place, row: None })));
        self.visit(base, &places, &Slots::new(), |place, row: &RowView<'_>| match facts.get_mut(row.id) {
            Some(fact) if fact.place == place => {
                fact.row = Some(row.to_row());
                Ok(())
            }
            _ => {
                let prefix = &base.segments[place.segment as usize].named.prefix;
                Err(StoredError::Corrupt(format!("{prefix}: the id index names the row of another id")))
            }
        })
        .await?;
        Ok(facts)
    }
}
