//! What is stored of each collection, and how much of it waits for compaction.

use catalog::{CatalogError, Maintenance, Upkeep};
use futures_util::stream::{self, StreamExt};
use model::{CollectionId, LogEnd, Lsn, SegmentRef, limits};
use runtime::Runtime;
use serde::Serialize;
use std::fmt::Write;
use storage::ObjectStore;
use wal::{Reader, TailError};

/// Longest name in a table, in characters.
const NAME_CHARS_MAX: usize = 32;

/// The state of one collection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Which one.
    pub collection: CollectionId,
    /// Its tenant, database and name.
    pub name: String,
    /// How long it has been deleted, in seconds; `None` if it lives.
    pub deleted_age_s: Option<u64>,
    /// The current version.
    pub generation: u64,
    /// How old that is, in seconds.
    pub published_age_s: Option<u64>,
    /// First LSN that is not compacted.
    pub watermark: Lsn,
    /// First LSN that may not be deleted.
    pub gc_floor: Lsn,
    /// What is not compacted; `None` if the log could not be read.
    pub backlog: Option<Backlog>,
    /// Why it could not.
    pub error: Option<String>,
    /// Live segments.
    pub segments: usize,
    /// Their rows, dead ones included.
    pub rows: u64,
    /// The share of them that is dead, from 0 to 1.
    pub dead_share: f64,
    /// Size of the segments in bytes.
    pub bytes: u64,
}

/// The log of a collection from its watermark on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Backlog {
    /// Fragments.
    pub fragments: u64,
    /// Operations in them.
    pub operations: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Age of the first fragment in ms, between the clock of who wrote it and ours; 0 without one.
    pub oldest_ms: u64,
}

/// The state of all collections, in the order of creation.
///
/// Cost: the listing of upkeep; for each collection one ranged get, and if it has a backlog another one and the HEADs that
/// find the end of a log.
pub async fn collections(
    store: &impl ObjectStore,
    catalog: &impl Maintenance,
    runtime: &impl Runtime,
) -> Result<Vec<Status>, CatalogError> {
    let listed = catalog.list_upkeep().await?;
    let looked = stream::iter(listed).map(async |upkeep| {
        let backlog = match upkeep.deleted_age_s {
            Some(_) => Ok(Backlog::default()),
            None => backlog(store, upkeep.id, upkeep.manifest.compacted, runtime).await,
        };
        status(upkeep, backlog)
    });
    Ok(looked.buffered(limits::JOB_REQUESTS_AT_ONCE).collect().await)
}

async fn backlog(
    store: &impl ObjectStore,
    collection: CollectionId,
    compacted: LogEnd,
    runtime: &impl Runtime,
) -> Result<Backlog, TailError> {
    let reader = Reader { store, collection };
    let Some(first) = reader.header(compacted.next).await? else { return Ok(Backlog::default()) };
    let next = reader.find_next(compacted.next.next()).await?;
    let last = match next.previous().filter(|last| *last > first.lsn) {
        Some(last) => reader.header(last).await?,
        None => None,
    };
    let end = last.as_ref().unwrap_or(&first).as_end();
    Ok(Backlog {
        fragments: end.next.0 - compacted.next.0,
        operations: end.operations.saturating_sub(compacted.operations),
        bytes: end.bytes.saturating_sub(compacted.bytes),
        oldest_ms: runtime.now().ms_since(first.created_at),
    })
}

#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn status(upkeep: Upkeep, backlog: Result<Backlog, TailError>) -> Status {
    let segments = &upkeep.manifest.segments;
    let sum = |of: fn(&SegmentRef) -> u64| segments.iter().map(of).sum::<u64>();
    let (rows, dead) = (sum(|segment| segment.rows.into()), sum(|segment| segment.dead_rows().into()));
    Status {
        collection: upkeep.id,
        name: upkeep.name,
        deleted_age_s: upkeep.deleted_age_s,
        generation: upkeep.generation,
        published_age_s: upkeep.published_age_s,
        watermark: upkeep.manifest.watermark(),
        gc_floor: upkeep.gc_floor,
        error: backlog.as_ref().err().map(ToString::to_string),
        backlog: backlog.ok(),
        segments: segments.len(),
        rows,
        dead_share: dead as f64 / rows.max(1) as f64,
        bytes: sum(|segment| segment.bytes),
    }
}

/// The states for a person, one row each.
pub fn table(statuses: &[Status]) -> String {
    let head = ["collection", "name", "fragments", "operations", "backlog", "oldest", "generation"];
    let mut rows = vec![head.into_iter().chain(["segments", "rows", "dead", "size"]).map(str::to_owned).collect()];
    rows.extend(statuses.iter().map(cells));
    let width = |column: usize| rows.iter().map(|row: &Vec<String>| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Names to the left, numbers to the right.
            let cell = if column < 2 { format!("{cell:width$}") } else { format!("{cell:>width$}") };
            write!(line, "{cell}  ").expect("text grows");
        }
        writeln!(text, "{}", line.trim_end()).expect("text grows");
    }
    text
}

fn cells(status: &Status) -> Vec<String> {
    let backlog = |of: fn(&Backlog) -> String| status.backlog.as_ref().map_or("?".to_owned(), of);
    let oldest = match status.deleted_age_s {
        Some(age_s) => format!("deleted {}", age(age_s.saturating_mul(1_000))),
        None => backlog(|of| if of.fragments == 0 { "-".to_owned() } else { age(of.oldest_ms) }),
    };
    vec![
        status.collection.to_string(),
        end_of(&status.name),
        backlog(|of| of.fragments.to_string()),
        backlog(|of| of.operations.to_string()),
        backlog(|of| size(of.bytes)),
        oldest,
        status.generation.to_string(),
        status.segments.to_string(),
        status.rows.to_string(),
        format!("{:.0} %", status.dead_share * 100.0),
        size(status.bytes),
    ]
}

/// A name that is too long without its start: names of one database begin alike.
fn end_of(name: &str) -> String {
    match name.chars().count().checked_sub(NAME_CHARS_MAX) {
        None | Some(0) => name.to_owned(),
        Some(over) => format!("…{}", name.chars().skip(over + 1).collect::<String>()),
    }
}

/// `3h`: the largest unit of which there are at least two.
fn age(ms: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let (unit, name) = units.into_iter().find(|(unit, _)| ms >= 2 * unit).unwrap_or((1_000, "s"));
    format!("{}{name}", ms / unit)
}

/// `1.5 MiB`.
fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::new_collection;
    use catalog::{Catalog, MemoryCatalog, PublishFrom};
    use model::{Manifest, Operation, SetHash, Timestamp};
    use runtime::ManualRuntime;
    use storage::MemoryStore;
    use wal::{RefreshError, RowSource, RowView, Writer};

    const ID: CollectionId = CollectionId::from_u128(7);

    struct Row(ManualRuntime);

    impl RowSource for Row {
        async fn refresh(&self) -> Result<RowView, RefreshError> {
            Ok(RowView { gc_floor: Lsn(0), compacted: LogEnd::EMPTY, requested_at: self.0.now() })
        }
    }

    #[tokio::test]
    async fn a_backlog_is_what_lies_behind_the_watermark() {
        let (runtime, store, catalog) = (ManualRuntime::default(), MemoryStore::default(), MemoryCatalog::default());
        catalog.create_collection(new_collection(ID)).await.unwrap();
        let look = async || collections(&store, &catalog, &runtime).await.unwrap().remove(0);
        assert_eq!(look().await.backlog, Some(Backlog::default()));

        let rows = Row(runtime.clone());
        let writer = Writer { store: &store, runtime: &runtime, rows: &rows, collection: ID };
        let mut ends = Vec::new();
        for _ in 0..5 {
            let operations = vec![Operation::delete("a".into()), Operation::delete("b".into())];
            let row = rows.refresh().await.unwrap();
            ends.push(writer.append(operations, row, Timestamp(u64::MAX)).await.unwrap());
            runtime.sleep(10_000).await;
        }
        let backlog = look().await.backlog.unwrap();
        assert_eq!((backlog.fragments, backlog.operations, backlog.oldest_ms), (5, 10, 50_000));

        let segment = SegmentRef {
            prefix: "p".to_owned(),
            rows: 4,
            dimension: 1,
            head_bytes: 1,
            ids_at: 1,
            bytes: 3 << 19,
            set_hash: SetHash(0),
            index: None,
            text: None,
            dead: None,
        };
        let manifest = Manifest { compacted: ends[3], segments: vec![segment], ..Manifest::default() };
        catalog.publish(ID, PublishFrom { generation: 0, gc_epoch: 0 }, &manifest).await.unwrap();
        let status = look().await;
        let backlog = status.backlog.unwrap();
        assert_eq!((backlog.fragments, backlog.operations, backlog.oldest_ms), (1, 2, 10_000));
        assert_eq!((status.generation, status.watermark, status.segments, status.rows), (1, Lsn(4), 1, 4));
        let text = table(&[status]);
        assert!(text.contains("10s") && text.contains("1.5 MiB") && text.lines().count() == 2, "{text}");
    }

    #[test]
    fn ages_sizes_and_names_are_short() {
        assert_eq!(end_of("default_tenant/default_database/notes"), "…t_tenant/default_database/notes");
        assert_eq!(end_of("a/b/c"), "a/b/c");
        let ages = [0, 1_999, 119_999, 120_000, 2 * 86_400_000].map(age);
        assert_eq!(ages, ["0s", "1s", "119s", "2m", "2d"]);
        assert_eq!([1_023, 1_024, 5 << 29].map(size), ["1023 B", "1.0 KiB", "2.5 GiB"]);
    }
}
