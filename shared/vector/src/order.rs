//! An order of leaves in which those near each other are side by side, at every scale: what a query wants is then few byte ranges.

use crate::{Rows, codes, kmeans};

/// An order of `centroids`: they are cut in two clusters again and again, and of the two that which is nearer to what comes
/// before (or farther from what comes behind) goes first. Cost: some ten products a centroid and level.
pub(crate) fn order(centroids: Rows<'_>, seed: u64) -> Vec<u32> {
    let mut ordered = Vec::with_capacity(centroids.len());
    let all = (0..crate::number(centroids.len())).collect();
    bisect(centroids, all, Beside { before: None, behind: None }, seed, &mut ordered);
    ordered
}

/// The centres of the clusters on both sides.
#[derive(Clone, Copy)]
struct Beside<'a> {
    before: Option<&'a [f32]>,
    behind: Option<&'a [f32]>,
}

fn bisect(centroids: Rows<'_>, members: Vec<u32>, beside: Beside<'_>, seed: u64, ordered: &mut Vec<u32>) {
    if members.len() < 2 {
        ordered.extend(members);
        return;
    }
    let values = centroids.gather(&members);
    let (low, high) = halves(Rows::new(&values, centroids.dimension()), seed);
    let members_of = |half: &[u32]| half.iter().map(|at| members[*at as usize]).collect::<Vec<u32>>();
    let (low, high) = (members_of(&low), members_of(&high));
    let centre = |half: &[u32]| kmeans::mean(half.iter().map(|at| centroids.get(*at as usize)), centroids.dimension());
    let (a, b) = (centre(&low), centre(&high));
    let apart = |side: Option<&[f32]>, centre: &[f32]| side.map_or(0.0, |side| squared(side, centre));
    let straight = apart(beside.before, &a) + apart(beside.behind, &b);
    let turned = apart(beside.before, &b) + apart(beside.behind, &a);
    let (first, second) = if straight <= turned { ((low, &a), (high, &b)) } else { ((high, &b), (low, &a)) };
    bisect(centroids, first.0, Beside { behind: Some(second.1), ..beside }, seed, ordered);
    bisect(centroids, second.0, Beside { before: Some(first.1), ..beside }, seed, ordered);
}

/// `rows` in two clusters of which none has less than an eighth, so that cutting on ends soon.
fn halves(rows: Rows<'_>, seed: u64) -> (Vec<u32>, Vec<u32>) {
    let centres = kmeans::k_means(rows, 2, seed, 1);
    let (a, b) = centres.split_at(rows.dimension());
    let direction: Vec<f32> = a.iter().zip(b).map(|(a, b)| b - a).collect();
    let middle = 0.5 * (codes::dot(a, &direction) + codes::dot(b, &direction));
    let mut along: Vec<(f32, u32)> =
        (0_u32..).zip(rows.iter()).map(|(at, row)| (codes::dot(row, &direction), at)).collect();
    along.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    let least = (along.len() / 8).max(1);
    let cut = along.partition_point(|(along, _)| *along < middle).clamp(least, along.len() - least);
    let high = along.split_off(cut);
    let numbers = |half: Vec<(f32, u32)>| half.into_iter().map(|(_, at)| at).collect();
    (numbers(along), numbers(high))
}

fn squared(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}
