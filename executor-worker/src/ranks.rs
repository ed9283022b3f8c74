//! The rows whose documents are the best for some words: by indexes of words, and where there are none, by looking.

use crate::Executor;
use crate::filters::{self, ROWS_TOGETHER, TEXTS_BYTES_MAX};
use crate::search::{Search, rivals};
use futures_util::future::join;
use model::Position;
use query::{Counter, Counts, PlanError, Rival, Scan, Statistics, TopK};
use roaring::RoaringBitmap;
use runtime::Runtime;
use segment::row::RowView;
use std::collections::BTreeMap;
use storage::ObjectStore;
use stored::{Place, Slots, WordIndexes};
use text::{Keywords, Scorer};

/// Stored rows that no index knew, and what their documents came to.
type Looked = Counts<(Position, Place)>;

impl<S: ObjectStore, R: Runtime> Executor<'_, S, R> {
    /// Scores the documents that `scan` has counted, and adds the stored rows that may be hits beside them.
    ///
    /// Cost: heads and text indexes that are not open yet; two waves of the latter; all rows of segments whose words are not indexed; the
    /// rows that are best. Where a filter leaves rows unsure these are looked at first.
    pub(crate) async fn ranked(
        &self,
        search: &mut Search<'_>,
        keywords: &Keywords,
        scan: &mut Scan<'_>,
    ) -> Result<(), PlanError> {
        let (opened, texts) = join(self.stored().open(search.base), self.stored().open_texts(search.base)).await;
        opened.and(texts)?;
        let among = self.among(search).await?;
        let words = WordIndexes::new(search.base, keywords);
        let (looked, of_looked) = self.look_for(search, keywords, &words.unindexed, &among).await?;
        let mut all = scan.statistics();
        all += &of_looked;
        all += &self.stored().word_statistics(&words).await?;
        let scorer = keywords.scorer(&all);
        let best = self.best(search, &words, &all, &among).await?;
        search.base.fit_texts(TEXTS_BYTES_MAX);
        scan.score(|counted| scorer.score(counted));
        scan.compete(vec![merged(search.read.n_results(), best, &looked, &scorer)]);
        Ok(())
    }

    /// The visible rows that may be hits, by segment.
    async fn among(&self, search: &mut Search<'_>) -> Result<Vec<RoaringBitmap>, PlanError> {
        let mut among = vec![RoaringBitmap::new(); search.base.segments.len()];
        if let Some(ids) = &search.ids {
            let filter = search.read.filter().map(filters::compile).transpose()?;
            let take = |place: Place, _: &RowView<'_>| {
                among[place.segment as usize].insert(place.row);
            };
            self.named(search, ids, filter.as_ref(), take).await?;
            return Ok(among);
        }
        let all: Vec<u32> = search.numbers().collect();
        self.settle(search, &all).await?;
        for (number, among) in (0..).zip(&mut among) {
            among.extend(search.visible(number).map(|place| place.row));
        }
        Ok(among)
    }

    /// Counts the documents of all visible rows of `segments`: those among `among` that have any of the words, and what all are.
    async fn look_for(
        &self,
        search: &Search<'_>,
        keywords: &Keywords,
        segments: &[u32],
        among: &[RoaringBitmap],
    ) -> Result<(Looked, Statistics), PlanError> {
        let (mut looked, mut statistics) = (Looked::default(), Statistics::default());
        let places: Vec<Place> = segments.iter().flat_map(|number| search.unhidden(*number)).collect();
        for some in places.chunks(ROWS_TOGETHER) {
            let count = |place: Place, row: &RowView<'_>| {
                let counted = row.document.map(|document| keywords.count(document));
                statistics.add(counted.as_ref());
                let hit =
                    counted.filter(|counted| counted.is_hit() && among[place.segment as usize].contains(place.row));
                hit.map_or(Ok(()), |counted| looked.push((row.position, place), counted))
            };
            self.stored().look_through(search.base, some, count).await?;
        }
        Ok((looked, statistics))
    }

    /// The best rows that indexes know.
    async fn best(
        &self,
        search: &Search<'_>,
        words: &WordIndexes<'_>,
        all: &Statistics,
        among: &[RoaringBitmap],
    ) -> Result<Vec<Rival>, PlanError> {
        let best = self.stored().best(words, search.read.n_results(), all, among).await?;
        let scores: BTreeMap<Place, f32> = best.into_iter().collect();
        let places: Vec<Place> = scores.keys().copied().collect();
        let mut best = Vec::new();
        let take = |place: Place, row: &RowView<'_>| {
            best.push(Rival { distance: -scores[&place], position: row.position, place: place.number() });
            Ok::<(), PlanError>(())
        };
        self.stored().visit(search.base, &places, &Slots::new(), take).await?;
        Ok(best)
    }
}

/// The `k` best of `best` and of what was looked at.
fn merged(k: usize, best: Vec<Rival>, looked: &Looked, scorer: &Scorer) -> Vec<Rival> {
    let mut top = TopK::new(k);
    best.into_iter().for_each(|rival| top.push(rival.distance, (rival.position, Place::of_number(rival.place))));
    looked.all.iter().for_each(|(row, counted)| top.push(-scorer.score(counted), *row));
    rivals(top)
}
