//! Turns and groups, step by step.

use super::*;
use model::{LogEnd, Lsn, Nonce};
use wal::RowView;

const NOW: Timestamp = Timestamp(1_000_000);

fn deletion(id: &str) -> Vec<Operation> {
    vec![Operation::delete(id.into())]
}

fn append(operations: Vec<Operation>) -> Append {
    let row = RowView { gc_floor: Lsn(0), compacted: LogEnd::EMPTY, requested_at: NOW };
    Append::anywhere(operations, LogEnd::EMPTY, row, NOW)
}

fn end(nonce: u128) -> LogEnd {
    LogEnd { last_nonce: Nonce(nonce), ..LogEnd::EMPTY }
}

#[test]
fn turns_come_one_after_the_other() {
    let lane = Lane::default();
    let first = lane.take(NOW).expect("free");
    assert!(lane.take(NOW).is_none());
    drop(first);
    assert!(lane.take(NOW).is_some());
}

#[test]
fn who_beats_keeps_the_turn_and_who_is_silent_loses_it() {
    let lane = Lane::default();
    let first = lane.take(NOW).expect("free");
    let later = NOW.plus_ms(limits::SILENCE_MS + 1);
    first.beat(NOW.plus_ms(limits::BEAT_MS));
    assert!(lane.take(later).is_none());
    let much_later = later.plus_ms(limits::SILENCE_MS);
    let second = lane.take(much_later).expect("the first fell silent");
    assert!(!first.holds() && second.holds());
    first.beat(much_later);
    drop(first);
    assert!(second.holds(), "a turn that was lost takes nothing away");
}

#[test]
fn writes_share_a_group_until_it_is_frozen() {
    let lane = Lane::default();
    let (a, b) = (lane.join(deletion("a")), lane.join(deletion("b")));
    let mut ids = Vec::new();
    let frozen = b.freeze(&lane, |operations| {
        ids.extend(operations.iter().map(|operation| operation.id.0.clone()));
        append(operations)
    });
    assert_eq!(ids, ["a", "b"]);
    assert!(std::ptr::eq(frozen, a.append().expect("frozen for all")));
    let c = lane.join(deletion("c"));
    assert!(c.append().is_none(), "who comes later goes to the next group");
    a.settle(Ok(end(7)));
    assert_eq!((b.outcome(), c.outcome()), (Some(Ok(end(7))), None));
}

#[test]
fn who_leaves_in_time_is_not_written() {
    let lane = Lane::default();
    let (a, b) = (lane.join(deletion("a")), lane.join(deletion("b")));
    assert!(matches!(a.leave(), AppendError::NotWritten(_)));
    b.freeze(&lane, |operations| {
        assert_eq!(operations.len(), 1);
        append(operations)
    });
    assert!(matches!(b.leave(), AppendError::Unknown(_)));
}

#[test]
fn a_full_group_is_followed_by_another() {
    let lane = Lane::default();
    let vector = vec![1.0; limits::GROUP_BYTES_MAX / 4];
    let large = || vec![Operation { embedding: Some(vector.clone()), ..Operation::delete("a".into()) }];
    let (a, b) = (lane.join(large()), lane.join(large()));
    a.freeze(&lane, append);
    assert!(b.append().is_none());
    let c = lane.join(large());
    b.freeze(&lane, append);
    assert!(c.append().is_none(), "as much as a group may hold leaves no room");
    c.freeze(&lane, append);
}
