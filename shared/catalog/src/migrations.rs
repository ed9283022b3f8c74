//! The catalog's tables, as the list of steps that lead to them.
//!
//! A step that has been released never changes: the next one goes below it. Each runs in one transaction together with
//! the row in `migrations` that says so; the version is that table's primary key, so of any number of isolates that
//! race to run a step one does, and the others fail at their first statement.
//!
//! Times are `unixepoch()`: whole seconds by the catalog's own clock, never by a caller's.

/// A step.
pub(crate) struct Migration {
    /// From 1, without gaps.
    pub(crate) version: i64,
    /// One SQL statement each, without parameters.
    pub(crate) statements: &'static [&'static str],
}

/// Where the versions that were run are kept; made by whoever looks first.
pub(crate) const CREATE_VERSIONS: &str =
    "CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT";

/// The newest version that was run; 0 for a fresh database.
pub(crate) const READ_VERSION: &str = "SELECT coalesce(max(version), 0) FROM migrations";

/// Claims a version: fails with a UNIQUE violation if it was run already.
pub(crate) const RECORD_VERSION: &str = "INSERT INTO migrations (version, applied_at) VALUES (?1, unixepoch())";

/// All steps, in order.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        statements: &[
            // `seq` everywhere: the order of creation, which listings follow.
            "CREATE TABLE tenants (
            seq INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            created_at INTEGER NOT NULL DEFAULT (unixepoch())
        ) STRICT",
            "CREATE TABLE databases (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL,
            tenant TEXT NOT NULL,
            name TEXT NOT NULL,
            created_at INTEGER NOT NULL DEFAULT (unixepoch()),
            UNIQUE (tenant, name)
        ) STRICT",
            // A deleted collection stays as a row until its objects are gone, which is why only the living are unique.
            // `schema` is without its member `keys`; that is in `schema_keys`, each member of an entry in an array of one,
            // so that json_patch adds entries and members but never looks into one.
            "CREATE TABLE collections (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            tenant TEXT NOT NULL,
            database TEXT NOT NULL,
            name TEXT NOT NULL,
            metadata TEXT,
            configuration TEXT NOT NULL,
            schema TEXT NOT NULL,
            schema_keys TEXT,
            dimension INTEGER,
            row_version INTEGER NOT NULL DEFAULT 1,
            generation INTEGER NOT NULL DEFAULT 0,
            watermark INTEGER NOT NULL DEFAULT 0,
            manifest TEXT,
            published_at INTEGER,
            gc_floor INTEGER NOT NULL DEFAULT 0,
            floor_raised_at INTEGER,
            gc_epoch INTEGER NOT NULL DEFAULT 0,
            parent TEXT,
            fork_point INTEGER,
            created_at INTEGER NOT NULL DEFAULT (unixepoch()),
            deleted_at INTEGER
        ) STRICT",
            "CREATE UNIQUE INDEX collections_living ON collections (tenant, database, name) WHERE deleted_at IS NULL",
            "CREATE INDEX collections_in_order ON collections (tenant, database, seq) WHERE deleted_at IS NULL",
            "INSERT INTO tenants (name) VALUES ('default_tenant')",
            "INSERT INTO databases (id, tenant, name)
         VALUES ('00000000-0000-0000-0000-000000000000', 'default_tenant', 'default_database')",
        ],
    },
    Migration {
        version: 2,
        // An executor without a row is active and has weight 100. Operators change this table by hand.
        statements: &["CREATE TABLE executors (
            number INTEGER PRIMARY KEY CHECK (number >= 0),
            weight INTEGER NOT NULL DEFAULT 100 CHECK (weight BETWEEN 1 AND 10000),
            state TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'draining'))
        ) STRICT"],
    },
    Migration {
        version: 3,
        statements: &[
            // To insert a version is to publish it: the trigger moves the collection's row in the same statement, so that
            // a published generation is always kept. The tables share their fate with the row, again in one statement.
            "CREATE TABLE versions (
            collection TEXT NOT NULL,
            generation INTEGER NOT NULL,
            watermark INTEGER NOT NULL,
            manifest TEXT NOT NULL,
            published_at INTEGER NOT NULL DEFAULT (unixepoch()),
            PRIMARY KEY (collection, generation)
        ) STRICT",
            "CREATE TRIGGER version_is_published AFTER INSERT ON versions BEGIN
            UPDATE collections SET generation = new.generation, watermark = new.watermark, manifest = new.manifest,
                published_at = new.published_at
            WHERE id = new.collection;
        END",
            "CREATE TABLE leases (
            collection TEXT PRIMARY KEY NOT NULL,
            holder TEXT NOT NULL,
            epoch INTEGER NOT NULL DEFAULT 1,
            expires_at INTEGER NOT NULL
        ) STRICT",
            "CREATE TRIGGER collection_is_forgotten AFTER DELETE ON collections BEGIN
            DELETE FROM versions WHERE collection = old.id;
            DELETE FROM leases WHERE collection = old.id;
        END",
        ],
    },
];

/// The version this code needs, and the newest it knows.
pub(crate) fn latest() -> i64 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_contiguous_from_1() {
        let versions: Vec<i64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
        assert_eq!(versions, (1..=latest()).collect::<Vec<i64>>());
    }
}
