//! Turns: how many bodies may be in an isolate's memory at once.
//!
//! A request takes a [`Permit`] before its body is read and keeps it until it is answered. Small bodies have memory of
//! their own, so that they never wait behind large ones; within each kind, whoever came first is first. One request
//! cannot wake another: who waits, polls.

use model::{Timestamp, limits};
use runtime::Runtime;
use std::cell::{Cell, RefCell};

/// Memory that a body needs, as a multiple of its length: itself and what is parsed of it, or that and the fragment.
/// Few bodies need a third part.
const BODY_FACTOR: usize = 3;
/// What a request with a body needs besides, in bytes.
const REQUEST_BYTES: usize = 16 * 1024;
/// Pause between two looks at the queue, in ms, for the first in it; the others pause longer.
const POLL_MS: u64 = 3;
/// Longest pause, in multiples of [`POLL_MS`].
const POLL_FACTOR_MAX: u64 = 8;
/// Who has not looked for so long, in ms, is gone: an isolate may drop a request without running its destructors.
const ABSENT_MS: u64 = 5_000;
/// So long a permit lasts at most, in ms: by then its request has been answered or is gone.
const PERMIT_MS: u64 = limits::BODY_TIMEOUT_MS + 2 * limits::REQUEST_DEADLINE_MS;

/// The memory of an isolate that is set aside for requests with a body.
pub struct Intake {
    small: Share,
    large: Share,
}

impl Default for Intake {
    fn default() -> Self {
        Intake { small: Share::of(limits::SMALL_BODIES_BYTES), large: Share::of(limits::LARGE_BODIES_BYTES) }
    }
}

impl Intake {
    /// Waits for the turn of a request whose body has `body_bytes` bytes; `None` if it does not come within
    /// [`limits::INTAKE_TIMEOUT_MS`].
    pub async fn turn<R: Runtime>(&self, body_bytes: usize, runtime: &R) -> Option<Permit<'_>> {
        let share = if body_bytes <= limits::SMALL_BODY_BYTES_MAX { &self.small } else { &self.large };
        share.turn(body_bytes * BODY_FACTOR + REQUEST_BYTES, runtime).await
    }
}

/// Memory that requests take turns to use.
struct Share {
    bytes: usize,
    /// Who uses it and who waits for it, in the order in which they came.
    entries: RefCell<Vec<Entry>>,
    tickets: Cell<u64>,
}

struct Entry {
    ticket: u64,
    bytes: usize,
    admitted: bool,
    /// Then it is forgotten.
    until: Timestamp,
}

/// The right to have a body in memory. Dropping it, at any time, passes the turn on.
pub struct Permit<'a> {
    share: &'a Share,
    ticket: u64,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.share.entries.borrow_mut().retain(|entry| entry.ticket != self.ticket);
    }
}

impl Share {
    fn of(bytes: usize) -> Self {
        Share { bytes, entries: RefCell::default(), tickets: Cell::default() }
    }

    /// A permit for `bytes` bytes, or for all there are if those are fewer.
    async fn turn<R: Runtime>(&self, bytes: usize, runtime: &R) -> Option<Permit<'_>> {
        self.tickets.set(self.tickets.get() + 1);
        let permit = Permit { share: self, ticket: self.tickets.get() };
        let gives_up_at = runtime.now().plus_ms(limits::INTAKE_TIMEOUT_MS);
        loop {
            let now = runtime.now();
            let Some(ahead) = self.look(permit.ticket, bytes.min(self.bytes), now) else { return Some(permit) };
            if now >= gives_up_at {
                return None;
            }
            runtime.sleep(POLL_MS * (1 + ahead).min(POLL_FACTOR_MAX)).await;
        }
    }

    /// Admits `ticket` if it is its turn; else says how many wait before it.
    fn look(&self, ticket: u64, bytes: usize, now: Timestamp) -> Option<u64> {
        let mut entries = self.entries.borrow_mut();
        entries.retain(|entry| entry.ticket == ticket || entry.until > now);
        let at = entries.iter().position(|entry| entry.ticket == ticket).unwrap_or_else(|| {
            entries.push(Entry { ticket, bytes, admitted: false, until: now });
            entries.len() - 1
        });
        let used: usize = entries.iter().filter(|entry| entry.admitted).map(|entry| entry.bytes).sum();
        let ahead = entries[..at].iter().filter(|entry| !entry.admitted).count();
        let admitted = ahead == 0 && used + bytes <= self.bytes;
        entries[at].admitted = admitted;
        entries[at].until = now.plus_ms(if admitted { PERMIT_MS } else { ABSENT_MS });
        (!admitted).then_some(ahead as u64)
    }
}

#[cfg(test)]
mod tests;
