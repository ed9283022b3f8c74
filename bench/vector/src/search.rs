//! Queries against an index, as the executor runs them, and what they cost.

use crate::data::Data;
use crate::{now, seconds};
use model::Space;
use query::TopK;
use query::kernel::Measure;
use std::ops::Range;
use vector::probe::{self, Effort};
use vector::{Index, codes};

/// The exact neighbours.
pub(crate) struct Truth {
    k: usize,
    /// For each query the nearest rows, by distance.
    nearest: Vec<Vec<(f32, u32)>>,
}

impl Truth {
    pub(crate) fn new(space: Space, data: &Data, k: usize) -> Self {
        let of = |query: &[f32]| {
            let measure = Measure::new(space, query);
            let mut top = TopK::new(k);
            for (row, vector) in (0_u32..).zip(data.rows.chunks_exact(data.dimension)) {
                top.push(measure.distance_with_norm(vector, 1.0), row);
            }
            top.into_sorted().into_iter().map(|hit| (hit.distance, hit.row)).collect()
        };
        let queries: Vec<&[f32]> = data.queries.chunks_exact(data.dimension).collect();
        let halves = queries.chunks(queries.len().div_ceil(2).max(1));
        let nearest = std::thread::scope(|scope| {
            let threads: Vec<_> = halves
                .map(|half| scope.spawn(move || half.iter().map(|query| of(query)).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("distances do not panic")).collect()
        });
        Truth { k, nearest }
    }
}

/// What [`Cost::print`] prints.
pub(crate) const HEADING: &str = "  ratio leafKB ranges rerank | recall  leaf-recall | scanned% leaf-KB GETs | rows row-KB GETs | total-KB all-GETs(max) ms";

/// Means over all queries.
#[derive(Default)]
pub(crate) struct Cost {
    recall: f64,
    leaf_recall: f64,
    scanned: f64,
    leaf_bytes: f64,
    leaf_gets: f64,
    rows: f64,
    row_bytes: f64,
    row_gets: f64,
    gets_max: f64,
    ms: f64,
}

impl Cost {
    pub(crate) fn print(&self, effort: &Effort) {
        println!(
            "  {:4.2} {:6} {:4} {:4} | {:.4}  {:.4} | {:6.2} {:8.0} {:5.1} | {:4.1} {:6.0} {:5.1} | {:6.0} {:5.1} ({:.0}) {:.3}",
            effort.ratio,
            effort.leaves.bytes / 1000,
            effort.leaves.ranges.min(9999),
            effort.rerank.rows,
            self.recall,
            self.leaf_recall,
            self.scanned * 100.0,
            self.leaf_bytes / 1e3,
            self.leaf_gets,
            self.rows,
            self.row_bytes / 1e3,
            self.row_gets,
            (self.leaf_bytes + self.row_bytes) / 1e3,
            2.0 + self.leaf_gets + self.row_gets,
            self.gets_max,
            self.ms,
        );
    }
}

pub(crate) fn measure(data: &Data, truth: &Truth, index: &Index, space: Space, effort: &Effort) -> Cost {
    let mut sum = Cost::default();
    let line = probe::Line::of([&index.table]);
    let mut place = vec![0_u32; index.order.len()];
    (0..).zip(&index.order).for_each(|(row, of)| place[*of as usize] = row);
    let count = truth.nearest.len() as f64;
    for (query, nearest) in data.queries.chunks_exact(data.dimension).zip(&truth.nearest) {
        let start = now();
        let placed = index.table.frame().query(query);
        let views = index.table.views(&placed);
        let ranked = line.rank([&views[..]], effort.ratio);
        let plan: Vec<Range<usize>> =
            line.plan(&ranked, &effort.leaves).into_iter().map(|(_, leaves)| leaves).collect();
        let mut estimates = Vec::new();
        for leaf in plan.iter().cloned().flatten() {
            let bytes = index.table.bytes(leaf..leaf + 1);
            let bytes = &index.codes[bytes.start as usize..bytes.end as usize];
            let first = index.table.rows(leaf..leaf + 1).start;
            codes::estimate(&placed, index.table.codec(), views[leaf], bytes, first, &mut estimates)
                .expect("own codes");
        }
        sum.scanned += estimates.len() as f64 / index.order.len() as f64 / count;
        let row_plan = probe::rows(estimates, &effort.rerank);
        let measure = Measure::new(space, query);
        let mut top = TopK::new(truth.k);
        for row in &row_plan.rows {
            let at = index.order[*row as usize] as usize * data.dimension;
            top.push(measure.distance(&data.rows[at..at + data.dimension]), *row);
        }
        let found = top.into_sorted();
        sum.ms += seconds(start) * 1e3 / count;
        // A row as near as the last of the nearest is as good.
        let last = nearest.last().map_or(0.0, |(distance, _)| *distance);
        let slack = last.abs() * 1e-5 + 1e-6;
        let hits = found.iter().filter(|hit| hit.distance <= last + slack).count();
        sum.recall += hits as f64 / truth.k as f64 / count;
        let is_scanned = |row: &u32| plan.iter().any(|leaves| index.table.rows(leaves.clone()).contains(row));
        let seen = nearest.iter().filter(|(_, row)| is_scanned(&place[*row as usize])).count();
        sum.leaf_recall += seen as f64 / truth.k as f64 / count;
        let bytes: u64 = plan.iter().map(|leaves| index.table.bytes(leaves.clone())).map(|b| b.end - b.start).sum();
        sum.leaf_bytes += bytes as f64 / count;
        sum.leaf_gets += plan.len() as f64 / count;
        sum.rows += row_plan.rows.len() as f64 / count;
        sum.row_gets += row_plan.ranges.len() as f64 / count;
        let rows_read: usize = row_plan.ranges.iter().map(ExactSizeIterator::len).sum();
        sum.row_bytes += (rows_read * 4 * data.dimension) as f64 / count;
        sum.gets_max = sum.gets_max.max((2 + plan.len() + row_plan.ranges.len()) as f64);
    }
    sum
}
