//! New rows into an index that is there: what changes little is not built anew.
//!
//! Rows are filed under the leaves that are there ([`file()`]). Only where that leaves one too full or nearly empty are leaves
//! rearranged ([`affected`], [`rearrange`]): a full one is split, an empty one dissolved, and rows of the leaves around them that are
//! nearer to a new centroid move there. All other leaves keep their centroids, so the codes of their rows stay as they are
//! ([`crate::codes::LeafWriter::copy`], [`Table::push_from`]). All vectors here are as the table's frame sees them.
//!
//! Source: SPFresh's LIRE (Xu et al., SOSP 2023, arXiv:2410.14452), for segments that are written once.

use crate::cluster::{self, Clustering};
use crate::kmeans::Groups;
use crate::lanes::{self, Panels};
use crate::{Assigner, Rows, Table};
use std::collections::BTreeSet;

/// Leaves around one that changes whose rows may move.
const NEIGHBOURS: usize = 8;

/// All centroids of `table`: `[f32; leaves × d]`. Cost: `O(leaves × d)`.
pub fn centroids(table: &Table) -> Vec<f32> {
    (0..table.leaves()).flat_map(|leaf| table.centroid(leaf)).collect()
}

/// The leaf of each of `rows`, which are placed.
pub fn file(centroids: Rows<'_>, rows: Rows<'_>, threads: usize) -> Vec<u32> {
    Assigner::new(centroids, threads).assign(rows, threads)
}

/// Which leaves must be rearranged, ascending: those that will have more than the largest number of rows or less than an eighth of
/// the wanted one, and the nearest few of each.
///
/// - `counts`: rows that each leaf will have, the dead left out and the new counted.
pub fn affected(centroids: Rows<'_>, counts: &[u32], clustering: &Clustering) -> Vec<u32> {
    let panels = Panels::new(centroids);
    let mut scores = vec![0.0; panels.scores_len()];
    let mut affected = BTreeSet::new();
    for (leaf, _) in (0_u32..).zip(counts).filter(|(_, count)| is_out_of_size(**count, clustering)) {
        panels.scores(&[centroids.get(leaf as usize)], &mut scores);
        let mut order: Vec<u32> = (0..crate::number(counts.len())).collect();
        let by_score = |a: &u32, b: &u32| scores[*a as usize].total_cmp(&scores[*b as usize]).then_with(|| a.cmp(b));
        if NEIGHBOURS < order.len() {
            order.select_nth_unstable_by(NEIGHBOURS, by_score);
            order.truncate(NEIGHBOURS);
        }
        affected.insert(leaf);
        affected.extend(order);
    }
    affected.into_iter().collect()
}

fn is_out_of_size(count: u32, clustering: &Clustering) -> bool {
    count > clustering.leaf_rows_max || is_small(count, clustering)
}

fn is_small(count: u32, clustering: &Clustering) -> bool {
    count < (clustering.leaf_rows / 8).max(1)
}

/// A leaf in the place of one that was rearranged.
#[derive(Clone, Debug, PartialEq)]
pub struct Rearranged {
    /// The leaf whose place it has. Several in one place are neighbours; none is possible too.
    pub place: u32,
    /// `None`: that leaf's own centroid, so that rows that were in it keep their codes.
    pub centroid: Option<Vec<f32>>,
    /// How far its rows are from the centroid: the root of the mean square.
    pub radius: f32,
    /// Which of the rows that were given: ascending.
    pub members: Vec<u32>,
}

/// Rearranges the `affected` leaves. None of the result is above the largest size.
///
/// - `rows`: all that will be in these leaves, old and new, placed; `labels`: the leaf each is filed under.
///
/// Cost: a product of each row with each of the affected leaves of its surroundings.
pub fn rearrange(
    centroids: Rows<'_>,
    affected: &[u32],
    rows: Rows<'_>,
    labels: &[u32],
    clustering: &Clustering,
) -> Vec<Rearranged> {
    let targets = targets(centroids, affected, rows, labels, clustering);
    if targets.is_empty() {
        return Vec::new();
    }
    let values: Vec<f32> = targets.iter().flat_map(|target| target.position.iter().copied()).collect();
    let filed = if targets.len() > 64 {
        Assigner::new(Rows::new(&values, rows.dimension()), clustering.threads).assign(rows, clustering.threads)
    } else {
        lanes::nearest(rows, &Panels::new(Rows::new(&values, rows.dimension())), clustering.threads)
    };
    let groups = Groups::new(&filed, targets.len());
    let mut leaves = Vec::new();
    for (at, Target { place, position, is_new }) in targets.into_iter().enumerate() {
        let members = groups.of(at).to_vec();
        if members.len() > clustering.leaf_rows_max as usize {
            let parts = cluster::split(rows, members, clustering).into_iter();
            leaves.extend(parts.map(|(members, centroid)| leaf(rows, place, &centroid, true, members)));
        } else if !members.is_empty() {
            leaves.push(leaf(rows, place, &position, is_new, members));
        }
    }
    leaves
}

fn leaf(rows: Rows<'_>, place: u32, centroid: &[f32], is_new: bool, members: Vec<u32>) -> Rearranged {
    let radius = cluster::radius(members.iter().map(|row| rows.get(*row as usize)), centroid);
    Rearranged { place, centroid: is_new.then(|| centroid.to_vec()), radius, members }
}

/// A centroid that rows may be filed under.
struct Target {
    place: u32,
    position: Vec<f32>,
    is_new: bool,
}

/// Full leaves give the centroids of their halves, empty ones none, all others their own. If all are empty, the first stays.
fn targets(
    centroids: Rows<'_>,
    affected: &[u32],
    rows: Rows<'_>,
    labels: &[u32],
    clustering: &Clustering,
) -> Vec<Target> {
    let local: Vec<u32> =
        labels.iter().map(|label| crate::number(affected.partition_point(|leaf| leaf < label))).collect();
    let groups = Groups::new(&local, affected.len() + 1);
    let mut targets = Vec::new();
    for (at, place) in affected.iter().copied().enumerate() {
        let members = groups.of(at);
        let own = || Target { place, position: centroids.get(place as usize).to_vec(), is_new: false };
        if members.len() > clustering.leaf_rows_max as usize {
            let parts = cluster::split(rows, members.to_vec(), clustering).into_iter();
            targets.extend(parts.map(|(_, position)| Target { place, position, is_new: true }));
        } else if !is_small(crate::number(members.len()), clustering) {
            targets.push(own());
        }
    }
    if targets.is_empty() && !affected.is_empty() {
        let place = affected[0];
        targets.push(Target { place, position: centroids.get(place as usize).to_vec(), is_new: false });
    }
    targets
}

#[cfg(test)]
mod tests;
