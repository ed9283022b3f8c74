//! Which leaf each row belongs to.

use crate::kmeans::{self, Groups};
use crate::lanes::{self, Panels};
use crate::{Rows, parallel};

/// Up to so many leaves, all are compared with every row.
const FLAT_MAX: usize = 512;
/// Cells whose leaves are compared with a row.
const CELLS_VISITED: usize = 16;
/// Rows that threads take at once.
const BATCH: usize = 4096;

/// Finds the nearest of many centroids: among the leaves of the nearest few cells, which are centroids of centroids.
///
/// Memory: the centroids once more.
#[derive(Clone, Debug)]
pub struct Assigner {
    cells: Panels,
    /// The leaves of each cell, and their numbers.
    leaves: Vec<(Panels, Vec<u32>)>,
    visited: usize,
}

impl Assigner {
    /// For `centroids`, at least one. Cost: some 40 products of each centroid with `2·√n` others.
    pub fn new(centroids: Rows<'_>, threads: usize) -> Self {
        let cells = if centroids.len() <= FLAT_MAX { 1 } else { 2 * centroids.len().isqrt() };
        Assigner::with_cells(centroids, crate::number(cells), CELLS_VISITED, threads)
    }

    /// As [`Assigner::new`], with that many cells of which `visited` are looked into.
    pub fn with_cells(centroids: Rows<'_>, cells: u32, visited: usize, threads: usize) -> Self {
        assert!(!centroids.is_empty(), "rows are assigned to something");
        let means = kmeans::k_means(centroids, cells, 0, threads);
        let cells = Panels::new(Rows::new(&means, centroids.dimension()));
        let groups = Groups::new(&lanes::nearest(centroids, &cells, threads), cells.len());
        let leaves = |cell: usize| {
            let members = groups.of(cell);
            (Panels::new(Rows::new(&centroids.gather(members), centroids.dimension())), members.to_vec())
        };
        let leaves = (0..groups.len()).map(leaves).collect();
        Assigner { visited: visited.min(cells.len()), cells, leaves }
    }

    /// The leaf of each row: that with the nearest centroid, but for the few rows (some in a hundred) whose nearest lies in a
    /// cell that was not visited; these get another near one.
    pub fn assign(&self, rows: Rows<'_>, threads: usize) -> Vec<u32> {
        let batch = |index: usize| self.assign_batch(rows.slice(index * BATCH..((index + 1) * BATCH).min(rows.len())));
        parallel::map(threads, rows.len().div_ceil(BATCH), batch).concat()
    }

    /// Cell by cell, so that its centroids stay in the cache while all rows that want it pass.
    fn assign_batch(&self, rows: Rows<'_>) -> Vec<u32> {
        let wanted = self.nearest_cells(rows);
        let by_cell = Groups::new(&wanted, self.leaves.len());
        let mut best = vec![(f32::INFINITY, u32::MAX); rows.len()];
        let mut scores = Vec::new();
        for (cell, (panels, leaves)) in self.leaves.iter().enumerate() {
            let width = panels.scores_len();
            let visitors: Vec<usize> = by_cell.of(cell).iter().map(|at| *at as usize / self.visited).collect();
            for visitors in visitors.chunks(64) {
                let vectors: Vec<&[f32]> = visitors.iter().map(|row| rows.get(*row)).collect();
                scores.resize(visitors.len() * width, 0.0);
                panels.scores(&vectors, &mut scores);
                for (row, scores) in visitors.iter().zip(scores.chunks_exact(width.max(1))) {
                    let at = lanes::smallest(scores);
                    let found = (scores[at], leaves[at]);
                    if found.0 < best[*row].0 || (found.0 == best[*row].0 && found.1 < best[*row].1) {
                        best[*row] = found;
                    }
                }
            }
        }
        // Where numbers are so large that no distance is one, all rows go to the first leaf.
        best.into_iter().map(|(_, leaf)| if leaf == u32::MAX { 0 } else { leaf }).collect()
    }

    /// `visited` cells for each row.
    fn nearest_cells(&self, rows: Rows<'_>) -> Vec<u32> {
        let width = self.cells.scores_len();
        let mut wanted = Vec::with_capacity(rows.len() * self.visited);
        let mut scores = vec![0.0; 64 * width];
        let mut order: Vec<u32> = Vec::new();
        for at in (0..rows.len()).step_by(64) {
            let vectors: Vec<&[f32]> = rows.slice(at..(at + 64).min(rows.len())).iter().collect();
            self.cells.scores(&vectors, &mut scores);
            for scores in scores.chunks_exact(width).take(vectors.len()) {
                order.clear();
                order.extend(0..crate::number(self.cells.len()));
                let by_score =
                    |a: &u32, b: &u32| scores[*a as usize].total_cmp(&scores[*b as usize]).then_with(|| a.cmp(b));
                if self.visited < order.len() {
                    order.select_nth_unstable_by(self.visited, by_score);
                }
                wanted.extend_from_slice(&order[..self.visited]);
            }
        }
        wanted
    }
}
