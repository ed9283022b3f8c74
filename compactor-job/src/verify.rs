//! Proves that logs are what was written.

use anyhow::{Context, Result};
use model::{CollectionId, LogEnd};
use std::fmt::Write;
use storage::ObjectStore;
use wal::{Reader, TailError};

/// What one log holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose log.
    pub collection: CollectionId,
    /// Fragments that were read and found sound.
    pub fragments: u64,
    /// Operations in them.
    pub operations: u64,
    /// The first object that is not what was written, and why.
    pub broken: Option<String>,
}

/// Reads every log in the bucket from its start, or only that of `collection`. Cost: one get for each fragment, one list for
/// each collection.
///
/// Errors: the store cannot be listed or read; what is damaged is in the reports.
pub async fn logs<S: ObjectStore>(store: &S, collection: Option<CollectionId>) -> Result<Vec<Report>> {
    if let Some(collection) = collection {
        return Ok(vec![log(store, collection).await?]);
    }
    let mut reports = Vec::new();
    let mut after = String::new();
    loop {
        let keys = store.list("", Some(&after)).await.context("the bucket cannot be listed")?;
        let Some(first) = keys.first() else { return Ok(reports) };
        let owner = first.split('/').next().unwrap_or_default();
        if let Some(collection) = CollectionId::parse(owner) {
            reports.push(log(store, collection).await?);
        }
        // Beyond every key of this owner: `0` is the byte after `/`.
        after = format!("{owner}0");
    }
}

async fn log<S: ObjectStore>(store: &S, collection: CollectionId) -> Result<Report> {
    let mut report = Report { collection, fragments: 0, operations: 0, broken: None };
    let reader = Reader { store, collection };
    let read = reader.read(LogEnd::EMPTY, |fragment| {
        report.fragments += 1;
        report.operations += u64::from(fragment.header.count);
    });
    match read.await {
        Ok(_) => {}
        Err(error @ TailError::Unavailable(_)) => {
            return Err(error).context(format!("the log of {collection} cannot be read"));
        }
        Err(error @ TailError::Broken { .. }) => report.broken = Some(error.to_string()),
    }
    Ok(report)
}

/// The reports for a person.
pub fn table(reports: &[Report]) -> String {
    let mut text = format!("{:36}  {:>9}  {:>10}  state\n", "collection", "fragments", "operations");
    for Report { collection, fragments, operations, broken } in reports {
        let state = broken.as_deref().unwrap_or("sound");
        writeln!(text, "{collection:36}  {fragments:>9}  {operations:>10}  {state}").expect("text grows");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Lsn, Operation, Timestamp, keys};
    use runtime::{NativeRuntime, Runtime};
    use storage::{MemoryStore, PutMode};
    use wal::{RefreshError, RowSource, RowView, Writer};

    struct Rows(NativeRuntime);

    impl RowSource for Rows {
        async fn refresh(&self) -> Result<RowView, RefreshError> {
            Ok(RowView { gc_floor: Lsn(0), compacted: LogEnd::EMPTY, requested_at: self.0.now() })
        }
    }

    async fn write(store: &MemoryStore, collection: CollectionId, fragments: usize) {
        let runtime = NativeRuntime::new();
        let rows = Rows(runtime.clone());
        let writer = Writer { store, runtime: &runtime, rows: &rows, collection };
        let deadline = Timestamp(u64::MAX);
        for _ in 0..fragments {
            let operations = vec![Operation::delete("a".into()), Operation::delete("b".into())];
            let row = rows.refresh().await.expect("always there");
            writer.append(operations, row, deadline).await.expect("written");
        }
    }

    #[tokio::test]
    async fn sound_logs_are_counted_and_damage_is_named() {
        let store = MemoryStore::default();
        let (sound, damaged) = (CollectionId::from_u128(1), CollectionId::from_u128(2));
        write(&store, sound, 3).await;
        write(&store, damaged, 3).await;
        store.put("probe/passed/x", "passed".into(), PutMode::Overwrite).await.expect("written");
        let key = keys::fragment(damaged, Lsn(1));
        store.put(&key, "garbage".into(), PutMode::Overwrite).await.expect("written");

        let reports = logs(&store, None).await.expect("readable");
        assert_eq!(reports[0], Report { collection: sound, fragments: 3, operations: 6, broken: None });
        assert_eq!((reports[1].collection, reports[1].fragments), (damaged, 1));
        assert!(reports[1].broken.as_ref().is_some_and(|why| why.contains(&key)), "{reports:?}");
        assert_eq!(reports.len(), 2);
        assert_eq!(logs(&store, Some(sound)).await.expect("readable"), reports[..1]);
    }
}
