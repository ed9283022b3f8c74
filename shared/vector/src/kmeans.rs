//! k-means over rows in memory, and a tree of it.

use crate::lanes::{self, Panels};
use crate::random::Random;
use crate::{Rows, parallel};
use std::ops::Range;

/// Children of a node of the tree.
const FANOUT: u32 = 16;
/// Rounds of k-means in a node.
const ROUNDS: usize = 8;
/// Rows for each centroid that these rounds look at: more changes little.
const ROWS_PER_CENTROID: u32 = 128;

/// The mean of the rows of each label: `[f32; labels × d]`. Labels without rows keep `before`.
pub(crate) fn means(rows: Rows<'_>, labels: &[u32], before: &[f32], threads: usize) -> Vec<f32> {
    let dimension = rows.dimension();
    let groups = Groups::new(labels, before.len() / dimension);
    let mean = |label: usize| {
        let members = groups.of(label);
        if members.is_empty() {
            return before[label * dimension..(label + 1) * dimension].to_vec();
        }
        mean(members.iter().map(|row| rows.get(*row as usize)), dimension)
    };
    const BATCH: usize = 64;
    let batches = groups.len().div_ceil(BATCH);
    let batch =
        |at: usize| (at * BATCH..((at + 1) * BATCH).min(groups.len())).map(mean).collect::<Vec<Vec<f32>>>().concat();
    parallel::map(threads, batches, batch).concat()
}

/// The mean of `rows`; zero if there are none.
pub(crate) fn mean<'r>(rows: impl Iterator<Item = &'r [f32]>, dimension: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f64; dimension];
    let mut count = 0.0_f64;
    for row in rows {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        count += 1.0;
    }
    #[expect(clippy::cast_possible_truncation, reason = "rounded on purpose")]
    sums.into_iter().map(|sum| (sum / count.max(1.0)) as f32).collect()
}

/// Rows by label: a counting sort. Memory: 4 bytes a row.
#[derive(Clone, Debug)]
pub struct Groups {
    rows: Vec<u32>,
    starts: Vec<u32>,
}

impl Groups {
    /// Those of row `i` and `labels[i]`. Panics if a label is not below `count`.
    pub fn new(labels: &[u32], count: usize) -> Self {
        let mut starts = vec![0; count + 1];
        labels.iter().for_each(|label| starts[*label as usize + 1] += 1);
        for label in 0..count {
            starts[label + 1] += starts[label];
        }
        let mut next = starts.clone();
        let mut rows = vec![0; labels.len()];
        for (row, label) in labels.iter().enumerate() {
            rows[next[*label as usize] as usize] = crate::number(row);
            next[*label as usize] += 1;
        }
        Groups { rows, starts }
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there are no labels.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of a label, ascending.
    pub fn of(&self, label: usize) -> &[u32] {
        self.of_all(label..label + 1)
    }

    /// The rows of some labels, label after label.
    pub fn of_all(&self, labels: Range<usize>) -> &[u32] {
        &self.rows[self.starts[labels.start] as usize..self.starts[labels.end] as usize]
    }
}

/// `leaves` centroids of `sample`, neighbours near each other: the leaves of a tree of k-means, in its order.
///
/// A node's share of the leaves is that of its rows, so that leaves hold about equally many. Cost: for each level of the tree
/// some 30 products of a row with a centroid a row; memory: 8 bytes a row.
pub(crate) fn tree(sample: Rows<'_>, leaves: u32, seed: u64, threads: usize) -> Vec<f32> {
    let dimension = sample.dimension();
    let all: Vec<u32> = (0..crate::number(sample.len())).collect();
    let mut nodes = vec![Node { rows: all, leaves, path: seed }];
    while nodes.iter().any(|node| node.leaves > 1) {
        // The few nodes at the top use the threads inside, the many below are spread over them.
        let inner = if nodes.len() < threads { threads } else { 1 };
        nodes = parallel::map(threads, nodes.len(), |at| nodes[at].split(sample, inner)).concat();
    }
    let centroid = |at: usize| mean(nodes[at].rows.iter().map(|row| sample.get(*row as usize)), dimension);
    parallel::map(threads, nodes.len(), centroid).concat()
}

#[derive(Clone)]
struct Node {
    rows: Vec<u32>,
    leaves: u32,
    /// Seed of what is random here, made from the way down from the root.
    path: u64,
}

impl Node {
    fn split(&self, sample: Rows<'_>, threads: usize) -> Vec<Node> {
        if self.leaves <= 1 {
            return vec![self.clone()];
        }
        let k = self.leaves.min(FANOUT);
        let centroids = k_means_of(sample, &self.rows, k, self.path, threads);
        let order = chain(Rows::new(&centroids, sample.dimension()));
        let panels = Panels::new(Rows::new(&centroids, sample.dimension()));
        let row = |at: usize| sample.get(self.rows[at] as usize);
        let labels = lanes::nearest_of(self.rows.len(), row, &panels, threads);
        let groups = Groups::new(&labels, k as usize);
        if (0..groups.len()).any(|label| groups.of(label).len() == self.rows.len()) {
            // Equal rows cannot be told apart: whoever cuts leaves to size cuts them anywhere.
            return vec![Node { leaves: 1, ..self.clone() }];
        }
        let members: Vec<&[u32]> = order.iter().map(|label| groups.of(*label as usize)).collect();
        let counts: Vec<usize> = members.iter().map(|members| members.len()).collect();
        let shares = shares(&counts, self.leaves);
        let mut random = Random::new(self.path, 1);
        let child = |(members, leaves): (&[u32], u32)| {
            let rows = members.iter().map(|member| self.rows[*member as usize]).collect();
            Node { rows, leaves, path: random.next() }
        };
        members.into_iter().zip(shares).filter(|(_, leaves)| *leaves > 0).map(child).collect()
    }
}

/// Divides `leaves` by `counts`: a share of at least 1 for whoever has rows, as far as there are enough.
fn shares(counts: &[usize], leaves: u32) -> Vec<u32> {
    let mut shares: Vec<u32> = counts.iter().map(|count| u32::from(*count > 0)).collect();
    for _ in shares.iter().sum::<u32>()..leaves {
        // To whoever has the most rows a leaf. Comparing products keeps this in whole numbers.
        let most = (0..counts.len()).reduce(|best, other| {
            let best_is_fuller =
                counts[best] as u64 * u64::from(shares[other]) >= counts[other] as u64 * u64::from(shares[best]);
            if shares[other] == 0 || (shares[best] > 0 && best_is_fuller) { best } else { other }
        });
        if let Some(most) = most {
            shares[most] += 1;
        }
    }
    shares
}

/// `k` centroids of `rows`, by Lloyd's rounds on a part of them. Fewer different rows than centroids: some are equal.
pub(crate) fn k_means(rows: Rows<'_>, k: u32, seed: u64, threads: usize) -> Vec<f32> {
    let all: Vec<u32> = (0..crate::number(rows.len())).collect();
    k_means_of(rows, &all, k, seed, threads)
}

/// The same for some `members` of `rows`. Memory: a copy of the part.
fn k_means_of(rows: Rows<'_>, members: &[u32], k: u32, seed: u64, threads: usize) -> Vec<f32> {
    let mut random = Random::new(seed, 0);
    let part = random.sample(crate::number(members.len()), k.saturating_mul(ROWS_PER_CENTROID));
    let values = rows.gather(&part.into_iter().map(|at| members[at as usize]).collect::<Vec<u32>>());
    let part = Rows::new(&values, rows.dimension());
    let mut first = random.sample(crate::number(part.len()), k);
    while first.len() < k as usize {
        first.push(first.first().copied().unwrap_or(0));
    }
    if part.is_empty() {
        return vec![0.0; k as usize * rows.dimension()];
    }
    let mut centroids = part.gather(&first);
    for _ in 0..ROUNDS {
        let panels = Panels::new(Rows::new(&centroids, rows.dimension()));
        let labels = lanes::nearest(part, &panels, threads);
        centroids = means(part, &labels, &centroids, threads);
        revive(part, &labels, &mut centroids, &mut random);
    }
    centroids
}

/// Centroids without rows go where the fullest are: to a row of the fullest's.
fn revive(rows: Rows<'_>, labels: &[u32], centroids: &mut [f32], random: &mut Random) {
    let groups = Groups::new(labels, centroids.len() / rows.dimension());
    let empty = (0..groups.len()).filter(|label| groups.of(*label).is_empty());
    let Some(fullest) = (0..groups.len()).max_by_key(|label| groups.of(*label).len()) else { return };
    let members = groups.of(fullest);
    for label in empty {
        let member = members[random.below(crate::number(members.len())) as usize];
        let at = label * rows.dimension();
        centroids[at..at + rows.dimension()].copy_from_slice(rows.get(member as usize));
    }
}

/// An order of `centroids` in which neighbours are near: from one far out, always on to the nearest that is left.
fn chain(centroids: Rows<'_>) -> Vec<u32> {
    let squared = |a: u32, b: u32| {
        let pair = centroids.get(a as usize).iter().zip(centroids.get(b as usize));
        pair.map(|(a, b)| (a - b) * (a - b)).sum::<f32>()
    };
    let mut left: Vec<u32> = (0..crate::number(centroids.len())).collect();
    let farthest_from = |from: u32, left: &[u32]| {
        (0..left.len()).max_by(|a, b| squared(from, left[*a]).total_cmp(&squared(from, left[*b]))).unwrap_or(0)
    };
    let mut order = vec![left.swap_remove(farthest_from(0, &left))];
    while let Some(last) = order.last().copied().filter(|_| !left.is_empty()) {
        let next = (0..left.len()).min_by(|a, b| squared(last, left[*a]).total_cmp(&squared(last, left[*b])));
        order.push(left.swap_remove(next.unwrap_or(0)));
    }
    order
}
