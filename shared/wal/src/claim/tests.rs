//! Each test tells one story of replies and checks the steps. `own` and `other` are what a look may find.

use super::*;
use model::CollectionId;

const NOW: Timestamp = Timestamp(1_000_000_000);
const SECOND: u64 = 1_000;

fn row(floor: u64, age_ms: u64) -> RowView {
    RowView {
        gc_floor: Lsn(floor),
        compacted: LogEnd { next: Lsn(floor), ..LogEnd::EMPTY },
        requested_at: Timestamp(NOW.0 - age_ms),
    }
}

fn end(next: u64) -> LogEnd {
    LogEnd { next: Lsn(next), last_nonce: Nonce(77), last_created_at: NOW, ..LogEnd::EMPTY }
}

fn anywhere(next: u64, row: RowView) -> Claim {
    Claim::anywhere(end(next), row, NOW.plus_ms(30 * SECOND))
}

fn header(lsn: u64, nonce: u128, set_hash: u128) -> FragmentHeader {
    FragmentHeader {
        collection: CollectionId::from_u128(1),
        lsn: Lsn(lsn),
        nonce: Nonce(nonce),
        previous: Nonce(77),
        count: 1,
        set_hash: SetHash(set_hash),
        created_at: NOW,
        log_operations: lsn + 1,
        log_bytes: 1,
        packed: Lsn(0),
        requests: Vec::new(),
    }
}

/// Encodes with nonce 5 and set-hash 9 and puts.
fn put(claim: &mut Claim, lsn: u64, reply: PutReply) {
    if let Step::Encode(end) = claim.step(NOW) {
        assert_eq!(end.next, Lsn(lsn));
        claim.body(&header(lsn, 5, 9));
    }
    assert_eq!(claim.step(NOW), Step::Put(Lsn(lsn)));
    assert_eq!(claim.put(reply), reply == PutReply::Busy);
}

#[track_caller]
fn check_written(claim: &mut Claim, lsn: u64) {
    assert_eq!(claim.step(NOW), Step::Done(Ok(header(lsn, 5, 9).as_end())));
}

#[test]
fn a_warm_uncontended_write_is_one_put() {
    let mut claim = anywhere(4, row(0, 0));
    put(&mut claim, 4, PutReply::Written);
    check_written(&mut claim, 4);
}

#[test]
fn an_old_row_is_read_again_before_the_put() {
    let mut claim = anywhere(4, row(0, 61 * SECOND));
    assert_eq!(claim.step(NOW), Step::RefreshRow);
    claim.row(row(0, 0));
    put(&mut claim, 4, PutReply::Written);
    check_written(&mut claim, 4);
}

#[test]
fn an_end_below_the_floor_is_not_claimed() {
    let mut claim = anywhere(4, row(0, 61 * SECOND));
    assert_eq!(claim.step(NOW), Step::RefreshRow);
    claim.row(row(5, 0));
    assert_eq!(claim.step(NOW), Step::Done(Err(ClaimError::StaleEnd)));
}

#[test]
fn a_lost_reply_is_resolved_by_the_own_nonce() {
    let mut claim = anywhere(4, row(0, 0));
    put(&mut claim, 4, PutReply::Unknown);
    assert_eq!(claim.step(NOW), Step::Look(Lsn(4)));
    claim.looked(Some(&header(4, 5, 9)));
    check_written(&mut claim, 4);
}

#[test]
fn the_own_nonce_with_another_set_hash_is_another_body() {
    let mut claim = anywhere(4, row(0, 0));
    put(&mut claim, 4, PutReply::Unknown);
    claim.looked(Some(&header(4, 5, 8)));
    assert!(matches!(claim.step(NOW), Step::Encode(end) if end.next == Lsn(5)));
}

#[test]
fn after_an_unknown_put_only_the_same_lsn_is_tried() {
    let mut claim = anywhere(4, row(0, 0));
    put(&mut claim, 4, PutReply::Unknown);
    claim.looked(None);
    for reply in [PutReply::Busy, PutReply::Unknown] {
        put(&mut claim, 4, reply);
        if reply == PutReply::Unknown {
            assert_eq!(claim.step(NOW), Step::Look(Lsn(4)));
            claim.looked(None);
        }
    }
    assert_eq!(claim.step(NOW), Step::Put(Lsn(4)), "no fresh body, no other LSN");
    let _ = claim.put(PutReply::Taken);
    claim.looked(Some(&header(4, 5, 9)));
    check_written(&mut claim, 4);
}

#[test]
fn a_taken_lsn_is_looked_at_and_the_next_one_follows_its_nonce() {
    let mut claim = anywhere(4, row(0, 0));
    put(&mut claim, 4, PutReply::Taken);
    assert_eq!(claim.step(NOW), Step::Look(Lsn(4)));
    claim.looked(Some(&header(4, 6, 9)));
    let Step::Encode(next) = claim.step(NOW) else { panic!("a fresh body is due") };
    assert_eq!((next.next, next.last_nonce), (Lsn(5), Nonce(6)));
    put(&mut claim, 5, PutReply::Written);
    check_written(&mut claim, 5);
}

#[test]
fn a_put_that_the_transport_repeated_finds_itself_behind_412() {
    let mut claim = anywhere(4, row(0, 0));
    put(&mut claim, 4, PutReply::Taken);
    claim.looked(Some(&header(4, 5, 9)));
    check_written(&mut claim, 4);
}

#[test]
fn success_on_an_old_row_is_checked_before_it_is_acknowledged() {
    let mut claim = anywhere(4, row(0, 0));
    put(&mut claim, 4, PutReply::Written);
    let late = NOW.plus_ms(limits::ANSWER_ROW_AGE_MAX_MS);
    claim.deadline = late.plus_ms(SECOND);
    assert_eq!(claim.step(late), Step::RefreshRow);
    claim.row(RowView { requested_at: late, ..row(5, 0) });
    assert_eq!(claim.step(late), Step::Done(Err(ClaimError::Unknown)), "the floor passed the LSN");
}

#[test]
fn an_older_row_does_not_replace_a_newer_one() {
    let mut claim = anywhere(4, row(0, 0));
    claim.row(row(9, 10));
    put(&mut claim, 4, PutReply::Written);
    check_written(&mut claim, 4);
}

#[test]
fn an_exact_claim_ends_with_the_first_other_body() {
    let mut claim = Claim::exactly(end(4), row(0, 0), NOW.plus_ms(SECOND));
    put(&mut claim, 4, PutReply::Taken);
    claim.looked(Some(&header(4, 6, 9)));
    assert_eq!(claim.step(NOW), Step::Done(Err(ClaimError::Conflict(Lsn(4)))));
}

#[test]
fn the_deadline_tells_not_written_from_unknown() {
    let late = NOW.plus_ms(31 * SECOND);
    let mut claim = anywhere(4, row(0, 0));
    put(&mut claim, 4, PutReply::Busy);
    assert_eq!(claim.step(late), Step::Done(Err(ClaimError::NotWritten)));
    let mut claim = anywhere(4, row(0, 0));
    put(&mut claim, 4, PutReply::Taken);
    assert_eq!(claim.step(late), Step::Done(Err(ClaimError::NotWritten)));
    let mut claim = anywhere(4, row(0, 0));
    put(&mut claim, 4, PutReply::Unknown);
    assert_eq!(claim.step(late), Step::Done(Err(ClaimError::Unknown)));
    let mut claim = anywhere(4, row(0, 0));
    put(&mut claim, 4, PutReply::Unknown);
    claim.looked(None);
    assert_eq!(claim.step(late), Step::Done(Err(ClaimError::Unknown)), "a late put may still land");
}

#[test]
fn an_unknown_put_below_the_floor_stays_unknown() {
    let mut claim = anywhere(4, row(0, 0));
    put(&mut claim, 4, PutReply::Unknown);
    claim.row(row(5, 0));
    assert_eq!(claim.step(NOW), Step::Done(Err(ClaimError::Unknown)));
}

#[test]
fn a_writer_that_loses_every_race_gives_up_within_its_bound() {
    let mut claim = anywhere(0, row(0, 0));
    for lsn in 0..u64::from(limits::CLAIM_ATTEMPTS_MAX) {
        put(&mut claim, lsn, PutReply::Taken);
        claim.looked(Some(&header(lsn, 6, 9)));
    }
    assert_eq!(claim.step(NOW), Step::Done(Err(ClaimError::NotWritten)));
}

#[test]
fn a_loser_goes_on_where_others_of_its_isolate_have_been() {
    let mut claim = anywhere(4, row(0, 0));
    put(&mut claim, 4, PutReply::Taken);
    claim.skip_to(end(9));
    assert_eq!(claim.step(NOW), Step::Look(Lsn(4)), "not before it is clear that this LSN is lost");
    claim.looked(Some(&header(4, 6, 9)));
    claim.skip_to(end(9));
    claim.skip_to(end(7));
    put(&mut claim, 9, PutReply::Written);
    check_written(&mut claim, 9);
}

#[test]
fn whoever_goes_on_with_a_stopped_claim_looks_before_anything_else() {
    let mut claim = anywhere(4, row(0, 0));
    claim.resume();
    let Step::Encode(_) = claim.step(NOW) else { panic!("nothing was under way") };
    claim.body(&header(4, 5, 9));
    claim.resume();
    assert_eq!(claim.step(NOW), Step::Look(Lsn(4)));
    claim.looked(None);
    assert_eq!(claim.step(NOW), Step::Put(Lsn(4)), "the same body at the same LSN");
    assert!(!claim.put(PutReply::Written));
    claim.resume();
    check_written(&mut claim, 4);
}
