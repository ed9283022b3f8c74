//! The catalog in SQL, over any [`Database`]: one transaction a call (of a long listing, one for each
//! [`LISTING_ROWS_MAX`] rows).
//!
//! What is tried again, with pauses, until [`limits::CATALOG_ATTEMPTS_MAX`] or the call's deadline:
//!
//! - every call that surely changed nothing: the database was busy, or answered 429;
//! - after a lost reply (broken connection, 5xx), what may run twice: reads; `create_database` and
//!   `create_collection`, which know their own row by its id; `set_dimension`, `add_schema_keys`, `raise_gc_floor`,
//!   `forget_versions` and the calls about leases, which change nothing the second time; `raise_gc_epoch`, which may
//!   raise it too far; migrations, which are guarded by their version;
//! - never after a lost reply: `create_tenant`, `update_collection`, `publish`, the deletions and `reset`. A second try
//!   could answer the first one's success with an error, or undo what someone else did in between.
//!
//! A table or column that is not there means that the database is older than the code: then, and only then, the
//! migrations run and the call is repeated.

mod maintenance;
mod rows;

use crate::database::{Database, Failure, Outcome, Row, SqlValue, Statement};
use crate::migrations::{self, MIGRATIONS, Migration};
use crate::{Catalog, CatalogError, CollectionChange, DatabaseRow, ExecutorRow, NewCollection, Page};
use crate::{DEFAULT_DATABASE, DEFAULT_TENANT};
use model::{CollectionId, CollectionRow, Lsn, limits};
use rows::{COLLECTION, Columns, DATABASE, bound, integer, json, or_null, text};
use runtime::{Backoff, Runtime, within};
use serde_json::{Map, Value};

/// Rows that one reply lists: sqld answers nothing longer than 10 MB, which leaves each row 20 kB. Where rows are larger,
/// half as many are asked for, and so on.
const LISTING_ROWS_MAX: u64 = 500;

/// The catalog in a SQL database. Making one costs nothing and sends nothing.
///
/// A call takes at most [`limits::CATALOG_TIMEOUT_MS`], repetitions and migrations included, and then answers
/// [`CatalogError::Unavailable`].
#[derive(Clone)]
pub struct SqlCatalog<D, R> {
    database: D,
    runtime: R,
}

/// Whether a request may be sent again when it is unknown what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfLost {
    Repeat,
    Report,
}

impl IfLost {
    fn allows_to_repeat_after(self, failure: &Failure) -> bool {
        match failure {
            Failure::Busy(_) => true,
            Failure::Lost(_) => self == IfLost::Repeat,
            Failure::Outdated(_) | Failure::Taken | Failure::TooLarge(_) | Failure::Refused(_) => false,
        }
    }
}

impl<D: Database, R: Runtime> SqlCatalog<D, R> {
    /// The catalog in `database`, which `runtime` lets wait and pause.
    pub fn over(database: D, runtime: R) -> Self {
        SqlCatalog { database, runtime }
    }

    pub(crate) fn database(&self) -> &D {
        &self.database
    }

    /// The outcomes of `statements`, which are one transaction, one for each.
    async fn run(&self, if_lost: IfLost, statements: &[Statement]) -> Result<Vec<Outcome>, Failure> {
        match within(&self.runtime, limits::CATALOG_TIMEOUT_MS, self.migrated(if_lost, statements)).await {
            Some(outcome) => outcome,
            None => Err(Failure::Lost(format!("no reply within {} ms", limits::CATALOG_TIMEOUT_MS))),
        }
    }

    /// The outcome of a lone statement.
    async fn run_one(&self, if_lost: IfLost, statement: Statement) -> Result<Outcome, Failure> {
        let outcomes = self.run(if_lost, &[statement]).await?;
        outcomes.into_iter().next().ok_or_else(|| Failure::Refused("no outcome".to_owned()))
    }

    /// The first row that a lone statement gives; `NotFound` if there is none.
    async fn row(&self, if_lost: IfLost, statement: Statement) -> Result<Row, CatalogError> {
        self.run_one(if_lost, statement).await?.rows.into_iter().next().ok_or(CatalogError::NotFound)
    }

    /// Runs a lone statement that is to change a row; `NotFound` if it changed none.
    async fn change(&self, if_lost: IfLost, statement: Statement) -> Result<(), CatalogError> {
        found(&self.run_one(if_lost, statement).await?)
    }

    /// The rows of `page`: `sql` selects those whose number is above `?1`, at most `?2`, after skipping `?3`, in the order of
    /// the number, which is the column after those that `read` reads; `place` is `?4` and so on.
    ///
    /// One round trip for each [`LISTING_ROWS_MAX`] rows. What is there all the time is listed exactly once.
    async fn listing<T>(
        &self,
        sql: &str,
        place: &[SqlValue],
        page: Page,
        read: fn(&mut Columns) -> Result<T, CatalogError>,
    ) -> Result<Vec<T>, CatalogError> {
        let (mut listed, mut after, mut offset) = (Vec::new(), 0_i64, page.offset);
        let (mut wanted, mut rows_max) = (page.limit.unwrap_or(u64::MAX), LISTING_ROWS_MAX);
        loop {
            let limit = wanted.min(rows_max);
            let slice = [SqlValue::Integer(after), bound(limit), bound(offset)];
            let select = Statement::query(sql, slice.into_iter().chain(place.iter().cloned()));
            let rows = match self.run_one(IfLost::Repeat, select).await {
                Err(Failure::TooLarge(_)) if limit > 1 => {
                    rows_max = limit / 2;
                    continue;
                }
                result => result?.rows,
            };
            let got = rows.len() as u64;
            for row in rows {
                let (value, number) = rows::read(row, |columns| Ok((read(columns)?, columns.integer()?)))?;
                listed.push(value);
                after = number;
            }
            wanted = wanted.saturating_sub(got);
            if got < limit || wanted == 0 {
                return Ok(listed);
            }
            offset = 0;
        }
    }

    async fn migrated(&self, if_lost: IfLost, statements: &[Statement]) -> Result<Vec<Outcome>, Failure> {
        match self.repeated(if_lost, statements).await {
            Err(Failure::Outdated(_)) => {
                self.migrate().await?;
                self.repeated(if_lost, statements).await
            }
            outcome => outcome,
        }
    }

    async fn repeated(&self, if_lost: IfLost, statements: &[Statement]) -> Result<Vec<Outcome>, Failure> {
        let mut backoff = Backoff::tries(limits::CATALOG_ATTEMPTS_MAX);
        loop {
            match self.database.run(statements).await {
                Err(failure) if if_lost.allows_to_repeat_after(&failure) => {
                    if !backoff.pause(&self.runtime).await {
                        return Err(failure);
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Runs the steps that the database lacks. Costs one transaction and one more for each step.
    async fn migrate(&self) -> Result<(), Failure> {
        let create = Statement::command(migrations::CREATE_VERSIONS, []);
        let mut outcomes = self.repeated(IfLost::Repeat, &[create, read_version()]).await?;
        let version = version_in(outcomes.pop().unwrap_or_default())?;
        for migration in MIGRATIONS.iter().filter(|migration| migration.version > version) {
            match self.repeated(IfLost::Repeat, &guarded(migration)).await {
                // Run by another isolate, or by a try of ours whose reply was lost.
                Ok(_) | Err(Failure::Taken) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }
}

/// The statements of `migration`, the first of which fails if it was run.
fn guarded(migration: &Migration) -> Vec<Statement> {
    let guard = Statement::command(migrations::RECORD_VERSION, [SqlValue::Integer(migration.version)]);
    std::iter::once(guard).chain(migration.statements.iter().map(|sql| Statement::command(*sql, []))).collect()
}

fn read_version() -> Statement {
    Statement::query(migrations::READ_VERSION, [])
}

/// The version in the outcome of [`read_version`]; refused if it is from the future.
fn version_in(outcome: Outcome) -> Result<i64, Failure> {
    let row = outcome.rows.into_iter().next().ok_or_else(|| Failure::Refused("no version".to_owned()))?;
    let version = rows::read(row, Columns::integer).map_err(|error| Failure::Refused(error.to_string()))?;
    let latest = migrations::latest();
    if version > latest {
        return Err(Failure::Refused(format!("the database has version {version}, this code knows {latest}")));
    }
    Ok(version)
}

fn found(outcome: &Outcome) -> Result<(), CatalogError> {
    if outcome.changed == 0 { Err(CatalogError::NotFound) } else { Ok(()) }
}

impl<D: Database, R: Runtime> Catalog for SqlCatalog<D, R> {
    async fn create_tenant(&self, name: &str) -> Result<(), CatalogError> {
        let insert = Statement::command("INSERT INTO tenants (name) VALUES (?1)", [text(name)]);
        self.change(IfLost::Report, insert).await
    }

    async fn tenant_exists(&self, name: &str) -> Result<bool, CatalogError> {
        let count = Statement::query("SELECT count(*) FROM tenants WHERE name = ?1", [text(name)]);
        let count: u64 = rows::read(self.row(IfLost::Repeat, count).await?, Columns::integer)?;
        Ok(count > 0)
    }

    async fn create_database(&self, tenant: &str, name: &str, id: u128) -> Result<(), CatalogError> {
        // On conflict the row stays as it is and is returned: its id tells whose it is.
        let sql = format!(
            "INSERT INTO databases (id, tenant, name) VALUES (?1, ?2, ?3)
             ON CONFLICT (tenant, name) DO UPDATE SET id = id RETURNING {DATABASE}"
        );
        let insert = Statement::query(sql, [rows::uuid(id), text(tenant), text(name)]);
        let row = rows::read(self.row(IfLost::Repeat, insert).await?, rows::database)?;
        if row.id == id { Ok(()) } else { Err(CatalogError::AlreadyExists) }
    }

    async fn get_database(&self, tenant: &str, name: &str) -> Result<DatabaseRow, CatalogError> {
        let sql = format!("SELECT {DATABASE} FROM databases WHERE tenant = ?1 AND name = ?2");
        let select = Statement::query(sql, [text(tenant), text(name)]);
        rows::read(self.row(IfLost::Repeat, select).await?, rows::database)
    }

    async fn list_databases(&self, tenant: &str, page: Page) -> Result<Vec<DatabaseRow>, CatalogError> {
        let sql = format!(
            "SELECT {DATABASE}, seq FROM databases WHERE tenant = ?4 AND seq > ?1 ORDER BY seq LIMIT ?2 OFFSET ?3"
        );
        self.listing(&sql, &[text(tenant)], page, rows::database).await
    }

    async fn delete_database(&self, tenant: &str, name: &str) -> Result<(), CatalogError> {
        let delete = "DELETE FROM databases WHERE tenant = ?1 AND name = ?2";
        let cascade = "UPDATE collections SET deleted_at = unixepoch()
                       WHERE tenant = ?1 AND database = ?2 AND deleted_at IS NULL";
        let statements = [delete, cascade].map(|sql| Statement::command(sql, [text(tenant), text(name)]));
        let outcomes = self.run(IfLost::Report, &statements).await?;
        outcomes.first().map_or(Err(CatalogError::NotFound), found)
    }

    async fn create_collection(&self, new: NewCollection) -> Result<CollectionRow, CatalogError> {
        let (id, get_or_create) = (new.id, new.get_or_create);
        let row = rows::read(self.row(IfLost::Repeat, insert_collection(new)).await?, rows::collection)?;
        if row.id == id || get_or_create { Ok(row) } else { Err(CatalogError::AlreadyExists) }
    }

    async fn get_collection(&self, tenant: &str, database: &str, name: &str) -> Result<CollectionRow, CatalogError> {
        let sql = format!(
            "SELECT {COLLECTION} FROM collections
             WHERE tenant = ?1 AND database = ?2 AND name = ?3 AND deleted_at IS NULL"
        );
        let select = Statement::query(sql, [text(tenant), text(database), text(name)]);
        rows::read(self.row(IfLost::Repeat, select).await?, rows::collection)
    }

    async fn get_collection_by_id(&self, id: CollectionId) -> Result<CollectionRow, CatalogError> {
        let sql = format!("SELECT {COLLECTION} FROM collections WHERE id = ?1 AND deleted_at IS NULL");
        let select = Statement::query(sql, [text(id.to_string())]);
        rows::read(self.row(IfLost::Repeat, select).await?, rows::collection)
    }

    async fn list_collections(
        &self,
        tenant: &str,
        database: &str,
        page: Page,
    ) -> Result<Vec<CollectionRow>, CatalogError> {
        let sql = format!(
            "SELECT {COLLECTION}, seq FROM collections
             WHERE tenant = ?4 AND database = ?5 AND deleted_at IS NULL AND seq > ?1 ORDER BY seq LIMIT ?2 OFFSET ?3"
        );
        self.listing(&sql, &[text(tenant), text(database)], page, rows::collection).await
    }

    async fn count_collections(&self, tenant: &str, database: &str) -> Result<u64, CatalogError> {
        let sql = "SELECT count(*) FROM collections WHERE tenant = ?1 AND database = ?2 AND deleted_at IS NULL";
        let count = Statement::query(sql, [text(tenant), text(database)]);
        rows::read(self.row(IfLost::Repeat, count).await?, Columns::integer)
    }

    async fn update_collection(&self, id: CollectionId, change: CollectionChange) -> Result<(), CatalogError> {
        self.change(IfLost::Report, update_collection(id, change)).await
    }

    async fn delete_collection(&self, tenant: &str, database: &str, name: &str) -> Result<(), CatalogError> {
        let sql = "UPDATE collections SET deleted_at = unixepoch()
                   WHERE tenant = ?1 AND database = ?2 AND name = ?3 AND deleted_at IS NULL";
        self.change(IfLost::Report, Statement::command(sql, [text(tenant), text(database), text(name)])).await
    }

    async fn set_dimension(&self, id: CollectionId, dimension: u32) -> Result<CollectionRow, CatalogError> {
        let sql = format!(
            "UPDATE collections SET dimension = coalesce(dimension, ?2), row_version = row_version + (dimension IS NULL)
             WHERE id = ?1 AND deleted_at IS NULL RETURNING {COLLECTION}"
        );
        let update = Statement::query(sql, [text(id.to_string()), integer(dimension.into())?]);
        rows::read(self.row(IfLost::Repeat, update).await?, rows::collection)
    }

    async fn add_schema_keys(&self, id: CollectionId, keys: Map<String, Value>) -> Result<(), CatalogError> {
        // The row's own keys are the patch: of two members of one name the row's stays.
        let sql = "UPDATE collections SET schema_keys = json_patch(?2, coalesce(schema_keys, '{}')),
                       row_version = row_version + 1
                   WHERE id = ?1 AND deleted_at IS NULL";
        self.change(IfLost::Repeat, Statement::command(sql, [text(id.to_string()), rows::wrapped(keys)])).await
    }

    async fn raise_gc_floor(&self, id: CollectionId, floor: Lsn) -> Result<(), CatalogError> {
        let sql = "UPDATE collections SET gc_floor = max(gc_floor, ?2),
                       floor_raised_at = CASE WHEN ?2 > gc_floor THEN unixepoch() ELSE floor_raised_at END
                   WHERE id = ?1 AND deleted_at IS NULL";
        self.change(IfLost::Repeat, Statement::command(sql, [text(id.to_string()), integer(floor.0)?])).await
    }

    async fn list_executors(&self) -> Result<Vec<ExecutorRow>, CatalogError> {
        let select = Statement::query("SELECT number, weight, state = 'draining' FROM executors ORDER BY number", []);
        let rows = self.run_one(IfLost::Repeat, select).await?.rows;
        rows.into_iter().map(|row| rows::read(row, rows::executor)).collect()
    }

    async fn set_executor(&self, row: ExecutorRow) -> Result<(), CatalogError> {
        let state = if row.draining { "draining" } else { "active" };
        let sql = "INSERT INTO executors (number, weight, state) VALUES (?1, ?2, ?3)
                   ON CONFLICT (number) DO UPDATE SET weight = ?2, state = ?3";
        let row = [integer(row.number.into())?, integer(row.weight.into())?, text(state)];
        self.change(IfLost::Repeat, Statement::command(sql, row)).await
    }

    async fn reset(&self) -> Result<(), CatalogError> {
        let tenant = "INSERT INTO tenants (name) VALUES (?1)";
        let database = "INSERT INTO databases (id, tenant, name) VALUES (?1, ?2, ?3)";
        let statements = [
            Statement::command("DELETE FROM tenants", []),
            Statement::command("DELETE FROM databases", []),
            Statement::command("UPDATE collections SET deleted_at = unixepoch() WHERE deleted_at IS NULL", []),
            Statement::command(tenant, [text(DEFAULT_TENANT)]),
            Statement::command(database, [rows::uuid(0), text(DEFAULT_TENANT), text(DEFAULT_DATABASE)]),
        ];
        Ok(self.run(IfLost::Report, &statements).await.map(drop)?)
    }

    async fn ping(&self) -> Result<(), CatalogError> {
        version_in(self.run_one(IfLost::Repeat, read_version()).await?)?;
        Ok(())
    }
}

/// Inserts the collection if its database exists, and returns the living row that then has its name; what is there
/// stays as it is. No row: no database. A UNIQUE violation: the id is that of another name or of a deleted collection.
fn insert_collection(new: NewCollection) -> Statement {
    let sql = format!(
        "INSERT INTO collections (id, tenant, database, name, metadata, configuration, schema, schema_keys)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE EXISTS (SELECT 1 FROM databases WHERE tenant = ?2 AND name = ?3)
         ON CONFLICT (tenant, database, name) WHERE deleted_at IS NULL DO UPDATE SET id = id
         RETURNING {COLLECTION}"
    );
    let (schema, schema_keys) = rows::schema_columns(new.schema);
    let metadata = or_null(new.metadata.as_ref().map(json));
    let place = [text(new.id.to_string()), text(new.tenant), text(new.database), text(new.name)];
    Statement::query(sql, place.into_iter().chain([metadata, json(&new.configuration), schema, schema_keys]))
}

/// Sets the columns that `change` names.
fn update_collection(id: CollectionId, change: CollectionChange) -> Statement {
    let mut args = vec![text(id.to_string())];
    let mut sql = "UPDATE collections SET row_version = row_version + 1".to_owned();
    let mut set = |column: &str, value| {
        args.push(value);
        sql.push_str(&format!(", {column} = ?{}", args.len()));
    };
    if let Some(name) = change.name {
        set("name", text(name));
    }
    if let Some(metadata) = change.metadata {
        set("metadata", or_null((!metadata.is_empty()).then(|| json(&metadata))));
    }
    if let Some(configuration) = change.configuration {
        set("configuration", json(&configuration));
    }
    if let Some(schema) = change.schema {
        let (schema, schema_keys) = rows::schema_columns(schema);
        set("schema", schema);
        set("schema_keys", schema_keys);
    }
    sql.push_str(" WHERE id = ?1 AND deleted_at IS NULL");
    Statement::command(sql, args)
}
