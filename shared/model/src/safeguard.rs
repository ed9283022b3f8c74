//! The rules that keep the log and its index exact, by name, so that a simulation can leave one out and show what it is good for.
//!
//! Outside tests every rule [`holds`], which the compiler knows: the code of a rule left out is never built into a Worker.

/// A rule without which acknowledged data would be lost, doubled or hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safeguard {
    /// Each body of a fragment has a random nonce of its own, so that nobody takes another's for his.
    FreshNonce,
    /// Where a put of unknown outcome left nothing, the *same body* is put again: the first may still arrive.
    SameBody,
    /// After a put of unknown outcome no other LSN is tried until a look has shown what is there.
    SameLsn,
    /// Nobody joins a group of writes whose body was made: he would be told that he is in it.
    FrozenBody,
    /// That a fragment is absent proves something only to who asked for it: the next read asks again.
    ProbeOfOnesOwn,
    /// An LSN is claimed only on a young catalog row: what exists above its gc floor has not been collected.
    FreshRowBeforeClaim,
    /// A write is acknowledged only on a young row whose gc floor is not above it.
    CheckAfterReply,
    /// A strong answer rests on a row that was young when the answer was there.
    AgeOfStrongRead,
    /// A read that began with a known row counts only if nothing that it had to read has been collected since.
    FloorAfterRead,
    /// What a compactor makes has a random name: nobody takes another's object for his.
    RandomNames,
    /// A delete by filter goes directly behind what was read to find its records, or is evaluated again.
    ClaimAtResolved,
    /// Who started more than one pass of garbage collection ago may not publish: it could name what has been deleted.
    GcEpochFence,
    /// What is below the gc floor is deleted only when the floor is old: somebody may still go by what was true before.
    GcDelay,
    /// Garbage collection raises the epoch before it reads which objects are named: whoever names others later is refused.
    EpochBeforeManifests,
}

/// Whether the rule is in force: always.
#[cfg(not(feature = "test-util"))]
#[inline(always)]
pub const fn holds(_: Safeguard) -> bool {
    true
}

#[cfg(feature = "test-util")]
thread_local! {
    static LEFT_OUT: std::cell::Cell<Option<Safeguard>> = const { std::cell::Cell::new(None) };
}

/// Whether the rule is in force: unless this thread runs inside [`without`] it.
#[cfg(feature = "test-util")]
pub fn holds(safeguard: Safeguard) -> bool {
    LEFT_OUT.get() != Some(safeguard)
}

/// Runs `action` as if nobody had thought of `safeguard`.
#[cfg(feature = "test-util")]
pub fn without<T>(safeguard: Safeguard, action: impl FnOnce() -> T) -> T {
    struct Restore(Option<Safeguard>);
    impl Drop for Restore {
        fn drop(&mut self) {
            LEFT_OUT.set(self.0);
        }
    }
    let _restore = Restore(LEFT_OUT.replace(Some(safeguard)));
    action()
}
