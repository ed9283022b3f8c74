//! Rows -> leaves of about equal size, neighbouring leaves side by side.
//!
//! Three steps, of which only the last needs rows in any order but their own, and only those of a few leaves at a time:
//! [`train`] makes centroids from a sample; [`Assigner::assign`] files rows, batch by batch; [`balance`] splits leaves that got
//! too many rows and joins those that got few. [`cluster`] does all three for rows that are in memory.
//!
//! Memory, when rows are streamed: a sample of at most [`Clustering::sample_rows_max`] rows and the centroids three times, then the
//! centroids and the rows of the stretch of leaves that is being balanced. In memory: the rows, and the sample.
//!
//! Source: SPANN's balanced hierarchical clustering (Chen et al., NeurIPS 2021, arXiv:2111.08566), without its replicas.

use crate::kmeans::{self, Groups};
use crate::random::Random;
use crate::{Assigner, Rows, parallel};

/// How rows are clustered.
#[derive(Clone, Copy, Debug)]
pub struct Clustering {
    /// Rows that a leaf should have.
    pub leaf_rows: u32,
    /// Rows that no leaf has more of.
    pub leaf_rows_max: u32,
    /// Rows that centroids are made from, at most: these are held in memory.
    pub sample_rows_max: u32,
    /// Decides what is random.
    pub seed: u64,
    /// Threads that work; the result does not depend on it.
    pub threads: usize,
}

/// Rows of a sample for each leaf, at most: more changes little.
const SAMPLE_ROWS_PER_LEAF: u32 = 64;
/// Rows of a sample, at most, unless told otherwise.
const SAMPLE_ROWS_MAX: u32 = 1 << 19;
/// Rounds in which all leaves' centroids move at once.
const ROUNDS: usize = 6;

/// Leaves, in the order in which they are stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaves {
    /// Row numbers, leaf after leaf.
    pub order: Vec<u32>,
    /// Number of rows of each leaf.
    pub rows: Vec<u32>,
    /// Centroid of each leaf: `[f32; leaves × d]`.
    pub centroids: Vec<f32>,
    /// How far the rows of each leaf are from its centroid: the root of the mean square.
    pub radii: Vec<f32>,
}

impl Clustering {
    /// Leaves of about `leaf_rows` rows, none above twice that.
    pub fn of(leaf_rows: u32, seed: u64, threads: usize) -> Self {
        Clustering { leaf_rows, leaf_rows_max: 2 * leaf_rows, sample_rows_max: SAMPLE_ROWS_MAX, seed, threads }
    }

    /// How many leaves `rows` rows get at first.
    pub fn leaves(&self, rows: u64) -> u32 {
        u32::try_from(rows.div_ceil(u64::from(self.leaf_rows))).expect("a segment has at most 2^32 rows").max(1)
    }

    /// Which of `rows` rows make up a sample that is large enough: ascending.
    pub fn sample(&self, rows: u32) -> Vec<u32> {
        let count = self.leaves(u64::from(rows)).saturating_mul(SAMPLE_ROWS_PER_LEAF).min(self.sample_rows_max);
        Random::new(self.seed, 0x7361_6d70_6c65).sample(rows, count)
    }
}

/// Centroids for `leaves` leaves, from a sample of the rows: `[f32; leaves × d]`, neighbours near each other.
///
/// Memory: the sample, the centroids three times and 16 bytes a row of the sample.
pub fn train(sample: Rows<'_>, leaves: u32, clustering: &Clustering) -> Vec<f32> {
    let Clustering { seed, threads, .. } = *clustering;
    if sample.is_empty() {
        return vec![0.0; sample.dimension()];
    }
    let mut centroids = kmeans::tree(sample, leaves.max(1), seed, threads);
    for _ in 0..ROUNDS {
        let assigner = Assigner::new(Rows::new(&centroids, sample.dimension()), threads);
        centroids = kmeans::means(sample, &assigner.assign(sample, threads), &centroids, threads);
    }
    let centroids = Rows::new(&centroids, sample.dimension());
    centroids.gather(&crate::order::order(centroids, seed))
}

/// Clusters rows that are in memory. Memory: [`train`]'s and 8 bytes a row.
pub fn cluster(rows: Rows<'_>, clustering: &Clustering) -> Leaves {
    let count = crate::number(rows.len());
    let sample = rows.gather(&clustering.sample(count));
    let centroids = train(Rows::new(&sample, rows.dimension()), clustering.leaves(u64::from(count)), clustering);
    drop(sample);
    let assigner = Assigner::new(Rows::new(&centroids, rows.dimension()), clustering.threads);
    let labels = assigner.assign(rows, clustering.threads);
    balance(rows, &labels, &centroids, clustering)
}

/// Makes leaves of `rows` that were filed under `labels`, with no leaf above the largest size, hardly any far below the wanted
/// one, and centroids that are the means of their rows. The order of leaves is that of `centroids`.
///
/// It looks at no rows but its arguments: a caller that streams calls it for stretches of neighbouring leaves.
pub fn balance(rows: Rows<'_>, labels: &[u32], centroids: &[f32], clustering: &Clustering) -> Leaves {
    let groups = Groups::new(labels, centroids.len() / rows.dimension());
    let split = |label: usize| {
        let members = groups.of(label).to_vec();
        let mut parts = Vec::new();
        halve(rows, members, clustering, &mut parts);
        parts
    };
    let leaves: Vec<Leaf> = parallel::map(clustering.threads, groups.len(), split).into_iter().flatten().collect();
    join(rows, leaves, clustering)
}

/// `members` of `rows` as leaves that are not too large: their members, ascending, and centroids.
pub(crate) fn split(rows: Rows<'_>, members: Vec<u32>, clustering: &Clustering) -> Vec<(Vec<u32>, Vec<f32>)> {
    let mut parts = Vec::new();
    halve(rows, members, clustering, &mut parts);
    parts.into_iter().map(|leaf| (leaf.members, leaf.centroid)).collect()
}

struct Leaf {
    members: Vec<u32>,
    centroid: Vec<f32>,
    radius: f32,
}

impl Leaf {
    fn new(rows: Rows<'_>, mut members: Vec<u32>) -> Self {
        members.sort_unstable();
        let centroid = kmeans::mean(members.iter().map(|row| rows.get(*row as usize)), rows.dimension());
        let radius = radius(members.iter().map(|row| rows.get(*row as usize)), &centroid);
        Leaf { members, centroid, radius }
    }
}

/// The root of the mean square of how far `rows` are from `centroid`.
pub(crate) fn radius<'r>(rows: impl ExactSizeIterator<Item = &'r [f32]>, centroid: &[f32]) -> f32 {
    let count = rows.len().max(1);
    let squared = |row: &[f32]| row.iter().zip(centroid).map(|(x, c)| (x - c) * (x - c)).sum::<f32>();
    #[expect(clippy::cast_precision_loss, reason = "a leaf has few rows")]
    (rows.map(squared).sum::<f32>() / count as f32).sqrt()
}

/// Appends leaves made of `members`, none too large: cut in two where it is thinnest about the middle, and so on.
fn halve(rows: Rows<'_>, members: Vec<u32>, clustering: &Clustering, parts: &mut Vec<Leaf>) {
    if members.is_empty() {
        return;
    }
    if members.len() <= clustering.leaf_rows_max as usize {
        parts.push(Leaf::new(rows, members));
        return;
    }
    let along = along_the_longest(rows, &members, clustering.seed);
    let mut order: Vec<(f32, u32)> = along.into_iter().zip(members).collect();
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    let upper = order.split_off(cut(&order));
    for half in [order, upper] {
        halve(rows, half.into_iter().map(|(_, row)| row).collect(), clustering, parts);
    }
}

/// Where between a third and two thirds the gap is widest; the middle if all are equal.
fn cut(order: &[(f32, u32)]) -> usize {
    let (first, last) = (order.len() / 3, order.len() - order.len() / 3);
    let gap = |at: usize| order[at].0 - order[at - 1].0;
    let mut best = order.len() / 2;
    for at in first.max(1)..last {
        if gap(at) > gap(best) {
            best = at;
        }
    }
    best
}

/// How far along the line between the centres of two clusters each member lies.
fn along_the_longest(rows: Rows<'_>, members: &[u32], seed: u64) -> Vec<f32> {
    let values = rows.gather(members);
    let members = Rows::new(&values, rows.dimension());
    let centres = kmeans::k_means(members, 2, seed, 1);
    let (a, b) = centres.split_at(rows.dimension());
    let direction: Vec<f32> = a.iter().zip(b).map(|(a, b)| b - a).collect();
    members.iter().map(|row| crate::codes::dot(row, &direction)).collect()
}

/// Leaves at this distance in the order may become one.
const JOIN_WINDOW: usize = 8;

/// Joins leaves below a quarter of the wanted size with the nearest near them in the order.
fn join(rows: Rows<'_>, mut leaves: Vec<Leaf>, clustering: &Clustering) -> Leaves {
    let small = clustering.leaf_rows as usize / 4;
    for at in 0..leaves.len() {
        let count = leaves[at].members.len();
        if count == 0 || count > small {
            continue;
        }
        let window = at.saturating_sub(JOIN_WINDOW)..(at + JOIN_WINDOW + 1).min(leaves.len());
        let fits = |other: &usize| {
            let others = leaves[*other].members.len();
            *other != at && others > 0 && others + count <= clustering.leaf_rows as usize * 3 / 2
        };
        let apart = |other: &usize| {
            let pair = leaves[*other].centroid.iter().zip(&leaves[at].centroid);
            pair.map(|(a, b)| (a - b) * (a - b)).sum::<f32>()
        };
        let nearest = window.filter(fits).min_by(|a, b| apart(a).total_cmp(&apart(b)));
        if let Some(nearest) = nearest {
            let members = std::mem::take(&mut leaves[at].members);
            let mut joined = std::mem::take(&mut leaves[nearest].members);
            joined.extend(members);
            leaves[nearest] = Leaf::new(rows, joined);
        }
    }
    leaves.retain(|leaf| !leaf.members.is_empty());
    Leaves {
        rows: leaves.iter().map(|leaf| crate::number(leaf.members.len())).collect(),
        order: leaves.iter().flat_map(|leaf| leaf.members.iter().copied()).collect(),
        radii: leaves.iter().map(|leaf| leaf.radius).collect(),
        centroids: leaves.into_iter().flat_map(|leaf| leaf.centroid).collect(),
    }
}

#[cfg(test)]
mod tests;
