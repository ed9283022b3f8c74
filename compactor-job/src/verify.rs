//! Proves that log, packs, segments and manifest hold the same records, and that every object is what was written.
//!
//! Sums of hashes do it: that of all rows of a segment is in its head and in the manifest, that of all live rows in the
//! manifest; as long as the whole log is there, replaying it must give the same sum.

use anyhow::{Context, Result};
use catalog::{CatalogError, Maintenance, Upkeep};
use model::{CollectionId, DeleteVectorPlace, LogEnd, Lsn, Manifest, SetHash, keys};
use segment::ids::IdIndex;
use segment::{IdHash, TextHead};
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Write;
use storage::ObjectStore;
use stored::{Base, Facts, Layer, OpenSegment, Place, Slots, StoredError, StoredReader};
use wal::pack::{self, PackId};
use wal::{Fragment, Reader, TailError};

/// What a collection holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Which one.
    pub collection: Option<CollectionId>,
    /// Fragments that were read and found sound.
    pub fragments: u64,
    /// Operations in them.
    pub operations: u64,
    /// Packs whose fragments are those of the log.
    pub packs: u64,
    /// Live segments.
    pub segments: u64,
    /// Rows in them, dead ones included.
    pub rows: u64,
    /// Dead rows in them.
    pub dead: u64,
    /// Objects that the manifest does not name: of older versions, of compactions under way or given up. The next passes
    /// of garbage collection see to them.
    pub unnamed: u64,
    /// Whether the log was there from its beginning, so that it could be compared with the segments.
    pub replayed: bool,
    /// What is not as it should be.
    pub broken: Vec<String>,
}

/// Why one collection could not be looked at to the end.
enum Halt {
    /// The store does not answer.
    Unavailable(String),
    /// What it holds is wrong, and nothing behind that can be trusted.
    Broken(String),
}

impl From<TailError> for Halt {
    fn from(error: TailError) -> Self {
        match error {
            TailError::Unavailable(reason) => Halt::Unavailable(reason),
            TailError::Broken { .. } => Halt::Broken(error.to_string()),
        }
    }
}

impl From<StoredError> for Halt {
    fn from(error: StoredError) -> Self {
        match error {
            StoredError::Unavailable(reason) => Halt::Unavailable(reason),
            StoredError::Missing(reason) | StoredError::Corrupt(reason) => Halt::Broken(reason),
        }
    }
}

impl From<storage::ReadError> for Halt {
    fn from(error: storage::ReadError) -> Self {
        Halt::Unavailable(error.to_string())
    }
}

/// Looks at all living collections, or at one. A log of more than `memory_bytes` is not replayed.
///
/// Cost: every byte of every segment, log and pack. Errors: store or catalog do not answer; what is wrong is in the reports.
pub async fn collections<S: ObjectStore, C: Maintenance>(
    store: &S,
    catalog: &C,
    only: Option<CollectionId>,
    memory_bytes: u64,
) -> Result<Vec<Report>> {
    let all = match only {
        Some(id) => vec![catalog.upkeep(id).await.context("the collection is not in the catalog")?],
        None => catalog.list_upkeep().await.context("the collections cannot be listed")?,
    };
    let mut reports = Vec::new();
    for upkeep in all.into_iter().filter(|upkeep| upkeep.deleted_age_s.is_none()) {
        reports.push(collection(store, catalog, upkeep, memory_bytes).await?);
    }
    Ok(reports)
}

async fn collection<S: ObjectStore, C: Maintenance>(
    store: &S,
    catalog: &C,
    mut upkeep: Upkeep,
    memory_bytes: u64,
) -> Result<Report> {
    const ATTEMPTS: usize = 5;
    for attempt in 1.. {
        let mut report = Report { collection: Some(upkeep.id), ..Report::default() };
        match look(store, &upkeep, memory_bytes, &mut report).await {
            Ok(()) => {}
            Err(Halt::Unavailable(reason)) => anyhow::bail!("{} cannot be read: {reason}", upkeep.id),
            Err(Halt::Broken(why)) => report.broken.push(why),
        }
        let now = match catalog.upkeep(upkeep.id).await {
            Err(CatalogError::NotFound) => return Ok(Report { broken: Vec::new(), ..report }),
            now => now.context("the catalog did not answer")?,
        };
        // What was compacted and collected meanwhile is no damage.
        if report.broken.is_empty() || now.generation == upkeep.generation || attempt == ATTEMPTS {
            return Ok(report);
        }
        upkeep = now;
    }
    unreachable!("the last attempt returns")
}

async fn look<S: ObjectStore>(store: &S, upkeep: &Upkeep, memory_bytes: u64, report: &mut Report) -> Result<(), Halt> {
    let manifest = &upkeep.manifest;
    check_segments(store, manifest, report).await?;
    check_names(store, upkeep.id, manifest, report).await?;
    let fragments = check_log(store, upkeep, memory_bytes, report).await?;
    check_packs(store, upkeep.id, &fragments, report).await
}

/// Every row of every segment, and what leads to it.
async fn check_segments<S: ObjectStore>(store: &S, manifest: &Manifest, report: &mut Report) -> Result<(), Halt> {
    let (base, blocks) = (Base::new(manifest.clone(), None), RefCell::default());
    let stored = StoredReader { store, blocks: &blocks, room: &0, tally: None };
    stored.open(&base).await?;
    stored.open_texts(&base).await?;
    let (mut live, mut live_rows) = (SetHash::default(), 0_u64);
    for (number, open) in (0..).zip(&base.segments) {
        let ids = row_of_ids(&stored, open).await?;
        let mut hashes = vec![IdHash::of(""); ids.len()];
        let mut row_hashes = vec![0_u128; ids.len()];
        let (mut all, mut last) = (SetHash::default(), None);
        let places: Vec<Place> = (0..open.named.rows).map(|row| Place { segment: number, row }).collect();
        stored
            .visit(&base, &places, &Slots::new(), |place, row| {
                let hash = row.hash();
                all = all.with(hash);
                if base.is_live(place) {
                    (live, live_rows) = (live.with(hash), live_rows + 1);
                }
                hashes[place.row as usize] = IdHash::of(row.id);
                row_hashes[place.row as usize] = hash;
                let is_next = last.is_none_or(|last| last < row.position);
                last = Some(row.position);
                if is_next { Ok(()) } else { Err(Halt::Broken(format!("{}: positions descend", open.named.prefix))) }
            })
            .await?;
        if all != open.named.set_hash {
            report.broken.push(format!("{} holds other rows than the manifest says", open.named.prefix));
        }
        if ids.iter().any(|(hash, row)| hashes.get(*row as usize) != Some(hash)) {
            report.broken.push(format!("the id index of {} leads to other rows", open.named.prefix));
        }
        check_codes(&stored, open).await?;
        if open.named.index.is_some() {
            check_index(&stored, &base, number, &row_hashes).await?;
        }
        check_text(&stored, open).await?;
        report.segments += 1;
        report.rows += u64::from(open.named.rows);
        report.dead += u64::from(base.dead(number).len());
    }
    if (live, live_rows) != (manifest.set_hash, manifest.records) {
        report.broken.push(format!("{live_rows} rows live, which are not the {} of the manifest", manifest.records));
    }
    Ok(())
}

async fn row_of_ids<S: ObjectStore>(
    stored: &StoredReader<'_, S>,
    open: &OpenSegment,
) -> Result<Vec<(IdHash, u32)>, Halt> {
    let index = IdIndex { at: open.named.ids_at, rows: open.named.rows };
    let body = stored.read(&[open.block(segment::IDS_PART, index.whole())]).await?;
    index.entries(&body[0]).map_err(|error| open.damaged(&error).into())
}

async fn check_codes<S: ObjectStore>(stored: &StoredReader<'_, S>, open: &OpenSegment) -> Result<(), Halt> {
    for number in 0..segment::codes_parts(&open.named) {
        let (place, _) = segment::codes_place(&open.named, number);
        let body = stored.read(&[open.block(&place.part, place.range)]).await?;
        open.head().check_codes(number, &body[0]).map_err(|error| open.damaged(&error))?;
    }
    Ok(())
}

/// Whether every row is in the leaf index, once, and is the same there. (That its codes are right is not looked at: they decide
/// what a search looks at more closely, not what it returns.)
async fn check_index<S: ObjectStore>(
    stored: &StoredReader<'_, S>,
    base: &Base,
    number: u32,
    hashes: &[u128],
) -> Result<(), Halt> {
    stored.open_indexes(base).await?;
    let open = &base.segments[number as usize];
    let index = open.index();
    let mut order = Vec::with_capacity(hashes.len());
    for leaf in 0..index.table().leaves() {
        let body = stored.leaves(base, &[(number, leaf)]).await?;
        let read = index.decode_leaf(leaf, &body[0]).map_err(|error| open.damaged(&error))?;
        order.extend((0..index.table().rows(leaf..leaf + 1).len()).map(|at| read.row(at)));
    }
    let mut is_seen = vec![false; hashes.len()];
    for batch in (0..index.near_batches()).map(|batch| index.near_batch(batch)) {
        let body = stored.read(&[open.block(&batch.part, batch.range.clone())]).await?;
        let rows = index.decode_near_batch(&batch, &body[0]).map_err(|error| open.damaged(&error))?;
        for slot in batch.rows {
            let row = order[slot as usize] as usize;
            let is_first = !std::mem::replace(&mut is_seen[row], true);
            if !is_first || rows.row(slot).hash() != hashes[row] {
                return Err(Halt::Broken(format!("the leaf index of {} has other rows", open.named.prefix)));
            }
        }
    }
    Ok(())
}

/// Whether the text index, which is that of these rows, all of them, if it opens, has the bytes that were written. (What it says of
/// the rows is not looked at.)
async fn check_text<S: ObjectStore>(stored: &StoredReader<'_, S>, open: &OpenSegment) -> Result<(), Halt> {
    let Some(place) = open.named.text.as_ref().map(segment::text_place) else { return Ok(()) };
    let body = stored.read(&[open.block(&place.part, place.range)]).await?;
    let text = TextHead::open(&body[0]).map_err(|error| open.damaged(&error))?;
    for ((part, (name, size, _)), index) in (0..).zip(text.objects()).zip(open.texts()) {
        let bundle = stored.read(&[open.block(&name, 0..size)]).await?.remove(0);
        text.check_bundle(part, &bundle).map_err(|error| open.damaged(&error))?;
        let supplied = index.supply(0..size, bundle.into());
        supplied.map_err(|error| Halt::Broken(format!("{}/{name}: {error}", open.named.prefix)))?;
        index.forget();
    }
    Ok(())
}

/// Counts what the manifest does not name.
async fn check_names<S: ObjectStore>(
    store: &S,
    id: CollectionId,
    manifest: &Manifest,
    report: &mut Report,
) -> Result<(), Halt> {
    let is_named = |key: &str| {
        manifest.segments.iter().any(|segment| {
            let dead = segment.dead.as_ref().map(|dead| &dead.place);
            let is_dead = matches!(dead, Some(DeleteVectorPlace::Object(own)) if own == key);
            is_dead || key.strip_prefix(&segment.prefix).is_some_and(|part| part.starts_with('/'))
        })
    };
    for prefix in [keys::segments_prefix(id), keys::delete_vectors_prefix(id)] {
        report.unnamed += list(store, &prefix).await?.iter().filter(|key| !is_named(key)).count() as u64;
    }
    Ok(())
}

async fn list<S: ObjectStore>(store: &S, prefix: &str) -> Result<Vec<String>, Halt> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let page = store.list(prefix, all.last().map(String::as_str)).await?;
        let is_last = page.len() < storage::LIST_KEYS_MAX;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

/// Every fragment from the watermark on, and what is still there before it; returns nonces and sums of those read.
async fn check_log<S: ObjectStore>(
    store: &S,
    upkeep: &Upkeep,
    memory_bytes: u64,
    report: &mut Report,
) -> Result<Vec<(Lsn, SetHash)>, Halt> {
    let (manifest, reader) = (&upkeep.manifest, Reader { store, collection: upkeep.id });
    let mut seen = Vec::new();
    let mut note = |fragment: &Fragment, report: &mut Report| {
        seen.push((fragment.header.lsn, fragment.header.set_hash));
        report.fragments += 1;
        report.operations += u64::from(fragment.header.count);
    };
    // As long as nothing was collected the log begins at its beginning.
    let is_whole = upkeep.gc_floor == Lsn::ZERO && manifest.compacted.bytes <= memory_bytes;
    if is_whole && manifest.watermark() > Lsn::ZERO {
        let empty = Base::new(Manifest::default(), None);
        let (mut layer, mut failure) = (Layer::above(&empty), None);
        let take = |fragment: Fragment| {
            note(&fragment, report);
            let applied = layer.apply(&Facts::new(), fragment.header.lsn, fragment.operations());
            failure = failure.take().or(applied.err());
        };
        let end = reader.read_until(LogEnd::EMPTY, manifest.watermark(), take).await?;
        if end != manifest.compacted || failure.is_some() {
            report.broken.push(format!("the log before the watermark is not the one that was compacted: {failure:?}"));
        }
        let rows = layer.overlay.records().map(|(position, record)| stored::as_row(position, &record).hash());
        if rows.fold(SetHash::default(), SetHash::with) != manifest.set_hash {
            report.broken.push("the log holds other records than the segments".to_owned());
        }
        report.replayed = true;
    }
    reader.read(manifest.compacted, |fragment| note(&fragment, report)).await?;
    Ok(seen)
}

/// Whether packs hold what the fragments hold that were read.
async fn check_packs<S: ObjectStore>(
    store: &S,
    id: CollectionId,
    fragments: &[(Lsn, SetHash)],
    report: &mut Report,
) -> Result<(), Halt> {
    let known: HashSet<&(Lsn, SetHash)> = fragments.iter().collect();
    let first = fragments.first().map_or(Lsn(u64::MAX), |(lsn, _)| *lsn);
    for key in list(store, &keys::packs_prefix(id)).await? {
        let Some(pack) = PackId::of_key(&key).filter(|pack| pack.first >= first) else { continue };
        let Some(body) = store.get(&key).await? else { continue };
        match pack::decode(&body, id, pack) {
            Ok(packed) if packed.iter().all(|own| known.contains(&(own.header.lsn, own.header.set_hash))) => {
                report.packs += 1;
            }
            Ok(_) => report.broken.push(format!("{key} holds other fragments than the log")),
            Err(error) => report.broken.push(format!("{key}: {error}")),
        }
    }
    Ok(())
}

/// The reports for a person.
pub fn table(reports: &[Report]) -> String {
    let mut text = format!(
        "{:36}  {:>9}  {:>10}  {:>5}  {:>8}  {:>9}  {:>9}  {:>7}  {:>8}  state\n",
        "collection", "fragments", "operations", "packs", "segments", "rows", "dead", "unnamed", "replayed"
    );
    for report in reports {
        let Report { fragments, operations, packs, segments, rows, dead, unnamed, replayed, broken, collection } =
            report;
        let id = collection.map(|id| id.to_string()).unwrap_or_default();
        let state = if broken.is_empty() { "sound".to_owned() } else { broken.join("; ") };
        let replayed = if *replayed { "yes" } else { "no" };
        writeln!(
            text,
            "{id:36}  {fragments:>9}  {operations:>10}  {packs:>5}  {segments:>8}  {rows:>9}  {dead:>9}  {unnamed:>7}  \
             {replayed:>8}  {state}"
        )
        .expect("text grows");
    }
    text
}
