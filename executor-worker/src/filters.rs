//! Which stored rows satisfy a filter: by text indexes, and where these do not know, by looking.

use crate::Executor;
use crate::cache::{Pulse, Version, name_of};
use crate::search::Search;
use model::{Filter, Metadata, MetadataValue};
use query::{CompiledFilter, Fields, FilterError, PlanError};
use roaring::RoaringBitmap;
use runtime::Runtime;
use segment::row::RowView;
use storage::ObjectStore;
use stored::{Base, FilterSearch, Hidden, Place, Slots};
use text::{Matches, Plan};

/// What text indexes of a version keep between searches, in bytes.
pub(crate) const TEXTS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Rows that are looked at once are not kept if they are more than this.
const KEPT_ROWS_MAX: usize = 4_096;
/// Rows whose places are worked out together.
pub(crate) const ROWS_TOGETHER: usize = 16 * 1024;

/// A filter, and what is known of the visible stored rows that satisfy it.
pub(crate) struct Passing {
    filter: CompiledFilter,
    /// By segment.
    matches: Vec<Matches>,
}

/// What is known of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It is no hit.
    Hidden,
    /// It must be looked at.
    Unsure,
    /// It is a hit.
    Visible,
}

impl Passing {
    /// `matches`: what text indexes say, by segment.
    pub(crate) fn new(
        filter: &Filter,
        mut matches: Vec<Matches>,
        base: &Base,
        hidden: &Hidden,
    ) -> Result<Self, PlanError> {
        base.remove_invisible(hidden, &mut matches);
        Ok(Passing { filter: compile(filter)?, matches })
    }

    pub(crate) fn sees(&self, Place { segment, row }: Place) -> Sight {
        let Matches { sure, unsure } = &self.matches[segment as usize];
        if sure.contains(row) {
            Sight::Visible
        } else if unsure.contains(row) {
            Sight::Unsure
        } else {
            Sight::Hidden
        }
    }

    /// Whether the row, which is one of these at least, satisfies the filter.
    pub(crate) fn accepts(&self, place: Place, row: &RowView<'_>) -> Result<bool, PlanError> {
        Ok(self.sees(place) == Sight::Visible || passes(&self.filter, row)?)
    }

    /// Rows of segment number `segment` that may satisfy the filter.
    pub(crate) fn possible(&self, segment: u32) -> u64 {
        let Matches { sure, unsure } = &self.matches[segment as usize];
        sure.len() + unsure.len()
    }

    /// Whether there are rows of segment number `segment` of which it is not known.
    pub(crate) fn is_unsure(&self, segment: u32) -> bool {
        !self.matches[segment as usize].unsure.is_empty()
    }

    /// The rows of segment number `segment` that may satisfy the filter, ascending, and whether they surely do.
    pub(crate) fn rows(&self, segment: u32) -> impl Iterator<Item = (Place, bool)> {
        let Matches { sure, unsure } = &self.matches[segment as usize];
        (sure | unsure).into_iter().map(move |row| (Place { segment, row }, sure.contains(row)))
    }

    fn unsure_places(&self, segments: &[u32]) -> Vec<Place> {
        let of = |segment: &u32| {
            let segment = *segment;
            self.matches[segment as usize].unsure.iter().map(move |row| Place { segment, row })
        };
        segments.iter().flat_map(of).collect()
    }
}

/// Prepares a filter. Errors: it is none.
pub(crate) fn compile(filter: &Filter) -> Result<CompiledFilter, PlanError> {
    CompiledFilter::compile(filter).map_err(|error| invalid(&error))
}

fn invalid(error: &FilterError) -> PlanError {
    PlanError::Invalid(error.to_string())
}

/// Whether a row satisfies the filter.
pub(crate) fn passes(filter: &CompiledFilter, row: &RowView<'_>) -> Result<bool, PlanError> {
    let broken = |error| PlanError::Corrupt(format!("a stored row has metadata that cannot be read: {error}"));
    let metadata: Option<Metadata> = row.metadata.map(serde_json::from_str).transpose().map_err(broken)?;
    Ok(filter.matches(&StoredFields { row, metadata: metadata.unwrap_or_default() }))
}

/// A stored row as filters see it.
struct StoredFields<'a> {
    row: &'a RowView<'a>,
    metadata: Metadata,
}

impl Fields for StoredFields<'_> {
    fn metadata(&self, key: &str) -> Option<&MetadataValue> {
        self.metadata.get(key)
    }

    fn document(&self) -> Option<&str> {
        self.row.document
    }

    fn uri(&self) -> Option<&str> {
        self.row.uri
    }
}

impl<S: ObjectStore, R: Runtime> Executor<'_, S, R> {
    /// What text indexes know of the rows that satisfy `filter`, by segment.
    ///
    /// Cost: nothing if the filter was asked for lately; else `text` of each segment that is not known yet, and then two waves at
    /// most, of what the indexes name.
    pub(crate) async fn matches(
        &self,
        version: &Version,
        filter: &Filter,
        pulse: &Pulse,
    ) -> Result<Vec<Matches>, PlanError> {
        let name = name_of(filter);
        let known = version.answered.borrow_mut().get(&name);
        let matches = match known {
            Some(matches) => matches,
            None => {
                let matches = self.look_up(&version.base, filter, pulse).await?;
                version.answered.borrow_mut().put(name, &matches);
                matches
            }
        };
        let count = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
        self.tally.passing.add(matches.iter().map(|matches| count(matches.sure.len())).sum());
        self.tally.unsure.add(matches.iter().map(|matches| count(matches.unsure.len())).sum());
        Ok(matches)
    }

    async fn look_up(&self, base: &Base, filter: &Filter, pulse: &Pulse) -> Result<Vec<Matches>, PlanError> {
        let plan = Plan::compile(filter).map_err(|error| invalid(&error))?;
        self.stored().open_texts(base).await?;
        let mut search = FilterSearch::new(base, &plan);
        loop {
            let blocks = search.step()?;
            if blocks.is_empty() {
                break;
            }
            let bytes: u64 = blocks.iter().map(|block| block.range.end - block.range.start).sum();
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            let _permit = self.cache.permit(bytes, pulse, &self.runtime).await?;
            search.supply(&blocks, self.stored().read(&blocks).await?)?;
        }
        base.fit_texts(TEXTS_BYTES_MAX);
        Ok(search.finish())
    }

    /// Which of `places`, ascending, have rows that satisfy the filter: by segment. Segments are open. Cost: the batches with
    /// these rows.
    pub(crate) async fn verified(
        &self,
        base: &Base,
        passing: &Passing,
        places: &[Place],
    ) -> Result<Vec<RoaringBitmap>, PlanError> {
        let mut found = vec![RoaringBitmap::new(); base.segments.len()];
        let mut look = |place: Place, row: &RowView<'_>| {
            if passes(&passing.filter, row)? {
                found[place.segment as usize].insert(place.row);
            }
            Ok::<(), PlanError>(())
        };
        if places.len() <= KEPT_ROWS_MAX {
            self.stored().visit(base, places, &Slots::new(), look).await?;
        } else {
            for some in places.chunks(ROWS_TOGETHER) {
                self.stored().look_through(base, some, &mut look).await?;
            }
        }
        Ok(found)
    }

    /// Looks at the unsure rows of these segments, so that it is known of all whether they satisfy the filter.
    pub(crate) async fn settle(&self, search: &mut Search<'_>, segments: &[u32]) -> Result<(), PlanError> {
        let Some(passing) = &mut search.passing else { return Ok(()) };
        let places = passing.unsure_places(segments);
        if places.is_empty() {
            return Ok(());
        }
        self.stored().open(search.base).await?;
        let found = self.verified(search.base, passing, &places).await?;
        for ((number, found), Matches { sure, unsure }) in (0..).zip(found).zip(&mut passing.matches) {
            if segments.contains(&number) {
                *sure |= found;
                unsure.clear();
            }
        }
        Ok(())
    }
}
