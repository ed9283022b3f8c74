//! What every adapter of [`ObjectStore`] promises, one function per promise.
//!
//! The suite runs natively against memory and against a real store, and inside workerd. It leaves its objects behind.

use crate::{
    Etag, Fault, Faulty, LIST_KEYS_MAX, ObjectStore, OperationKind, PutError, PutMode, ReadError, Retry, probe,
};
use bytes::Bytes;
use futures_util::future::join_all;
use model::limits;
use runtime::Runtime;
use std::fmt::Debug;
use std::ops::Range;

/// Keys over which creators (and updaters) race.
const RACES: usize = 25;
/// Rivals in a race.
const RACERS: usize = 8;
/// Size of the large body, in bytes.
const LARGE_BODY_BYTES: usize = 8 * 1024 * 1024;

/// Tries every promise on `store`, on keys under `prefix`, which must be fresh (a run leaves objects there).
///
/// Returns a line per promise: its name, and how it was broken, if it was. Cost: about 1,900 requests and 20 MB.
pub async fn run(
    store: &impl ObjectStore,
    runtime: &impl Runtime,
    prefix: &str,
) -> Vec<(&'static str, Result<(), String>)> {
    let mut report = Vec::new();
    macro_rules! promises {
        ($($name:ident($($runtime:ident)?))*) => {$(
            let prefix_of_promise = format!("{prefix}{}/", stringify!($name));
            let outcome = $name(store, $($runtime,)? &prefix_of_promise).await;
            report.push((stringify!($name), outcome.map_err(|broken| broken.0)));
        )*};
    }
    promises! {
        absence_is_no_error()
        what_was_created_is_read_at_once()
        create_leaves_the_first_body()
        of_racing_creators_one_wins()
        update_needs_the_current_etag()
        of_racing_updaters_one_wins()
        overwrite_replaces()
        ranges_end_with_the_object()
        an_empty_body_is_a_body()
        a_large_body_comes_back()
        any_text_can_be_a_key()
        unusable_keys_are_refused()
        listings_are_ordered_and_bounded_by_prefix_and_start()
        long_listings_come_in_pages()
        delete_is_idempotent_and_frees_the_key()
        the_probe_accepts_the_store()
        a_lost_reply_turns_an_own_success_into_a_precondition(runtime)
        a_busy_put_wrote_nothing(runtime)
        a_late_put_obeys_its_condition_when_it_arrives(runtime)
        unanswered_reads_are_repeated(runtime)
    }
    report
}

/// How a promise was broken.
struct Broken(String);

type Outcome = Result<(), Broken>;

impl From<ReadError> for Broken {
    fn from(error: ReadError) -> Self {
        Broken(format!("read: {error}"))
    }
}

impl From<PutError> for Broken {
    fn from(error: PutError) -> Self {
        Broken(format!("write: {error}"))
    }
}

fn ensure(holds: bool, broken: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(Broken(broken())) }
}

fn equal<T: PartialEq + Debug>(what: &str, got: &T, expect: &T) -> Outcome {
    ensure(got == expect, || format!("{what}: expected {expect:?}, got {got:?}"))
}

/// `get`, `head` and `body` agree; `None`: there is no object.
async fn holds(store: &impl ObjectStore, key: &str, body: Option<&str>) -> Outcome {
    let body = body.map(|body| Bytes::copy_from_slice(body.as_bytes()));
    equal(&format!("get {key:?}"), &store.get(key).await?, &body)?;
    equal(&format!("head {key:?}"), &store.head(key).await?, &body.map(|body| body.len() as u64))
}

async fn create(store: &impl ObjectStore, key: &str, body: &str) -> Result<Etag, PutError> {
    store.put(key, Bytes::copy_from_slice(body.as_bytes()), PutMode::Create).await
}

/// The put must be answered with 412.
fn precondition(what: &str, outcome: &Result<Etag, PutError>) -> Outcome {
    equal(what, outcome, &Err(PutError::Precondition))
}

async fn absence_is_no_error(store: &impl ObjectStore, prefix: &str) -> Outcome {
    let key = format!("{prefix}nothing");
    holds(store, &key, None).await?;
    equal("get_range", &store.get_range(&key, 0..10).await?, &None)?;
    equal("list", &store.list(prefix, None).await?, &vec![])
}

/// The read before asks for what is not there: no cache may remember that answer.
async fn what_was_created_is_read_at_once(store: &impl ObjectStore, prefix: &str) -> Outcome {
    for i in 0..20 {
        let (key, body) = (format!("{prefix}{i}"), format!("body {i}"));
        holds(store, &key, None).await?;
        equal("get_range", &store.get_range(&key, 0..4).await?, &None)?;
        create(store, &key, &body).await?;
        holds(store, &key, Some(&body)).await?;
        equal("get_range", &store.get_range(&key, 0..4).await?, &Some("body".into()))?;
        ensure(store.list(prefix, None).await?.contains(&key), || format!("{key} is not listed"))?;
    }
    Ok(())
}

async fn create_leaves_the_first_body(store: &impl ObjectStore, prefix: &str) -> Outcome {
    let key = format!("{prefix}a");
    create(store, &key, "first").await?;
    for body in ["second", "first", ""] {
        precondition("a second create", &create(store, &key, body).await)?;
        holds(store, &key, Some("first")).await?;
    }
    Ok(())
}

async fn of_racing_creators_one_wins(store: &impl ObjectStore, prefix: &str) -> Outcome {
    for race in 0..RACES {
        let key = format!("{prefix}{race}");
        let bodies: Vec<String> = (0..RACERS).map(|racer| format!("racer {racer}")).collect();
        let outcomes = join_all(bodies.iter().map(|body| create(store, &key, body))).await;
        let winner = winner(&outcomes)?;
        holds(store, &key, Some(&bodies[winner])).await?;
    }
    Ok(())
}

async fn update_needs_the_current_etag(store: &impl ObjectStore, prefix: &str) -> Outcome {
    let key = format!("{prefix}a");
    let update = async |body: &'static str, etag: &Etag| {
        store.put(&key, Bytes::from_static(body.as_bytes()), PutMode::Update(etag.clone())).await
    };
    let first = create(store, &key, "first").await?;
    let second = update("second", &first).await?;
    ensure(first != second, || format!("two contents share the etag {first:?}"))?;
    holds(store, &key, Some("second")).await?;
    precondition("an update of an older content", &update("third", &first).await)?;
    holds(store, &key, Some("second")).await?;
    update("third", &second).await?;
    holds(store, &key, Some("third")).await?;

    store.delete(&key).await?;
    precondition("an update of nothing", &update("fourth", &second).await)?;
    holds(store, &key, None).await
}

async fn of_racing_updaters_one_wins(store: &impl ObjectStore, prefix: &str) -> Outcome {
    let key = format!("{prefix}a");
    let mut etag = create(store, &key, "start").await?;
    for race in 0..RACES {
        let bodies: Vec<String> = (0..RACERS).map(|racer| format!("race {race} racer {racer}")).collect();
        let mode = PutMode::Update(etag);
        let put = |body: &String| store.put(&key, Bytes::from(body.clone()), mode.clone());
        let outcomes = join_all(bodies.iter().map(put)).await;
        let winner = winner(&outcomes)?;
        holds(store, &key, Some(&bodies[winner])).await?;
        etag = outcomes[winner].clone()?;
    }
    Ok(())
}

/// The one racer that succeeded; the others must have been told that they wrote nothing.
fn winner(outcomes: &[Result<Etag, PutError>]) -> Result<usize, Broken> {
    let told =
        |outcome: &Result<Etag, PutError>| matches!(outcome, Ok(_) | Err(PutError::Precondition | PutError::Busy(_)));
    ensure(outcomes.iter().all(told), || format!("racers were told {outcomes:?}"))?;
    let winners: Vec<usize> = (0..outcomes.len()).filter(|&i| outcomes[i].is_ok()).collect();
    match winners[..] {
        [winner] => Ok(winner),
        _ => Err(Broken(format!("{} of {} racers won", winners.len(), outcomes.len()))),
    }
}

async fn overwrite_replaces(store: &impl ObjectStore, prefix: &str) -> Outcome {
    let key = format!("{prefix}a");
    for body in ["a longer body", "short", "", "again"] {
        store.put(&key, Bytes::from_static(body.as_bytes()), PutMode::Overwrite).await?;
        holds(store, &key, Some(body)).await?;
    }
    Ok(())
}

async fn ranges_end_with_the_object(store: &impl ObjectStore, prefix: &str) -> Outcome {
    let key = format!("{prefix}a");
    create(store, &key, "0123456789").await?;
    let ranges: [(Range<u64>, &str); 8] = [
        (0..10, "0123456789"),
        (0..1, "0"),
        (9..10, "9"),
        (3..7, "3456"),
        (7..11, "789"),
        (0..1_000_000, "0123456789"),
        (10..11, ""),
        (500..600, ""),
    ];
    for (range, expect) in ranges {
        let got = store.get_range(&key, range.clone()).await?;
        equal(&format!("{range:?}"), &got, &Some(Bytes::from_static(expect.as_bytes())))?;
    }
    Ok(())
}

async fn an_empty_body_is_a_body(store: &impl ObjectStore, prefix: &str) -> Outcome {
    let key = format!("{prefix}a");
    let etag = create(store, &key, "").await?;
    holds(store, &key, Some("")).await?;
    equal("a range of it", &store.get_range(&key, 0..10).await?, &Some(Bytes::new()))?;
    precondition("a second create", &create(store, &key, "").await)?;
    store.put(&key, "x".into(), PutMode::Update(etag)).await?;
    holds(store, &key, Some("x")).await
}

async fn a_large_body_comes_back(store: &impl ObjectStore, prefix: &str) -> Outcome {
    let key = format!("{prefix}a");
    // Neither a power of two nor short: a block that is lost, doubled or exchanged shows.
    let body: Bytes = (0..251u8).cycle().take(LARGE_BODY_BYTES).collect();
    store.put(&key, body.clone(), PutMode::Create).await?;
    equal("size", &store.head(&key).await?, &Some(LARGE_BODY_BYTES as u64))?;
    let got = store.get(&key).await?;
    ensure(got.as_ref() == Some(&body), || {
        format!("{:?} of {LARGE_BODY_BYTES} bytes, or others", got.map(|got| got.len()))
    })?;
    let (start, limit) = (LARGE_BODY_BYTES / 3, LARGE_BODY_BYTES / 3 + 1_000_000);
    let got = store.get_range(&key, start as u64..limit as u64).await?;
    ensure(got.is_some_and(|got| got == body.slice(start..limit)), || {
        "a range of it is not what was written".to_owned()
    })
}

async fn any_text_can_be_a_key(store: &impl ObjectStore, prefix: &str) -> Outcome {
    let long = "x".repeat(limits::KEY_BYTES_MAX - prefix.len());
    let names = [
        " leading and trailing ",
        "a b+c%20d%2Fe",
        "grüße/日本/🦀",
        "q?x=1&y=2#z",
        "<&>\"'",
        "a//b",
        "...",
        "~!@$^*()_-=[]{}|\\;:,",
        &long,
    ];
    let mut keys = Vec::new();
    for name in names {
        let key = format!("{prefix}{name}");
        create(store, &key, name).await?;
        holds(store, &key, Some(name)).await?;
        precondition("a second create", &create(store, &key, "other").await)?;
        keys.push(key);
    }
    keys.sort();
    equal("listing", &store.list(prefix, None).await?, &keys)?;
    for (i, key) in keys.iter().enumerate() {
        equal(&format!("listing after {key:?}"), &store.list(prefix, Some(key)).await?, &keys[i + 1..].to_vec())?;
        equal(&format!("listing of {key:?}"), &store.list(key, None).await?, &vec![key.clone()])?;
    }
    for key in keys {
        store.delete(&key).await?;
        holds(store, &key, None).await?;
    }
    Ok(())
}

async fn unusable_keys_are_refused(store: &impl ObjectStore, prefix: &str) -> Outcome {
    let long = format!("{prefix}{}", "x".repeat(limits::KEY_BYTES_MAX));
    for key in ["", "..", &format!("{prefix}../a"), &format!("{prefix}./a"), &long] {
        let read = store.get(key).await;
        ensure(matches!(read, Err(ReadError::Refused(_))), || format!("get {key:?}: {read:?}"))?;
        let written = create(store, key, "x").await;
        ensure(matches!(written, Err(PutError::Refused(_))), || format!("put {key:?}: {written:?}"))?;
        let deleted = store.delete(key).await;
        ensure(matches!(deleted, Err(PutError::Refused(_))), || format!("delete {key:?}: {deleted:?}"))?;
    }
    Ok(())
}

async fn listings_are_ordered_and_bounded_by_prefix_and_start(store: &impl ObjectStore, prefix: &str) -> Outcome {
    // In byte order, which is neither the order of creation nor that of a file system's directories.
    let names = ["a", "a-b", "a.b", "a/1", "a/10", "a/2", "a0", "aa", "b/x/y", "é"];
    for name in names.iter().rev() {
        create(store, &format!("{prefix}{name}"), name).await?;
    }
    let after = |name: &str| Some(format!("{prefix}{name}"));
    let cases = [
        ("", None, &names[..]),
        ("a/", None, &names[3..6]),
        ("a", None, &names[..8]),
        ("b", None, &names[8..9]),
        ("nothing", None, &[]),
        ("", after("a/10"), &names[5..]),
        ("a/", after("a/1"), &names[4..6]),
        ("a/", after("a/11"), &names[5..6]),
        ("a/", after("0"), &names[3..6]),
        ("a/", after("z"), &[]),
        ("", after("é"), &[]),
    ];
    for (of, start_after, expect) in cases {
        let got = store.list(&format!("{prefix}{of}"), start_after.as_deref()).await?;
        let expect: Vec<String> = expect.iter().map(|name| format!("{prefix}{name}")).collect();
        equal(&format!("list {of:?} after {start_after:?}"), &got, &expect)?;
    }
    Ok(())
}

async fn long_listings_come_in_pages(store: &impl ObjectStore, prefix: &str) -> Outcome {
    let keys: Vec<String> = (0..LIST_KEYS_MAX + 5).map(|i| format!("{prefix}{i:06}")).collect();
    for some in keys.chunks(limits::CONNECTIONS_MAX) {
        for outcome in join_all(some.iter().map(|key| create(store, key, "x"))).await {
            outcome?;
        }
    }
    let first = store.list(prefix, None).await?;
    ensure(first == keys[..LIST_KEYS_MAX], || format!("first page: {} keys, or others", first.len()))?;
    let second = store.list(prefix, first.last().map(String::as_str)).await?;
    ensure(second == keys[LIST_KEYS_MAX..], || format!("second page: {} keys, or others", second.len()))?;
    equal("third page", &store.list(prefix, second.last().map(String::as_str)).await?, &vec![])
}

async fn delete_is_idempotent_and_frees_the_key(store: &impl ObjectStore, prefix: &str) -> Outcome {
    let (key, other) = (format!("{prefix}a"), format!("{prefix}a/b"));
    store.delete(&key).await?;
    create(store, &key, "first").await?;
    create(store, &other, "stays").await?;
    for _ in 0..2 {
        store.delete(&key).await?;
        holds(store, &key, None).await?;
    }
    equal("listing", &store.list(prefix, None).await?, &vec![other.clone()])?;
    holds(store, &other, Some("stays")).await?;
    create(store, &key, "second").await?;
    holds(store, &key, Some("second")).await
}

async fn the_probe_accepts_the_store(store: &impl ObjectStore, prefix: &str) -> Outcome {
    let key = format!("{prefix}probe");
    probe(store, &key).await.map_err(|error| Broken(error.to_string()))?;
    holds(store, &key, None).await
}

/// Why a writer that repeats a put must look whose object is there.
async fn a_lost_reply_turns_an_own_success_into_a_precondition(
    store: &impl ObjectStore,
    runtime: &impl Runtime,
    prefix: &str,
) -> Outcome {
    let key = format!("{prefix}a");
    let store = Faulty::new(store, runtime.clone());
    store.inject(OperationKind::Put, Fault::ReplyLost);
    let put = create(&store, &key, "mine").await;
    ensure(matches!(put, Err(PutError::Indeterminate(_))), || format!("the lost reply: {put:?}"))?;
    precondition("the repeated put", &create(&store, &key, "mine").await)?;
    holds(&store, &key, Some("mine")).await?;

    let key = format!("{prefix}b");
    store.inject(OperationKind::Put, Fault::RequestLost);
    let put = create(&store, &key, "mine").await;
    ensure(matches!(put, Err(PutError::Indeterminate(_))), || format!("the lost request: {put:?}"))?;
    create(&store, &key, "mine").await?;
    holds(&store, &key, Some("mine")).await
}

async fn a_busy_put_wrote_nothing(store: &impl ObjectStore, runtime: &impl Runtime, prefix: &str) -> Outcome {
    let key = format!("{prefix}a");
    let store = Faulty::new(store, runtime.clone());
    store.inject(OperationKind::Put, Fault::Refused);
    let put = create(&store, &key, "mine").await;
    ensure(matches!(put, Err(PutError::Busy(_))), || format!("the busy store: {put:?}"))?;
    holds(&store, &key, None).await?;
    create(&store, &key, "mine").await?;
    holds(&store, &key, Some("mine")).await
}

/// A put of unknown outcome may arrive after its writer looked, and after another took the key.
async fn a_late_put_obeys_its_condition_when_it_arrives(
    store: &impl ObjectStore,
    runtime: &impl Runtime,
    prefix: &str,
) -> Outcome {
    let (free, taken) = (format!("{prefix}free"), format!("{prefix}taken"));
    let late = Faulty::new(store, runtime.clone());
    for key in [&free, &taken] {
        late.inject(OperationKind::Put, Fault::Late { operations: 100 });
        let put = create(&late, key, "late").await;
        ensure(matches!(put, Err(PutError::Indeterminate(_))), || format!("the late put: {put:?}"))?;
        holds(&late, key, None).await?;
    }
    create(&late, &taken, "another's").await?;
    late.settle().await;
    holds(&late, &free, Some("late")).await?;
    holds(&late, &taken, Some("another's")).await
}

async fn unanswered_reads_are_repeated(store: &impl ObjectStore, runtime: &impl Runtime, prefix: &str) -> Outcome {
    let key = format!("{prefix}a");
    create(store, &key, "body").await?;
    let faulty = Faulty::new(store, runtime.clone());
    let patient = Retry::new(&faulty, runtime.clone());
    for fault in [Fault::Refused, Fault::ReplyLost, Fault::Delayed { ms: 5 }] {
        faulty.inject(OperationKind::Get, fault);
    }
    equal("get", &patient.get(&key).await?, &Some("body".into()))?;
    equal("tries", &faulty.counts().get, &3)?;
    faulty.inject(OperationKind::List, Fault::Refused);
    equal("list", &patient.list(prefix, None).await?, &vec![key])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStore;
    use runtime::NativeRuntime;

    #[tokio::test]
    async fn memory_keeps_the_contract() {
        for (promise, outcome) in run(&MemoryStore::default(), &NativeRuntime::new(), "contract/").await {
            assert_eq!(outcome, Ok(()), "{promise}");
        }
    }

    /// A suite that nobody fails shows nothing: a store that ignores `If-None-Match` fails the promises about creating.
    #[tokio::test]
    async fn a_store_without_conditions_breaks_the_contract() {
        struct Unconditional(MemoryStore);
        impl ObjectStore for Unconditional {
            async fn get(&self, key: &str) -> Result<Option<Bytes>, ReadError> {
                self.0.get(key).await
            }
            async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ReadError> {
                self.0.get_range(key, range).await
            }
            async fn head(&self, key: &str) -> Result<Option<u64>, ReadError> {
                self.0.head(key).await
            }
            async fn put(&self, key: &str, body: Bytes, _: PutMode) -> Result<Etag, PutError> {
                self.0.put(key, body, PutMode::Overwrite).await
            }
            async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<String>, ReadError> {
                self.0.list(prefix, start_after).await
            }
            async fn delete(&self, key: &str) -> Result<(), PutError> {
                self.0.delete(key).await
            }
        }
        let report = run(&Unconditional(MemoryStore::default()), &NativeRuntime::new(), "contract/").await;
        let broken: Vec<&str> = report.iter().filter(|(_, outcome)| outcome.is_err()).map(|(name, _)| *name).collect();
        assert_eq!(
            broken,
            [
                "create_leaves_the_first_body",
                "of_racing_creators_one_wins",
                "update_needs_the_current_etag",
                "of_racing_updaters_one_wins",
                "an_empty_body_is_a_body",
                "any_text_can_be_a_key",
                "the_probe_accepts_the_store",
                "a_lost_reply_turns_an_own_success_into_a_precondition",
                "a_late_put_obeys_its_condition_when_it_arrives",
            ]
        );
    }
}
