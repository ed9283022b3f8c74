//! The part about [`Maintenance`].

use super::{Kept, RIVALS, Scope, rename, same};
use crate::{Catalog, CatalogError, CollectionChange, Maintenance, PublishFrom, Upkeep, Version};
use futures_util::future::{join, join_all};
use model::{
    CollectionId, CollectionRow, DeleteVectorPlace, DeleteVectorRef, LogEnd, Lsn, Manifest, Nonce, SegmentRef, SetHash,
    Timestamp,
};
use runtime::Runtime;
use serde_json::json;

/// After so long any lease of 1 s has ended, and whatever was young is 2 s old.
const LONG_MS: u64 = 2_100;

/// A manifest like no other: one with `number` records.
fn manifest(number: u64) -> Manifest {
    let compacted = LogEnd {
        next: Lsn(number),
        last_nonce: Nonce(u128::MAX - u128::from(number)),
        last_created_at: Timestamp(number),
        operations: number,
        ..LogEnd::EMPTY
    };
    let dead = DeleteVectorRef { count: 1, place: DeleteVectorPlace::Inline("OjAAAAEAAAA".to_owned()) };
    let segment = SegmentRef {
        prefix: format!("prefix-{number}"),
        rows: u32::MAX,
        dimension: 384,
        head_bytes: 1,
        ids_at: u64::MAX,
        bytes: u64::MAX,
        set_hash: SetHash(u128::MAX),
        index: Some(model::IndexRef { bytes: 7 }),
        text: Some(model::TextRef { bytes: 8 }),
        dead: Some(dead),
    };
    let segments = vec![SegmentRef { dead: None, ..segment.clone() }, segment];
    Manifest { compacted, records: number, set_hash: SetHash(number.into()), segments }
}

/// Where a compactor that sees `row` starts from.
fn from(row: &CollectionRow) -> PublishFrom {
    PublishFrom { generation: row.generation, gc_epoch: row.gc_epoch }
}

impl<C: Catalog + Maintenance, R: Runtime> Scope<'_, C, R> {
    /// Publishes `manifest(number)` from the row as it is.
    async fn publish(&self, id: CollectionId, number: u64) -> Result<bool, CatalogError> {
        let row = self.catalog.get_collection_by_id(id).await?;
        self.catalog.publish(id, from(&row), &manifest(number)).await
    }

    /// The kept versions, but for their ages.
    async fn versions(&self, id: CollectionId) -> Result<Vec<(u64, Manifest)>, CatalogError> {
        let versions = self.catalog.list_versions(id).await?;
        Ok(versions.into_iter().map(|Version { generation, manifest, .. }| (generation, manifest)).collect())
    }

    fn unknown(&self) -> CollectionId {
        CollectionId::from_random(self.runtime.random())
    }
}

pub(super) async fn publishing_makes_the_next_generation<C: Catalog + Maintenance, R: Runtime>(
    scope: &Scope<'_, C, R>,
) -> Kept {
    let (row, bystander) = (scope.create("c").await?, scope.create("d").await?);
    same(scope.catalog.publish(row.id, from(&row), &manifest(7)).await, Ok(true))?;
    let published = CollectionRow { generation: 1, manifest: manifest(7), ..row.clone() };
    same(scope.get("c").await?, published.clone())?;

    // The same once more, even the very same manifest, comes too late.
    for number in [7, 8] {
        same(scope.catalog.publish(row.id, from(&row), &manifest(number)).await, Ok(false))?;
    }
    // Nor can a generation be left out.
    let ahead = PublishFrom { generation: 2, gc_epoch: 0 };
    same(scope.catalog.publish(row.id, ahead, &manifest(8)).await, Ok(false))?;
    same(scope.get("c").await?, published.clone())?;

    same(scope.catalog.publish(row.id, from(&published), &manifest(8)).await, Ok(true))?;
    same(scope.get("c").await?, CollectionRow { generation: 2, manifest: manifest(8), ..row })?;
    same(scope.get("d").await?, bystander)
}

pub(super) async fn of_racing_publishers_one_wins_each_generation<C: Catalog + Maintenance, R: Runtime>(
    scope: &Scope<'_, C, R>,
) -> Kept {
    let id = scope.create("c").await?.id;
    let mut expected = Vec::new();
    for generation in 0..3_u64 {
        let publish = async |rival: u32| -> Result<Option<Manifest>, CatalogError> {
            let manifest = manifest(1_000 * generation + u64::from(rival));
            let from = PublishFrom { generation, gc_epoch: 0 };
            Ok(scope.catalog.publish(id, from, &manifest).await?.then_some(manifest))
        };
        let outcomes: Result<Vec<_>, _> = join_all((0..RIVALS).map(publish)).await.into_iter().collect();
        let winners: Vec<Manifest> = outcomes?.into_iter().flatten().collect();
        let row = scope.get("c").await?;
        same((row.generation, vec![row.manifest]), (generation + 1, winners.clone()))?;
        expected.extend(winners.into_iter().map(|manifest| (generation + 1, manifest)));
    }
    same(scope.versions(id).await?, expected)
}

pub(super) async fn who_was_passed_by_twice_does_not_publish<C: Catalog + Maintenance, R: Runtime>(
    scope: &Scope<'_, C, R>,
) -> Kept {
    let started = scope.create("c").await?;
    scope.catalog.raise_gc_epoch(started.id).await?;
    same(scope.catalog.publish(started.id, from(&started), &manifest(1)).await, Ok(true))?;

    let slow = PublishFrom { generation: 1, ..from(&started) };
    scope.catalog.raise_gc_epoch(started.id).await?;
    same(scope.catalog.publish(started.id, slow, &manifest(2)).await, Ok(false))?;
    let row = scope.get("c").await?;
    same(&row, &CollectionRow { generation: 1, gc_epoch: 2, manifest: manifest(1), ..started })?;
    same(scope.versions(row.id).await?, vec![(1, manifest(1))])?;
    same(scope.catalog.publish(row.id, from(&row), &manifest(2)).await, Ok(true))
}

pub(super) async fn nothing_is_published_to_what_is_gone<C: Catalog + Maintenance, R: Runtime>(
    scope: &Scope<'_, C, R>,
) -> Kept {
    let row = scope.create("c").await?;
    scope.publish(row.id, 1).await?;
    scope.delete("c").await?;
    for (id, kept) in [(row.id, vec![(1, manifest(1))]), (scope.unknown(), vec![])] {
        for generation in 0..3 {
            let from = PublishFrom { generation, gc_epoch: 0 };
            same(scope.catalog.publish(id, from, &manifest(2)).await, Ok(false))?;
        }
        same(scope.versions(id).await?, kept)?;
    }
    let upkeep = scope.catalog.upkeep(row.id).await?;
    same((upkeep.generation, upkeep.manifest), (1, manifest(1)))
}

pub(super) async fn a_version_is_kept_for_each_publication_until_it_is_forgotten<
    C: Catalog + Maintenance,
    R: Runtime,
>(
    scope: &Scope<'_, C, R>,
) -> Kept {
    let (id, other) = (scope.create("c").await?.id, scope.create("d").await?.id);
    same(scope.versions(id).await?, vec![])?;
    for number in 1..=4 {
        same(scope.publish(id, number).await, Ok(true))?;
        same(scope.publish(other, number).await, Ok(true))?;
    }
    let versions = |first: u64| (first..=4).map(|number| (number, manifest(number))).collect::<Vec<_>>();
    for (forget, first) in [(0, 1), (1, 1), (3, 3), (2, 3), (4, 4), (4, 4)] {
        scope.catalog.forget_versions(id, forget).await?;
        same(scope.versions(id).await?, versions(first))?;
    }
    scope.catalog.forget_versions(id, u64::MAX).await?;
    same(scope.versions(id).await?, vec![])?;
    // What was forgotten is no longer known, and still is what the row points to.
    let row = scope.get("c").await?;
    same((row.generation, row.manifest), (4, manifest(4)))?;
    same(scope.versions(other).await?, versions(1))?;
    scope.publish(id, 5).await?;
    same(scope.versions(id).await?, vec![(5, manifest(5))])
}

pub(super) async fn publishing_and_other_changes_leave_each_other_alone<C: Catalog + Maintenance, R: Runtime>(
    scope: &Scope<'_, C, R>,
) -> Kept {
    let (catalog, id) = (scope.catalog, scope.create("c").await?.id);
    let mut expected = catalog.set_dimension(id, 3).await?;
    scope.publish(id, 1).await?;
    expected = CollectionRow { generation: 1, manifest: manifest(1), ..expected };
    same(scope.get("c").await?, expected.clone())?;

    expected.metadata = serde_json::from_str(r#"{"a":1}"#)?;
    expected.configuration.ef_search = 77;
    expected.name = "d".to_owned();
    let configuration = Some(expected.configuration.clone());
    catalog
        .update_collection(id, CollectionChange { configuration, metadata: expected.metadata.clone(), ..rename("d") })
        .await?;
    catalog.add_schema_keys(id, super::object(json!({"k": {"float": 1.0}}))).await?;
    expected.schema["keys"]["k"] = json!({"float": 1.0});
    catalog.raise_gc_floor(id, Lsn(1)).await?;
    expected.gc_floor = Lsn(1);
    same(scope.get("d").await?, expected.clone())?;
    same(scope.versions(id).await?, vec![(1, manifest(1))])?;

    scope.publish(id, 2).await?;
    same(scope.get("d").await?, CollectionRow { generation: 2, manifest: manifest(2), ..expected })
}

pub(super) async fn racing_publications_and_other_changes_are_all_kept<C: Catalog + Maintenance, R: Runtime>(
    scope: &Scope<'_, C, R>,
) -> Kept {
    let (catalog, id) = (scope.catalog, scope.create("c").await?.id);
    let publish = async {
        for number in 1..=4 {
            scope.publish(id, number).await?;
        }
        Ok::<_, CatalogError>(())
    };
    let change = async {
        catalog.set_dimension(id, 3).await?;
        for number in 1..=4 {
            catalog.update_collection(id, rename(&format!("c{number}"))).await?;
            catalog.add_schema_keys(id, super::object(json!({format!("k{number}"): {}}))).await?;
            catalog.raise_gc_floor(id, Lsn(number)).await?;
        }
        Ok::<_, CatalogError>(())
    };
    let (published, changed) = join(publish, change).await;
    published?;
    changed?;
    let row = scope.get("c4").await?;
    same((row.generation, &row.manifest, row.dimension, row.gc_floor), (4, &manifest(4), Some(3), Lsn(4)))?;
    same(&row.schema["keys"], &json!({"k1": {}, "k2": {}, "k3": {}, "k4": {}}))?;
    same(scope.versions(id).await?, (1..=4).map(|number| (number, manifest(number))).collect())
}

pub(super) async fn the_gc_epoch_counts_up_deleted_or_not<C: Catalog + Maintenance, R: Runtime>(
    scope: &Scope<'_, C, R>,
) -> Kept {
    let row = scope.create("c").await?;
    let raise = || scope.catalog.raise_gc_epoch(row.id);
    let raised: Result<Vec<u64>, _> = join_all((0..RIVALS).map(|_| raise())).await.into_iter().collect();
    let mut raised = raised?;
    raised.sort_unstable();
    let rivals = u64::from(RIVALS);
    same(raised, (1..=rivals).collect())?;
    same(scope.get("c").await?, CollectionRow { gc_epoch: rivals, ..row.clone() })?;
    scope.delete("c").await?;
    same(raise().await?, rivals + 1)?;
    same(scope.catalog.upkeep(row.id).await?.gc_epoch, rivals + 1)?;
    same(scope.catalog.raise_gc_epoch(scope.unknown()).await, Err(CatalogError::NotFound))
}

pub(super) async fn upkeep_knows_the_collection_as_its_row_does<C: Catalog + Maintenance, R: Runtime>(
    scope: &Scope<'_, C, R>,
) -> Kept {
    let (catalog, id) = (scope.catalog, scope.create("c").await?.id);
    let young = catalog.upkeep(id).await?;
    let expected = Upkeep {
        id,
        name: format!("{}/{}/c", scope.tenant, scope.database),
        generation: 0,
        manifest: Manifest::default(),
        dimension: None,
        gc_floor: Lsn::ZERO,
        gc_epoch: 0,
        created_age_s: young.created_age_s,
        published_age_s: None,
        floor_age_s: None,
        deleted_age_s: None,
    };
    same(young, expected.clone())?;

    catalog.set_dimension(id, 3).await?;
    catalog.raise_gc_epoch(id).await?;
    scope.publish(id, 9).await?;
    catalog.raise_gc_floor(id, Lsn(5)).await?;
    scope.delete("c").await?;
    let old = catalog.upkeep(id).await?;
    same(old.published_age_s.is_some() && old.floor_age_s.is_some() && old.deleted_age_s.is_some(), true)?;
    let changed = Upkeep {
        generation: 1,
        manifest: manifest(9),
        dimension: Some(3),
        gc_floor: Lsn(5),
        gc_epoch: 1,
        created_age_s: old.created_age_s,
        published_age_s: old.published_age_s,
        floor_age_s: old.floor_age_s,
        deleted_age_s: old.deleted_age_s,
        ..expected
    };
    same(old, changed)?;
    same(catalog.upkeep(scope.unknown()).await, Err(CatalogError::NotFound))
}

pub(super) async fn upkeep_lists_the_deleted_too_in_the_order_of_creation<C: Catalog + Maintenance, R: Runtime>(
    scope: &Scope<'_, C, R>,
) -> Kept {
    let mut ids = Vec::new();
    for name in ["z", "a", "m"] {
        ids.push(scope.create(name).await?.id);
    }
    scope.delete("a").await?;
    // The name is free for another one.
    ids.push(scope.create("a").await?.id);
    scope.publish(ids[0], 1).await?;
    let listed = async || -> Result<Vec<Upkeep>, CatalogError> {
        let all = scope.catalog.list_upkeep().await?;
        Ok(all.into_iter().filter(|upkeep| ids.contains(&upkeep.id)).collect())
    };
    let rows: Vec<_> =
        listed().await?.iter().map(|row| (row.id, row.deleted_age_s.is_some(), row.generation)).collect();
    same(rows, vec![(ids[0], false, 1), (ids[1], true, 0), (ids[2], false, 0), (ids[3], false, 0)])?;
    scope.catalog.delete_database(&scope.tenant, &scope.database).await?;
    same(listed().await?.iter().filter(|row| row.deleted_age_s.is_some()).count(), ids.len())
}

pub(super) async fn ages_are_those_of_the_last_event_and_never_shrink<C: Catalog + Maintenance, R: Runtime>(
    scope: &Scope<'_, C, R>,
) -> Kept {
    let (catalog, id) = (scope.catalog, scope.create("c").await?.id);
    scope.publish(id, 1).await?;
    catalog.raise_gc_floor(id, Lsn(1)).await?;
    let before = catalog.upkeep(id).await?;
    scope.runtime.sleep(LONG_MS).await;

    // What is not an event lets everything get older.
    catalog.update_collection(id, rename("d")).await?;
    catalog.raise_gc_epoch(id).await?;
    let older = catalog.upkeep(id).await?;
    same(older.created_age_s >= before.created_age_s + 2, true)?;
    same(older.published_age_s >= before.published_age_s.map(|age| age + 2), true)?;
    same(older.floor_age_s >= before.floor_age_s.map(|age| age + 2), true)?;
    same(catalog.list_versions(id).await?.iter().all(|version| version.age_s >= 2), true)?;

    scope.publish(id, 2).await?;
    scope.delete("d").await?;
    let renewed = catalog.upkeep(id).await?;
    same(renewed.created_age_s >= older.created_age_s && renewed.floor_age_s >= older.floor_age_s, true)?;
    same((renewed.published_age_s < Some(2), renewed.deleted_age_s < Some(2)), (true, true))?;
    let ages: Vec<bool> = catalog.list_versions(id).await?.iter().map(|version| version.age_s < 2).collect();
    same(ages, vec![false, true])
}

pub(super) async fn only_a_real_raise_makes_the_floor_young<C: Catalog + Maintenance, R: Runtime>(
    scope: &Scope<'_, C, R>,
) -> Kept {
    let (catalog, id) = (scope.catalog, scope.create("c").await?.id);
    let raised = async |floor: u64| -> Result<Option<u64>, CatalogError> {
        catalog.raise_gc_floor(id, Lsn(floor)).await?;
        Ok(catalog.upkeep(id).await?.floor_age_s)
    };
    same(raised(0).await?, None)?;
    same(raised(5).await?.is_some_and(|age| age < 2), true)?;
    scope.runtime.sleep(LONG_MS).await;
    for floor in [0, 4, 5] {
        same(raised(floor).await?.is_some_and(|age| age >= 2), true)?;
    }
    same(raised(6).await?.is_some_and(|age| age < 2), true)
}

pub(super) async fn only_a_deleted_collection_is_forgotten<C: Catalog + Maintenance, R: Runtime>(
    scope: &Scope<'_, C, R>,
) -> Kept {
    let (catalog, row) = (scope.catalog, scope.create("c").await?);
    let bystander = scope.create("d").await?.id;
    for id in [row.id, bystander] {
        scope.publish(id, 1).await?;
        same(catalog.acquire_lease(id, 1, 1_000).await?, Some(1))?;
    }
    for id in [row.id, scope.unknown()] {
        same(catalog.forget_collection(id).await, Err(CatalogError::NotFound))?;
    }
    same(scope.get("c").await?.generation, 1)?;
    same(scope.versions(row.id).await?.len(), 1)?;

    scope.delete("c").await?;
    scope.delete("d").await?;
    catalog.forget_collection(row.id).await?;
    same(catalog.upkeep(row.id).await, Err(CatalogError::NotFound))?;
    same(catalog.list_upkeep().await?.iter().all(|upkeep| upkeep.id != row.id), true)?;
    same(scope.versions(row.id).await?, vec![])?;
    same(catalog.acquire_lease(row.id, 1, 1_000).await?, None)?;
    same(catalog.forget_collection(row.id).await, Err(CatalogError::NotFound))?;

    same(catalog.upkeep(bystander).await?.generation, 1)?;
    same(scope.versions(bystander).await?.len(), 1)?;
    same(catalog.acquire_lease(bystander, 2, 1_000).await?, None)
}

pub(super) async fn a_lease_has_one_holder<C: Catalog + Maintenance, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let (catalog, id, other) = (scope.catalog, scope.create("c").await?.id, scope.create("d").await?.id);
    let (ann, bob) = (scope.runtime.random(), scope.runtime.random());
    let acquire = async |holder| catalog.acquire_lease(id, holder, 1_000).await;
    same(acquire(ann).await?, Some(1))?;
    same(acquire(bob).await?, None)?;
    same(catalog.acquire_lease(other, bob, 1_000).await?, Some(1))?;
    // Its own may be extended, is not another's to end, and is free as soon as it is released.
    same(acquire(ann).await?, Some(1))?;
    catalog.release_lease(id, bob).await?;
    same(acquire(bob).await?, None)?;
    catalog.release_lease(id, ann).await?;
    same(acquire(bob).await?, Some(2))?;
    same(acquire(ann).await?, None)?;
    catalog.release_lease(id, bob).await?;
    same(acquire(bob).await?, Some(2))?;
    // Upkeep goes on when the collection is deleted.
    scope.delete("c").await?;
    same(acquire(ann).await?, None)?;
    catalog.release_lease(id, bob).await?;
    same(acquire(ann).await?, Some(3))
}

pub(super) async fn of_rivals_for_a_lease_one_gets_it<C: Catalog + Maintenance, R: Runtime>(
    scope: &Scope<'_, C, R>,
) -> Kept {
    let id = scope.create("c").await?.id;
    for epoch in 1..=3 {
        let outcomes = join_all((0..RIVALS).map(async |rival| {
            // Nobody comes back: who held it before must not hold it still.
            let holder = u128::from(epoch) << 64 | u128::from(rival);
            Ok::<_, CatalogError>(scope.catalog.acquire_lease(id, holder, 1_000).await?.map(|epoch| (holder, epoch)))
        }));
        let outcomes: Result<Vec<_>, _> = outcomes.await.into_iter().collect();
        let winners: Vec<(u128, u64)> = outcomes?.into_iter().flatten().collect();
        same(winners.iter().map(|(_, epoch)| *epoch).collect::<Vec<_>>(), vec![epoch])?;
        for (holder, _) in winners {
            scope.catalog.release_lease(id, holder).await?;
        }
    }
    Ok(())
}

pub(super) async fn a_lease_ends_by_itself<C: Catalog + Maintenance, R: Runtime>(scope: &Scope<'_, C, R>) -> Kept {
    let (catalog, id, kept) = (scope.catalog, scope.create("c").await?.id, scope.create("d").await?.id);
    same(catalog.acquire_lease(id, 1, 1).await?, Some(1))?;
    for seconds in [1, 1_000] {
        same(catalog.acquire_lease(kept, 1, seconds).await?, Some(1))?;
    }
    scope.runtime.sleep(LONG_MS).await;
    same(catalog.acquire_lease(kept, 2, 1_000).await?, None)?;
    same(catalog.acquire_lease(id, 2, 1_000).await?, Some(2))?;
    same(catalog.acquire_lease(id, 1, 1_000).await?, None)?;
    // A holder may also cut its own short.
    same(catalog.acquire_lease(id, 2, 0).await?, Some(2))?;
    same(catalog.acquire_lease(id, 1, 1_000).await?, Some(3))
}

pub(super) async fn there_is_no_lease_of_the_unknown<C: Catalog + Maintenance, R: Runtime>(
    scope: &Scope<'_, C, R>,
) -> Kept {
    let id = scope.unknown();
    same(scope.catalog.acquire_lease(id, 1, 1_000).await?, None)?;
    same(scope.catalog.release_lease(id, 1).await, Ok(()))
}
