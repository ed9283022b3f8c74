//! Which segments to merge: pure.

use model::SegmentRef;

/// Live segments beyond which some are merged, usually: each costs every read a few requests.
pub const SEGMENTS_MAX: usize = 4;
/// A segment of whose rows more than one in this many is dead is rebuilt.
const DEAD_SHARE: u32 = 4;

/// The numbers of the segments to merge next, ascending; `None` if all is well.
///
/// Size-tiered: if there are more than `segments_max`, the smallest ones are merged, and with them whatever is no larger than what they are
/// together, so that a row is written again only when its surroundings have about doubled. A segment of whose rows too many
/// are dead is rebuilt, alone if need be. What would have more than `rows_max` rows is not merged: a job's memory is bounded.
pub(crate) fn due(segments: &[SegmentRef], segments_max: usize, rows_max: u32) -> Option<Vec<usize>> {
    let mut by_size: Vec<usize> = (0..segments.len()).collect();
    by_size.sort_by_key(|number| segments[*number].live_rows());
    let is_too_many = segments.len() > segments_max;
    let mut chosen = if is_too_many { smallest(segments, &by_size, segments_max, rows_max) } else { Vec::new() };
    if chosen.is_empty() {
        chosen = by_size.into_iter().filter(|number| is_mostly_dead(&segments[*number])).take(1).collect();
    }
    chosen.sort_unstable();
    (!chosen.is_empty()).then_some(chosen)
}

fn smallest(segments: &[SegmentRef], by_size: &[usize], segments_max: usize, rows_max: u32) -> Vec<usize> {
    let (mut chosen, mut rows) = (Vec::new(), 0_u32);
    for number in by_size {
        let own = segments[*number].live_rows();
        let left = segments.len() - chosen.len() + 1;
        let is_needed = chosen.len() < 2 || left > segments_max;
        if !(is_needed || own <= rows) || rows.saturating_add(own) > rows_max {
            break;
        }
        chosen.push(*number);
        rows += own;
    }
    if chosen.len() < 2 { Vec::new() } else { chosen }
}

fn is_mostly_dead(segment: &SegmentRef) -> bool {
    segment.dead_rows() > segment.rows / DEAD_SHARE
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use model::{DeleteVectorPlace, DeleteVectorRef, SetHash};

    /// A segment without an index, of which so many rows are dead.
    pub(crate) fn segment(rows: u32, dead: u32) -> SegmentRef {
        let place = DeleteVectorPlace::Inline(String::new());
        SegmentRef {
            prefix: String::new(),
            rows,
            dimension: 1,
            head_bytes: 0,
            ids_at: 0,
            bytes: 0,
            set_hash: SetHash::default(),
            index: None,
            text: None,
            dead: (dead > 0).then_some(DeleteVectorRef { count: dead, place }),
        }
    }

    #[track_caller]
    fn check(sizes: &[(u32, u32)], expect: Option<&[usize]>) {
        let segments: Vec<SegmentRef> = sizes.iter().map(|(rows, dead)| segment(*rows, *dead)).collect();
        assert_eq!(due(&segments, SEGMENTS_MAX, 1_000_000).as_deref(), expect, "{sizes:?}");
    }

    #[test]
    fn the_smallest_are_merged_when_there_are_too_many() {
        check(&[], None);
        check(&[(5, 0), (5, 0), (5, 0), (5, 0)], None);
        check(&[(1000, 0), (1, 0), (1, 0), (1, 0), (1, 0)], Some(&[1, 2, 3, 4]));
        check(&[(1000, 0), (400, 0), (100, 0), (10, 0), (10, 0)], Some(&[3, 4]));
        check(&[(1000, 0), (400, 0), (100, 0), (10, 0), (3, 0)], Some(&[3, 4]));
        check(&[(15, 0), (4, 0), (3, 0), (2, 0), (1, 0)], Some(&[1, 2, 3, 4]));
    }

    #[test]
    fn all_become_one_if_only_one_may_be() {
        let of = |sizes: &[u32]| due(&sizes.iter().map(|rows| segment(*rows, 0)).collect::<Vec<_>>(), 1, u32::MAX);
        assert_eq!((of(&[]), of(&[5])), (None, None));
        assert_eq!(of(&[1000, 1, 20]), Some(vec![0, 1, 2]));
    }

    #[test]
    fn what_is_mostly_dead_is_rebuilt() {
        check(&[(100, 25)], None);
        check(&[(100, 26)], Some(&[0]));
        check(&[(100, 26), (50, 30)], Some(&[1]));
    }

    #[test]
    fn nothing_grows_beyond_what_memory_allows() {
        let segments: Vec<SegmentRef> = (0..6).map(|_| segment(600_000, 0)).collect();
        assert_eq!(due(&segments, SEGMENTS_MAX, 1_000_000), None);
        assert_eq!(due(&segments, 1, 1_000_000), None);
        assert_eq!(due(&segments, 1, 1_200_000), Some(vec![0, 1]));
    }

    /// The price of few segments: how often a row is written, merges included.
    #[test]
    fn a_row_is_written_a_few_times() {
        let (mut segments, mut written) = (Vec::new(), 0_u64);
        for _ in 0..1_000 {
            segments.push(segment(10, 0));
            written += 10;
            while let Some(inputs) = due(&segments, SEGMENTS_MAX, u32::MAX) {
                let rows = inputs.iter().map(|number| segments[*number].rows).sum();
                inputs.iter().rev().for_each(|number| drop(segments.remove(*number)));
                segments.push(segment(rows, 0));
                written += u64::from(rows);
            }
            assert!(segments.len() <= SEGMENTS_MAX);
        }
        let amplification = written / 10_000;
        assert!((2..=20).contains(&amplification), "each row was written {amplification} times");
    }
}
