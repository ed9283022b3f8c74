//! How much of a collection's log waits for compaction, and what that means for those who write to it.

use model::{LogEnd, limits};

/// What a write has to do before it may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Nothing.
    Free,
    /// Wait so many milliseconds: the log grows faster than it is compacted.
    Slowed(u64),
    /// Come back later: the log is as long as it may get.
    Refused,
}

/// What becomes of a write to a log that ends at `end`, of which what lies before `compacted` is in segments.
///
/// Clients do not retry, so a bulk load must not meet a wall: it gets slower from a quarter of the limits on, by up to
/// [`limits::SLOWDOWN_MS_MAX`] a write, and is refused only beyond them.
pub(crate) fn admit(end: &LogEnd, compacted: &LogEnd) -> Admission {
    let unpacked = end.next.0.saturating_sub(end.packed.max(compacted.next).0);
    let parts = [
        (end.operations.saturating_sub(compacted.operations), limits::BACKLOG_OPERATIONS_MAX),
        (end.bytes.saturating_sub(compacted.bytes), limits::BACKLOG_BYTES_MAX),
        (unpacked, limits::BACKLOG_FRAGMENTS_MAX),
    ];
    if parts.into_iter().any(|(found, limit)| found > limit) {
        return Admission::Refused;
    }
    let thousandths = parts.into_iter().map(|(found, limit)| found * 1_000 / limit).max().unwrap_or(0);
    match thousandths.checked_sub(250) {
        None => Admission::Free,
        Some(above) => Admission::Slowed(limits::SLOWDOWN_MS_MAX * above * above / (750 * 750)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Lsn;

    fn with_operations(operations: u64) -> Admission {
        admit(&LogEnd { operations, ..LogEnd::EMPTY }, &LogEnd::EMPTY)
    }

    #[test]
    fn writes_get_slower_and_slower_before_they_are_refused() {
        let max = limits::BACKLOG_OPERATIONS_MAX;
        assert_eq!(with_operations(0), Admission::Free);
        assert_eq!(with_operations(max / 4 - 1), Admission::Free);
        assert_eq!(with_operations(max / 4), Admission::Slowed(0));
        let pauses: Vec<Admission> = (1..=4).map(|quarter| with_operations(max / 4 * quarter)).collect();
        let Admission::Slowed(half) = pauses[1] else { panic!("{pauses:?}") };
        assert!((1..limits::SLOWDOWN_MS_MAX / 4).contains(&half), "{pauses:?}");
        assert_eq!(pauses[3], Admission::Slowed(limits::SLOWDOWN_MS_MAX));
        assert_eq!(with_operations(max + 1), Admission::Refused);
    }

    #[test]
    fn packed_fragments_do_not_count() {
        let next = Lsn(10 * limits::BACKLOG_FRAGMENTS_MAX);
        assert_eq!(admit(&LogEnd { next, ..LogEnd::EMPTY }, &LogEnd::EMPTY), Admission::Refused);
        assert_eq!(admit(&LogEnd { next, packed: next, ..LogEnd::EMPTY }, &LogEnd::EMPTY), Admission::Free);
        assert_eq!(admit(&LogEnd { next, ..LogEnd::EMPTY }, &LogEnd { next, ..LogEnd::EMPTY }), Admission::Free);
    }

    #[test]
    fn bytes_count_as_well() {
        let bytes = limits::BACKLOG_BYTES_MAX + 1;
        assert_eq!(admit(&LogEnd { bytes, ..LogEnd::EMPTY }, &LogEnd::EMPTY), Admission::Refused);
    }
}
