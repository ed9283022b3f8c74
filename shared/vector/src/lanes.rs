//! Many rows against many centroids: the inner loop of clustering and assignment.
//!
//! Centroids lie in panels of sixteen, element by element, so that one element of a row meets sixteen centroids in two AVX2
//! registers. Products are not fused: the result is the same with and without AVX2, and the machines we know have as many
//! adders as multipliers.

use crate::Rows;

const LANES: usize = 16;
/// Rows that meet a panel at once: their sums fill half the registers.
const ROWS: usize = 4;

/// Centroids laid out for [`Panels::scores`].
#[derive(Clone, Debug)]
pub(crate) struct Panels {
    dimension: usize,
    count: usize,
    /// Panel after panel: `[[f32; LANES]; dimension]`.
    values: Vec<[f32; LANES]>,
    /// Half the square of each centroid's length; infinite for those that only fill a panel up.
    half_squares: Vec<[f32; LANES]>,
}

impl Panels {
    pub(crate) fn new(centroids: Rows<'_>) -> Self {
        let dimension = centroids.dimension();
        let panels = centroids.len().div_ceil(LANES);
        let mut values = vec![[0.0; LANES]; panels * dimension];
        let mut half_squares = vec![[f32::INFINITY; LANES]; panels];
        for (at, centroid) in centroids.iter().enumerate() {
            let (panel, lane) = (at / LANES, at % LANES);
            let columns = &mut values[panel * dimension..(panel + 1) * dimension];
            columns.iter_mut().zip(centroid).for_each(|(column, x)| column[lane] = *x);
            half_squares[panel][lane] = 0.5 * centroid.iter().map(|x| x * x).sum::<f32>();
        }
        Panels { dimension, count: centroids.len(), values, half_squares }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// For each of `rows` writes `|c|²/2 − r·c` for all centroids, which ranks them by distance: `scores` is
    /// `[f32; rows × scores_len()]`.
    pub(crate) fn scores(&self, rows: &[&[f32]], scores: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the machine has AVX2, as was just asked.
            unsafe { self.scores_avx2(rows, scores) };
            return;
        }
        self.scores_plain(rows, scores);
    }

    /// Length of one row's scores: the centroids, filled up with infinities to whole panels.
    pub(crate) fn scores_len(&self) -> usize {
        self.half_squares.len() * LANES
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn scores_avx2(&self, rows: &[&[f32]], scores: &mut [f32]) {
        self.scores_plain(rows, scores);
    }

    #[inline(always)]
    fn scores_plain(&self, rows: &[&[f32]], scores: &mut [f32]) {
        let width = self.scores_len();
        let (fours, rest) = rows.as_chunks::<ROWS>();
        let (of_fours, of_rest) = scores.split_at_mut(fours.len() * ROWS * width);
        for (rows, scores) in fours.iter().zip(of_fours.chunks_exact_mut(ROWS * width)) {
            self.scores_of(rows, scores);
        }
        for (row, scores) in rest.iter().zip(of_rest.chunks_exact_mut(width)) {
            self.scores_of(&[*row], scores);
        }
    }

    #[inline(always)]
    fn scores_of<const R: usize>(&self, rows: &[&[f32]; R], scores: &mut [f32]) {
        let width = self.scores_len();
        let rows = rows.map(|row| &row[..self.dimension]);
        for (panel, half_squares) in self.half_squares.iter().enumerate() {
            let columns = &self.values[panel * self.dimension..(panel + 1) * self.dimension];
            let products = block(rows, columns);
            for (r, products) in products.iter().enumerate() {
                let at = r * width + panel * LANES;
                for lane in 0..LANES {
                    scores[at + lane] = half_squares[lane] - products[lane];
                }
            }
        }
    }
}

#[inline(always)]
fn block<const R: usize>(rows: [&[f32]; R], columns: &[[f32; LANES]]) -> [[f32; LANES]; R] {
    let mut sums = [[0.0_f32; LANES]; R];
    let rows = rows.map(|row| &row[..columns.len()]);
    for (j, column) in columns.iter().enumerate() {
        for r in 0..R {
            let x = rows[r][j];
            for lane in 0..LANES {
                sums[r][lane] += x * column[lane];
            }
        }
    }
    sums
}

/// Which score is smallest, the first of equals; 0 if none is a number.
pub(crate) fn smallest(scores: &[f32]) -> usize {
    let mut best = (f32::INFINITY, 0);
    for (at, score) in scores.iter().enumerate() {
        if *score < best.0 {
            best = (*score, at);
        }
    }
    best.1
}

/// The nearest of `panels` to each of `rows`.
pub(crate) fn nearest(rows: Rows<'_>, panels: &Panels, threads: usize) -> Vec<u32> {
    nearest_of(rows.len(), |at| rows.get(at), panels, threads)
}

/// The same for `row(0), …, row(count − 1)`, wherever these lie.
pub(crate) fn nearest_of<'r>(
    count: usize,
    row: impl Fn(usize) -> &'r [f32] + Sync,
    panels: &Panels,
    threads: usize,
) -> Vec<u32> {
    const BATCH: usize = 256;
    let batch = |index: usize| {
        let rows: Vec<&[f32]> = (index * BATCH..((index + 1) * BATCH).min(count)).map(&row).collect();
        let width = panels.scores_len();
        let mut scores = vec![0.0; ROWS * width];
        let mut found = Vec::with_capacity(rows.len());
        for rows in rows.chunks(ROWS) {
            panels.scores(rows, &mut scores);
            found.extend(scores.chunks_exact(width).take(rows.len()).map(|scores| crate::number(smallest(scores))));
        }
        found
    };
    crate::parallel::map(threads, count.div_ceil(BATCH), batch).concat()
}
