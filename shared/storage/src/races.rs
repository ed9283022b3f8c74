//! Races of creators over one key, again and again: finds a store that checks a condition and writes in two steps, which
//! [`crate::probe`], one request after the other, cannot see.

use crate::{Etag, ObjectStore, ProbeError, PutError, PutMode};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};

/// Rivals in a race.
const RACERS: usize = 8;
/// Size of what each writes, in bytes: a small fragment's, so that the writes take their time.
const BODY_BYTES: usize = 4_096;
/// Broken races that are described; the others are counted.
const DESCRIBED_MAX: usize = 10;

/// What came of some races.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaceReport {
    /// Races in which exactly one creator was told that it won, all others that they lost (or that the store was busy), and
    /// the winner's body is what is read.
    pub won: u64,
    /// Races that nobody is known to have won, as replies were lost or the store was busy; nothing in them is wrong.
    pub undecided: u64,
    /// Puts that the store was too busy for: they wrote nothing.
    pub busy: u64,
    /// Puts of which it is unknown whether they wrote.
    pub ambiguous: u64,
    /// Races that a log does not survive: two winners, a winner whose body is not there, an object that nobody wrote.
    pub broken: u64,
    /// How the first of them were broken.
    pub descriptions: Vec<String>,
}

/// Holds races `0..count` under `prefix`, where nothing else may lie, `at_once` of them at a time.
///
/// Removes what it wrote. Cost of a race: 8 puts at once, a get, a delete. Errors: the store refuses puts, or does not
/// answer a read or a delete: nothing is known then of the remaining races.
pub async fn races(
    store: &impl ObjectStore,
    prefix: &str,
    count: u64,
    at_once: usize,
) -> Result<RaceReport, ProbeError> {
    let mut report = RaceReport::default();
    let mut outcomes =
        stream::iter(0..count).map(|number| race(store, format!("{prefix}{number}"))).buffer_unordered(at_once);
    while let Some(outcome) = outcomes.next().await {
        report.count(outcome?);
    }
    Ok(report)
}

/// What a race showed.
struct Race {
    key: String,
    replies: Vec<Result<Etag, PutError>>,
    /// Who wrote what is there.
    owner: Owner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Nobody,
    Racer(usize),
    /// What is there is not what any racer wrote.
    Stranger,
}

async fn race(store: &impl ObjectStore, key: String) -> Result<Race, ProbeError> {
    let bodies: Vec<Bytes> = (0..RACERS).map(|racer| body(&key, racer)).collect();
    let replies = join_all(bodies.iter().map(|body| store.put(&key, body.clone(), PutMode::Create))).await;
    let found = store.get(&key).await?;
    let owner = match found {
        None => Owner::Nobody,
        Some(found) => bodies.iter().position(|body| *body == found).map_or(Owner::Stranger, Owner::Racer),
    };
    store.delete(&key).await.map_err(ProbeError::Write)?;
    match replies.iter().find(|reply| matches!(reply, Err(PutError::Refused(_)))) {
        Some(Err(refused)) => Err(ProbeError::Write(refused.clone())),
        _ => Ok(Race { key, replies, owner }),
    }
}

fn body(key: &str, racer: usize) -> Bytes {
    format!("racer {racer} for {key} ").bytes().cycle().take(BODY_BYTES).collect()
}

/// What a race proves.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Won,
    Undecided,
    Broken(String),
}

fn verdict(replies: &[Result<Etag, PutError>], owner: Owner) -> Verdict {
    let winners: Vec<usize> = (0..replies.len()).filter(|racer| replies[*racer].is_ok()).collect();
    let has_losers = replies.contains(&Err(PutError::Precondition));
    match (winners.as_slice(), owner) {
        ([_, _, ..], _) => Verdict::Broken(format!("{} creators were told that they won", winners.len())),
        (_, Owner::Stranger) => Verdict::Broken("what is read was written by nobody".to_owned()),
        ([winner], Owner::Racer(owner)) if *winner == owner => Verdict::Won,
        ([winner], owner) => Verdict::Broken(format!("racer {winner} won, but what is read is of {owner:?}")),
        ([], Owner::Racer(owner)) if matches!(replies[owner], Err(PutError::Indeterminate(_))) => Verdict::Undecided,
        ([], Owner::Racer(owner)) => {
            Verdict::Broken(format!("racer {owner} was told that it did not write, but it did"))
        }
        ([], _) if has_losers => Verdict::Broken("creators lost, but nothing is there".to_owned()),
        ([], _) => Verdict::Undecided,
    }
}

impl RaceReport {
    fn count(&mut self, race: Race) {
        let of =
            |kind: fn(&PutError) -> bool| race.replies.iter().filter(|reply| reply.as_ref().is_err_and(kind)).count();
        self.busy += of(|error| matches!(error, PutError::Busy(_))) as u64;
        self.ambiguous += of(|error| matches!(error, PutError::Indeterminate(_))) as u64;
        match verdict(&race.replies, race.owner) {
            Verdict::Won => self.won += 1,
            Verdict::Undecided => self.undecided += 1,
            Verdict::Broken(how) => {
                self.broken += 1;
                if self.descriptions.len() < DESCRIBED_MAX {
                    self.descriptions.push(format!("{}: {how}", race.key));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! A good store, one that checks and writes in two steps, and each verdict by itself.

    use super::*;
    use crate::{Fault, Faulty, MemoryStore, OperationKind, ReadError};
    use runtime::{NativeRuntime, Runtime};
    use std::ops::Range;

    #[tokio::test]
    async fn a_good_store_has_one_winner_in_each_race_and_is_left_empty() {
        let store = MemoryStore::default();
        let report = races(&store, "races/", 50, 4).await.unwrap();
        assert_eq!(report, RaceReport { won: 50, ..RaceReport::default() });
        assert_eq!(store.list("", None).await, Ok(vec![]));
    }

    #[tokio::test]
    async fn a_store_that_checks_and_writes_in_two_steps_is_found_out() {
        struct TwoSteps(MemoryStore);
        impl ObjectStore for TwoSteps {
            async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
                self.0.get(key).await
            }
            async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
                self.0.get_range(key, range).await
            }
            async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
                self.0.head(key).await
            }
            async fn put(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Etag, PutError> {
                if mode != PutMode::Create {
                    return self.0.put(key, body, mode).await;
                }
                let is_free = self.0.head(key).await == Ok(None);
                NativeRuntime::new().sleep(1).await;
                if is_free { self.0.put(key, body, PutMode::Overwrite).await } else { Err(PutError::Precondition) }
            }
            async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
                self.0.list(prefix, start_after).await
            }
            async fn delete(&self, key: &str) -> Result<(), PutError> {
                self.0.delete(key).await
            }
        }
        let store = TwoSteps(MemoryStore::default());
        assert_eq!(crate::probe(&store, "probe").await, Ok(()), "one after the other all looks well");
        let report = races(&store, "races/", 20, 1).await.unwrap();
        assert_eq!((report.broken, report.descriptions.len()), (20, DESCRIBED_MAX));
    }

    #[tokio::test]
    async fn lost_replies_and_busy_stores_are_counted_apart() {
        let store = Faulty::new(MemoryStore::default(), NativeRuntime::new());
        store.inject(OperationKind::Put, Fault::ReplyLost);
        store.inject(OperationKind::Put, Fault::Refused);
        let report = races(&store, "races/", 2, 1).await.unwrap();
        assert_eq!(report, RaceReport { won: 1, undecided: 1, busy: 1, ambiguous: 1, ..RaceReport::default() });
    }

    #[test]
    fn verdicts() {
        let (won, lost) = (Ok(Etag("e".to_owned())), Err(PutError::Precondition));
        let (busy, unknown) = (Err(PutError::Busy(String::new())), Err(PutError::Indeterminate(String::new())));
        let is_broken = |replies: &[&Result<Etag, PutError>], owner| {
            let replies: Vec<_> = replies.iter().map(|reply| (*reply).clone()).collect();
            matches!(verdict(&replies, owner), Verdict::Broken(_))
        };
        assert!(is_broken(&[&won, &won], Owner::Racer(0)));
        assert!(is_broken(&[&won, &lost], Owner::Racer(1)));
        assert!(is_broken(&[&won, &lost], Owner::Nobody));
        assert!(is_broken(&[&won, &unknown], Owner::Racer(1)));
        assert!(is_broken(&[&lost, &busy], Owner::Nobody));
        assert!(is_broken(&[&lost, &unknown], Owner::Nobody));
        assert!(is_broken(&[&busy, &unknown], Owner::Racer(0)));
        assert!(is_broken(&[&unknown, &unknown], Owner::Stranger));
        assert!(!is_broken(&[&lost, &unknown], Owner::Racer(1)));
        assert!(!is_broken(&[&busy, &busy], Owner::Nobody));
        assert!(!is_broken(&[&won, &busy], Owner::Racer(0)));
    }
}
