//! Who gets memory when, by a clock that stands still until everyone waits.

use super::*;
use futures_util::FutureExt;
use futures_util::future::join_all;
use runtime::{ManualRuntime, NativeRuntime};
use std::rc::Rc;
use std::time::Duration;

const KB: usize = 1024;
/// A body that takes a share of its own.
const LARGEST: usize = limits::BODY_BYTES_MAX;

/// What is used and who is known of a share.
fn usage(share: &Share) -> (usize, usize) {
    let entries = share.entries.borrow();
    (entries.iter().filter(|entry| entry.admitted).map(|entry| entry.bytes).sum(), entries.len())
}

/// The turn of such a body, if it comes without waiting.
fn at_once<'a>(intake: &'a Intake, bytes: usize) -> Option<Permit<'a>> {
    intake.turn(bytes, &NativeRuntime::new()).now_or_never().flatten()
}

#[test]
fn the_linker_is_told_the_limit() {
    assert!(include_str!("../../build.rs").contains("usize = 96 << 20;"));
    assert_eq!(limits::WORKER_MEMORY_BYTES, 96 << 20);
    const { assert!(limits::LARGE_BODIES_BYTES + limits::SMALL_BODIES_BYTES < limits::WORKER_MEMORY_BYTES) };
}

#[tokio::test]
async fn bodies_share_memory_until_it_is_full() {
    let intake = Intake::default();
    let (first, second) = (at_once(&intake, 10_000 * KB), at_once(&intake, 10_000 * KB));
    assert!(first.is_some() && second.is_some());
    assert!(at_once(&intake, 10_000 * KB).is_none(), "three are too many");
    drop(first);
    assert!(at_once(&intake, 10_000 * KB).is_some());
    drop(second);
    assert_eq!(usage(&intake.large), (0, 0), "what was dropped, waiting or not, has left nothing");
    let whole = at_once(&intake, LARGEST);
    assert!(whole.is_some() && at_once(&intake, 300 * KB).is_none());
}

#[tokio::test]
async fn small_bodies_do_not_wait_for_large_ones() {
    let intake = Intake::default();
    let _large = at_once(&intake, LARGEST).unwrap();
    let small: Vec<_> = (0..1000).map_while(|_| at_once(&intake, 4 * KB)).collect();
    assert!(small.len() > 200, "{}", small.len());
    let (used, _) = usage(&intake.small);
    assert!(used <= limits::SMALL_BODIES_BYTES);
}

#[tokio::test(start_paused = true)]
async fn turns_come_in_the_order_of_arrival() {
    let (intake, runtime) = (Intake::default(), NativeRuntime::new());
    let order = Rc::new(RefCell::new(Vec::new()));
    // Of all sizes: a smaller body does not overtake a larger one.
    let requests = [LARGEST, 20_000 * KB, LARGEST, 300 * KB, 300 * KB, 25_000 * KB, LARGEST];
    join_all(requests.iter().enumerate().map(|(index, bytes)| {
        let (intake, runtime, order) = (&intake, &runtime, Rc::clone(&order));
        async move {
            let _permit = intake.turn(*bytes, runtime).await.expect("a turn comes");
            order.borrow_mut().push(index);
            let (used, _) = usage(&intake.large);
            assert!(used <= limits::LARGE_BODIES_BYTES);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }))
    .await;
    assert_eq!(*order.borrow(), (0..requests.len()).collect::<Vec<_>>());
    assert_eq!(usage(&intake.large), (0, 0));
}

#[test]
fn a_turn_that_does_not_come_ends_with_the_deadline() {
    let (intake, clock) = (Intake::default(), ManualRuntime::default());
    let _holder = intake.turn(LARGEST, &clock).now_or_never().flatten().unwrap();
    let refused = intake.turn(LARGEST, &clock).now_or_never().expect("the clock moves with every pause");
    assert!(refused.is_none());
    assert!((limits::INTAKE_TIMEOUT_MS..limits::INTAKE_TIMEOUT_MS + 100).contains(&clock.now().0));
    assert_eq!(usage(&intake.large).1, 1, "who gave up waits no more");
}

#[test]
fn who_vanished_without_a_trace_is_forgotten() {
    let (intake, clock) = (Intake::default(), ManualRuntime::default());
    // As when an isolate drops a request: no destructor runs.
    std::mem::forget(intake.turn(LARGEST, &clock).now_or_never());
    clock.sleep(PERMIT_MS + 1).now_or_never();
    assert!(intake.large.look(1_000, 1, clock.now()).is_none(), "the holder is gone");
    intake.large.look(1_001, limits::LARGE_BODIES_BYTES, clock.now());
    assert_eq!(intake.large.look(1_002, 1, clock.now()), Some(1), "it waits behind another");
    clock.sleep(ABSENT_MS + 1).now_or_never();
    assert_eq!(intake.large.look(1_002, 1, clock.now()), None, "who no longer looks has left the queue");
}
