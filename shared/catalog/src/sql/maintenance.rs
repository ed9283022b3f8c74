//! What compaction and garbage collection ask, in SQL: each call a single statement.

use super::rows::{self, Columns, UPKEEP, VERSION, bound, integer, json, text};
use super::{IfLost, SqlCatalog};
use crate::database::{Database, Statement};
use crate::{CatalogError, Maintenance, Page, PublishFrom, Upkeep, Version};
use model::{CollectionId, Manifest};
use runtime::Runtime;

impl<D: Database, R: Runtime> Maintenance for SqlCatalog<D, R> {
    async fn publish(&self, id: CollectionId, from: PublishFrom, manifest: &Manifest) -> Result<bool, CatalogError> {
        // A trigger moves the collection's row along.
        let sql = "INSERT INTO versions (collection, generation, watermark, manifest)
                   SELECT id, generation + 1, ?4, ?5 FROM collections
                   WHERE id = ?1 AND generation = ?2 AND gc_epoch <= ?3 + 1 AND deleted_at IS NULL";
        let from = [integer(from.generation)?, integer(from.gc_epoch)?];
        let to = [integer(manifest.watermark().0)?, json(manifest)];
        let insert = Statement::command(sql, [text(id.to_string())].into_iter().chain(from).chain(to));
        Ok(self.run_one(IfLost::Report, insert).await?.changed > 0)
    }

    async fn upkeep(&self, id: CollectionId) -> Result<Upkeep, CatalogError> {
        let sql = format!("SELECT {UPKEEP} FROM collections WHERE id = ?1");
        let select = Statement::query(sql, [text(id.to_string())]);
        rows::read(self.row(IfLost::Repeat, select).await?, rows::upkeep)
    }

    async fn list_upkeep(&self) -> Result<Vec<Upkeep>, CatalogError> {
        let sql = format!("SELECT {UPKEEP}, seq FROM collections WHERE seq > ?1 ORDER BY seq LIMIT ?2 OFFSET ?3");
        self.listing(&sql, &[], Page::default(), rows::upkeep).await
    }

    async fn raise_gc_epoch(&self, id: CollectionId) -> Result<u64, CatalogError> {
        let sql = "UPDATE collections SET gc_epoch = gc_epoch + 1 WHERE id = ?1 RETURNING gc_epoch";
        let update = Statement::query(sql, [text(id.to_string())]);
        rows::read(self.row(IfLost::Repeat, update).await?, Columns::integer)
    }

    async fn list_versions(&self, id: CollectionId) -> Result<Vec<Version>, CatalogError> {
        let sql = format!(
            "SELECT {VERSION}, generation FROM versions
             WHERE collection = ?4 AND generation > ?1 ORDER BY generation LIMIT ?2 OFFSET ?3"
        );
        self.listing(&sql, &[text(id.to_string())], Page::default(), rows::version).await
    }

    async fn forget_versions(&self, id: CollectionId, generation: u64) -> Result<(), CatalogError> {
        let sql = "DELETE FROM versions WHERE collection = ?1 AND generation < ?2";
        let delete = Statement::command(sql, [text(id.to_string()), bound(generation)]);
        self.run_one(IfLost::Repeat, delete).await?;
        Ok(())
    }

    async fn forget_collection(&self, id: CollectionId) -> Result<(), CatalogError> {
        // A trigger removes its versions and its lease.
        let sql = "DELETE FROM collections WHERE id = ?1 AND deleted_at IS NOT NULL";
        self.change(IfLost::Report, Statement::command(sql, [text(id.to_string())])).await
    }

    async fn acquire_lease(&self, id: CollectionId, holder: u128, seconds: u64) -> Result<Option<u64>, CatalogError> {
        let sql = "INSERT INTO leases (collection, holder, expires_at)
                   SELECT id, ?2, unixepoch() + ?3 FROM collections WHERE id = ?1
                   ON CONFLICT (collection) DO UPDATE SET epoch = epoch + (holder <> excluded.holder),
                       holder = excluded.holder, expires_at = excluded.expires_at
                   WHERE holder = excluded.holder OR expires_at <= unixepoch()
                   RETURNING epoch";
        let upsert = Statement::query(sql, [text(id.to_string()), rows::uuid(holder), integer(seconds)?]);
        let lease = self.run_one(IfLost::Repeat, upsert).await?.rows.into_iter().next();
        lease.map(|row| rows::read(row, Columns::integer)).transpose()
    }

    async fn release_lease(&self, id: CollectionId, holder: u128) -> Result<(), CatalogError> {
        // The row stays: it knows the epoch.
        let sql = "UPDATE leases SET expires_at = 0 WHERE collection = ?1 AND holder = ?2";
        let update = Statement::command(sql, [text(id.to_string()), rows::uuid(holder)]);
        self.run_one(IfLost::Repeat, update).await?;
        Ok(())
    }
}
